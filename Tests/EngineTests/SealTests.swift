import CCrypto
import Engine
import Kernel
import SeededRandom
import Testing

/// The C shim against published vectors.
@Suite("Authenticated encryption")
struct CipherTests {
    struct Vector: Sendable, CustomTestStringConvertible {
        let name: String
        let cipher: Int32
        let key, nonce, data, plain, sealed, tag: String
        var testDescription: String { name }
    }

    /// "The Galois/Counter Mode of Operation", test case 16; RFC 8439, 2.8.2.
    static let vectors = [
        Vector(
            name: "AES-256-GCM", cipher: Int32(CCRYPTO_AES256_GCM.rawValue),
            key: "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
            nonce: "cafebabefacedbaddecaf888", data: "feedfacedeadbeeffeedfacedeadbeefabaddad2",
            plain: "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
                + "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
            sealed: "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
                + "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
            tag: "76fc6ece0f4e1768cddf8853bb2d551b"),
        Vector(
            name: "ChaCha20-Poly1305", cipher: Int32(CCRYPTO_CHACHA20_POLY1305.rawValue),
            key: "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
            nonce: "070000004041424344454647", data: "50515253c0c1c2c3c4c5c6c7",
            plain: "4c616469657320616e642047656e746c656d656e206f662074686520636c6173"
                + "73206f66202739393a204966204920636f756c64206f6666657220796f75206f"
                + "6e6c79206f6e652074697020666f7220746865206675747572652c2073756e73"
                + "637265656e20776f756c642062652069742e",
            sealed: "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d6"
                + "3dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b36"
                + "92ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc"
                + "3ff4def08e4b7a9de576d26586cec64b6116",
            tag: "1ae10b594f09e26a7e902ecbd0600691"),
    ]

    @Test("gives what the standards give, and takes it back", arguments: vectors)
    func knownAnswer(_ vector: Vector) throws {
        // Without its instructions in the CPU there is no AES to test.
        guard ccrypto_has_cipher(vector.cipher) == 1 else { return }
        var key: OpaquePointer?
        try #require(ccrypto_key_exact(vector.cipher, bytes(vector.key), &key) == 0)
        defer { ccrypto_key_free(key) }
        let plain = bytes(vector.plain)
        let data = bytes(vector.data)
        var sealed = plain
        var tag = [UInt8](repeating: 0, count: 16)
        sealed.withUnsafeMutableBytes { buffer in
            // In place.
            ccrypto_seal(
                key, bytes(vector.nonce), data, data.count, buffer.baseAddress, plain.count,
                buffer.baseAddress, &tag)
        }
        #expect(sealed == bytes(vector.sealed) && tag == bytes(vector.tag))
        let answer = sealed.withUnsafeMutableBytes { buffer in
            ccrypto_open(
                key, bytes(vector.nonce), data, data.count, buffer.baseAddress, plain.count, tag,
                buffer.baseAddress)
        }
        #expect(answer == 0 && sealed == plain)
    }

    /// Long ones go through other code than short ones, and that is another one for each
    /// generation of CPUs. The tags, and so what they authenticate, are OpenSSL's.
    @Test(
        "of AES does so at any length that a page may have",
        arguments: [
            (0, "50bbf8e8ba6b0066181846cf3709c30d"), (1, "771a1f5991385cc53d94a8feee4eb86f"),
            (15, "80d869df20787e7369b98bc3700cf1f4"), (16, "b601398b8a6b2c3d96064ebec4ec4470"),
            (17, "77aa8c99292b3407a36bf6ec313573cb"), (255, "af348ab9a96b8f4446925846c6f59508"),
            (496, "845b0bd002f993809563162a5179d658"), (768, "ffc86c0923a444f28b0be43615bfc61c"),
            (1008, "6a1b48620af97a854836d1c9305f9f24"), (2030, "99e0d377b39993d9eaac25cd35359fc3"),
            (2032, "2d27cac86e3fe3b3ad5f39e40218ced6"), (3567, "4b996b23fb18555b8b4503c7fe78817a"),
            (4096, "12f364f7cddd34b29ae26c5a6e073b9b"),
        ])
    func anyLength(_ length: Int, _ expected: String) throws {
        let cipher = Int32(CCRYPTO_AES256_GCM.rawValue)
        guard ccrypto_has_cipher(cipher) == 1 else { return }
        var key: OpaquePointer?
        try #require(ccrypto_key_exact(cipher, Array(0..<32), &key) == 0)
        defer { ccrypto_key_free(key) }
        let (nonce, data) = ([UInt8](0..<12), [UInt8](100..<112))
        let plain = (0..<length).map { UInt8(truncatingIfNeeded: $0 * 7 + $0 >> 8) }
        // One byte more, which nobody touches; and not at the beginning of anything.
        var sealed = [UInt8](repeating: 0xa5, count: length + 2)
        var opened = sealed
        var tag = [UInt8](repeating: 0, count: 16)
        sealed.withUnsafeMutableBytes {
            ccrypto_seal(key, nonce, data, data.count, plain, length, $0.baseAddress! + 1, &tag)
        }
        #expect(tag == bytes(expected))
        let answer = sealed.withUnsafeBytes { from in
            opened.withUnsafeMutableBytes { to in
                ccrypto_open(
                    key, nonce, data, data.count, from.baseAddress! + 1, length, tag, to.baseAddress! + 1)
            }
        }
        #expect(answer == 0 && opened == [0xa5] + plain + [0xa5])
        #expect(sealed.first == 0xa5 && sealed.last == 0xa5)
    }

    @Test("leaves nothing of what was altered", arguments: vectors)
    func altered(_ vector: Vector) throws {
        guard ccrypto_has_cipher(vector.cipher) == 1 else { return }
        var key: OpaquePointer?
        try #require(ccrypto_key_exact(vector.cipher, bytes(vector.key), &key) == 0)
        defer { ccrypto_key_free(key) }
        let (data, nonce, sealed) = (bytes(vector.data), bytes(vector.nonce), bytes(vector.sealed))
        var tag = bytes(vector.tag)
        tag[15] ^= 1
        var opened = [UInt8](repeating: 0xa5, count: sealed.count)
        let answer = ccrypto_open(key, nonce, data, data.count, sealed, sealed.count, tag, &opened)
        #expect(answer == -Errno.badMessage.code && opened.allSatisfy { $0 == 0 })
    }

    private func bytes(_ hex: String) -> [UInt8] {
        let digits = Array(hex.utf8)
        return stride(from: 0, to: digits.count, by: 2).map {
            UInt8(String(decoding: digits[$0...$0 + 1], as: UTF8.self), radix: 16)!
        }
    }
}

@Suite("A sealed object")
struct SealTests {
    private let position = Sealer.Position(serial: 7, sector: 40)
    private let identity = PageIdentity(block: 2, page: 99)

    private static let ciphers = [Sealer.Cipher.aes256GCM, .chaCha20Poly1305].filter {
        ccrypto_has_cipher($0.rawValue) == 1
    }

    /// A page of noise and repeats, sealed, and a coder that opens it.
    private func sealed(
        _ cipher: Sealer.Cipher, noise: Int
    ) throws -> (coder: ObjectCoder, object: [UInt8], page: [UInt8]) {
        var random = SplitMix(seed: UInt64(noise) + 1)
        let page = (0..<pageSize).map { $0 < noise ? UInt8(random.below(256)) : UInt8(5) }
        let coder = try ObjectCoder(tier: TierIndex(1), sealer: try Sealer(cipher: cipher))
        return (coder, seal(page, with: coder), page)
    }

    private func seal(_ page: [UInt8], with coder: ObjectCoder) -> [UInt8] {
        page.withUnsafeBytes { page in
            let contents = coder.contents(of: page.baseAddress!)
            var object = [UInt8](repeating: 0xa5, count: contents.sectors * 512)
            object.withUnsafeMutableBytes {
                coder.write(contents, to: $0.baseAddress!, at: position, identity)
            }
            return object
        }
    }

    private func read(
        _ object: [UInt8], _ coder: ObjectCoder, _ position: Sealer.Position, _ identity: PageIdentity
    ) -> [UInt8]? {
        var object = object
        var page = [UInt8](repeating: 0, count: pageSize)
        let isRead = object.withUnsafeMutableBytes { object in
            page.withUnsafeMutableBytes {
                coder.read(
                    object.baseAddress!, sectors: object.count / 512, at: position, identity,
                    into: $0.baseAddress!)
            }
        }
        return isRead ? page : nil
    }

    @Test("gives its page back, whatever its size", arguments: ciphers)
    func roundTrip(cipher: Sealer.Cipher) throws {
        for noise in stride(from: 1, through: pageSize, by: 91) {
            let (coder, object, page) = try sealed(cipher, noise: noise)
            #expect(object.count <= 9 * 512 && (noise < 4080 || object.count == 9 * 512))
            #expect(read(object, coder, position, identity) == page)
        }
    }

    @Test("does not open with any bit of it changed", arguments: ciphers)
    func bitFlips(cipher: Sealer.Cipher) throws {
        for noise in [200, pageSize] {
            let (coder, object, _) = try sealed(cipher, noise: noise)
            var opened = 0
            for bit in 0..<object.count * 8 {
                var changed = object
                changed[bit / 8] ^= 1 << UInt8(bit % 8)
                if read(changed, coder, position, identity) != nil { opened += 1 }
            }
            #expect(opened == 0)
        }
    }

    @Test("does not open for another page, at another place, from another time or tier")
    func bound() throws {
        let sealer = try Sealer()
        let coder = try ObjectCoder(tier: TierIndex(1), sealer: sealer)
        let object = seal([UInt8](repeating: 3, count: pageSize), with: coder)
        #expect(read(object, coder, position, identity) != nil)
        let others = [
            PageIdentity(block: 3, page: 99), PageIdentity(block: 2, page: 98),
            PageIdentity(block: 99, page: 2),
        ]
        for other in others { #expect(read(object, coder, position, other) == nil) }
        for (serial, sector) in [(8, 40), (6, 40), (7, 41), (40, 7)] {
            let other = Sealer.Position(serial: UInt64(serial), sector: UInt32(sector))
            #expect(read(object, coder, other, identity) == nil)
        }
        let tier = try ObjectCoder(tier: TierIndex(2), sealer: sealer)
        #expect(read(object, tier, position, identity) == nil)
        let key = try ObjectCoder(tier: TierIndex(1), sealer: try Sealer())
        #expect(read(object, key, position, identity) == nil)
    }

    @Test("has another key each time, from the same secret, too")
    func derived() throws {
        let secret = Sealer.KeySource.derived(
            try Array("a secret".utf8).withUnsafeBytes { try SealSecret($0) })
        let coders = try (0..<2).map { _ in
            try ObjectCoder(tier: TierIndex(1), sealer: try Sealer(secret))
        }
        let page = [UInt8](repeating: 3, count: pageSize)
        #expect(seal(page, with: coders[0]) != seal(page, with: coders[1]))
        #expect(read(seal(page, with: coders[0]), coders[0], position, identity) == page)
        #expect(read(seal(page, with: coders[0]), coders[1], position, identity) == nil)
    }
}
