import CCrypto
import Kernel
import Synchronization

/// Digests of pages that are back in the guest and whose copies the store still has:
/// when such a page leaves again with the same contents, nothing is written.
///
/// No tracker tells exactly which pages were written since they were fetched: RWP notes
/// reads as well, and nothing is armed at the moment a page is placed. So the contents are
/// compared, by a digest of 128 bits: NHPoly1305 under a key that never leaves this process,
/// which takes a quarter of the time of Poly1305 alone. For any two different pages, chosen by
/// whomever, it is the same with a probability below 2^-99: that of NH is 2^-128 (Crowley and
/// Biggers, "Adiantum: length-preserving encryption for entry-level processors", 2018), and that of
/// Poly1305 over what NH leaves, 136 bytes, 72 / 2^106 (Bernstein, "The Poly1305-AES
/// message-authentication code", 2005: 8 ⌈L/16⌉ / 2^106).
///
/// The digest is of the place, too: digests lie in a table that has one for a few sectors of
/// the device, and a copy whose digest was overwritten by that of a neighbour must not be
/// mistaken for it. It then counts as written to, which costs a write. The table's memory
/// costs nothing where no copy is kept. A digest is written before the page's entry names the
/// copy, and read by whoever took the page over by its entry; that orders all but neighbours,
/// who may write at once, hence the atomic halves.
@safe final class KeptCopies: @unchecked Sendable {
    private let key: Mapping
    private let digests: Mapping
    private static let digestLength = 16
    /// Sectors that share a digest: few objects are shorter.
    private static let sectorsPerDigest: UInt64 = 4

    /// For places in as many sectors as `sectors`.
    init(sectors: UInt64) throws(Errno) {
        key = try Mapping(length: pageSize)
        let count = Int(sectors / Self.sectorsPerDigest) + 1
        digests = try Mapping(length: roundUp(count * Self.digestLength, to: pageSize))
        let code = unsafe ccrypto_digest_key(key.base.assumingMemoryBound(to: ccrypto_digest_key.self))
        if code != 0 { throw .inputOutput }
    }

    /// Remembers what the page stored from `sector` on holds. Fault thread only.
    func remember(_ sector: UInt64, _ page: UnsafeRawPointer) {
        let found = unsafe digest(sector, page)
        let halves = unsafe address(sector)
        unsafe halves[0].store(found.0, ordering: .relaxed)
        unsafe halves[1].store(found.1, ordering: .relaxed)
    }

    /// Whether `page` holds what was remembered for `sector`. Worker thread only.
    func matches(_ sector: UInt64, _ page: UnsafeRawPointer) -> Bool {
        let found = unsafe digest(sector, page)
        let halves = unsafe address(sector)
        return unsafe halves[0].load(ordering: .relaxed) == found.0
            && halves[1].load(ordering: .relaxed) == found.1
    }

    /// Makes the memory of a digest worth giving back. Whoever drops the copy.
    func forget(_ sector: UInt64) {
        let halves = unsafe address(sector)
        unsafe halves[0].store(0, ordering: .relaxed)
        unsafe halves[1].store(0, ordering: .relaxed)
    }

    /// Gives memory without digests back; returns the bytes that are left. A digest
    /// written meanwhile may be lost, which costs a write. Worker thread only.
    func trim() -> Int { digests.trimBlank() }

    private func address(_ sector: UInt64) -> UnsafeMutablePointer<Atomic<UInt64>> {
        let offset = Int(sector / Self.sectorsPerDigest) * Self.digestLength
        return unsafe (digests.base + offset).assumingMemoryBound(to: Atomic<UInt64>.self)
    }

    private func digest(_ sector: UInt64, _ page: UnsafeRawPointer) -> (UInt64, UInt64) {
        unsafe withUnsafeTemporaryAllocation(byteCount: Self.digestLength, alignment: 8) { found in
            unsafe ccrypto_digest(
                key.base.assumingMemoryBound(to: ccrypto_digest_key.self), sector, page,
                found.baseAddress!.assumingMemoryBound(to: UInt8.self))
            return unsafe (
                found.load(as: UInt64.self), found.load(fromByteOffset: 8, as: UInt64.self)
            )
        }
    }
}
