import CDigest
import Kernel

/// Digests of pages that are back in the guest and whose copies the store still has:
/// when such a page leaves again with the same contents, nothing is written.
///
/// No tracker tells exactly which pages were written since they were fetched: RWP notes
/// reads as well, and nothing is armed at the moment a page is placed. So the contents are
/// compared, by a digest of 128 bits: Poly1305 under a key that never leaves this process.
/// For any two different pages, chosen by whomever, it is the same with a probability of
/// at most 2^-95 (Bernstein, "The Poly1305-AES message-authentication code", 2005: 8 ⌈L/16⌉ / 2^106).
///
/// One digest a slot of the file, in memory that costs nothing where no copy is kept. A
/// digest is written before the page's entry names the copy, and read by whoever took the
/// page over by its entry; hence plain memory is enough.
@safe final class KeptCopies: @unchecked Sendable {
    private let key: Mapping
    private let digests: Mapping
    private static let digestLength = 16
    private static let keyLength = 32

    /// For as many slots as `capacity`.
    init(capacity: Int) throws(Errno) {
        key = try Mapping(length: pageSize)
        digests = try Mapping(length: roundUp(capacity * Self.digestLength, to: pageSize))
        let code = unsafe cdigest_make_key(key.base.assumingMemoryBound(to: UInt8.self))
        if code != 0 { throw .inputOutput }
    }

    /// Remembers what the page in `slot` holds. Fault thread only.
    func remember(_ slot: Int, _ page: UnsafeRawPointer) {
        unsafe digest(page, into: address(slot))
    }

    /// Whether `page` holds what was remembered for `slot`. Worker thread only.
    func matches(_ slot: Int, _ page: UnsafeRawPointer) -> Bool {
        unsafe withUnsafeTemporaryAllocation(of: UInt8.self, capacity: Self.digestLength) { found in
            unsafe digest(page, into: found.baseAddress!)
            return unsafe UnsafeRawBufferPointer(found).elementsEqual(
                UnsafeRawBufferPointer(start: address(slot), count: Self.digestLength))
        }
    }

    /// Makes the memory of a digest worth giving back. Whoever drops the copy.
    func forget(_ slot: Int) {
        unsafe address(slot).update(repeating: 0, count: Self.digestLength)
    }

    /// Gives memory without digests back; returns the bytes that are left. A digest
    /// written meanwhile may be lost, which costs a write. Worker thread only.
    func trim() -> Int { digests.trimBlank() }

    private func address(_ slot: Int) -> UnsafeMutablePointer<UInt8> {
        unsafe (digests.base + slot * Self.digestLength).assumingMemoryBound(to: UInt8.self)
    }

    private func digest(_ page: UnsafeRawPointer, into target: UnsafeMutablePointer<UInt8>) {
        unsafe cdigest(
            key.base.assumingMemoryBound(to: UInt8.self), page, Int32(pageSize), target)
    }
}
