import CCrypto
import Kernel
import Testing

@Suite("The digest of a kept copy")
struct DigestTests {
    private let key = DigestTests.makeKey()
    private let page = (0..<pageSize / 4).map { _ in UInt32.random(in: .min ... .max) }

    private static func makeKey() -> ccrypto_digest_key {
        var key = ccrypto_digest_key()
        #expect(ccrypto_digest_key(&key) == 0)
        return key
    }

    private func digest(
        _ page: [UInt32], number: UInt64 = 7, key: ccrypto_digest_key? = nil
    ) -> [UInt8] {
        var digest = [UInt8](repeating: 0, count: 16)
        withUnsafePointer(to: key ?? self.key) { ccrypto_digest($0, number, page, &digest) }
        return digest
    }

    @Test("is of the page, its number and a key")
    func same() {
        let original = digest(page)
        #expect(digest(Array(page)) == original)
        #expect(digest(page, number: 8) != original)
        #expect(digest(page, key: Self.makeKey()) != original)
    }

    @Test("differs for a change anywhere in the page")
    func changed() {
        let original = digest(page)
        for word in page.indices {
            var changed = page
            changed[word] ^= 1 << UInt32.random(in: 0..<32)
            #expect(digest(changed) != original, "word \(word)")
        }
    }

    @Test("differs when words change places", arguments: [1, 2, 3, 4, 8, 256, 512, 1023])
    func swapped(distance: Int) {
        var changed = page
        changed.swapAt(0, distance)
        #expect(digest(changed) != digest(page))
    }

    @Test("differs for pages of zeros that differ in one bit")
    func sparse() {
        let zeros = [UInt32](repeating: 0, count: page.count)
        var digests: Set<[UInt8]> = [digest(zeros)]
        for word in 0..<page.count {
            var changed = zeros
            changed[word] = 1 << 31
            digests.insert(digest(changed))
        }
        #expect(digests.count == page.count + 1)
    }
}
