import Kernel

/// Some of a pool's slabs: a bit each, in memory that is used only where a bit was ever
/// set. The lowest is taken first, so that a pool stays near its beginning and the kernel's
/// own page tables for the rest stay few.
@safe struct SlabSet: ~Copyable {
    private let mapping: Mapping
    private let words: UnsafeMutablePointer<UInt64>
    private(set) var count = 0
    /// No bit is set in the words below.
    private var lowestWord = 0

    /// Slabs whose bits share one page of memory.
    static let slabsPerPage = pageSize * 8

    init(capacity: Int) throws(Errno) {
        mapping = try Mapping(length: roundUp((capacity + 63) / 64 * 8, to: pageSize))
        unsafe words = mapping.base.assumingMemoryBound(to: UInt64.self)
    }

    mutating func insert(_ slab: UInt32) {
        let word = Int(slab / 64)
        precondition(!contains(slab), "a slab was put into a set twice")
        unsafe words[word] |= 1 << UInt64(slab % 64)
        count += 1
        lowestWord = min(lowestWord, word)
    }

    @inline(__always)
    func contains(_ slab: UInt32) -> Bool {
        unsafe words[Int(slab / 64)] >> UInt64(slab % 64) & 1 != 0
    }

    mutating func takeLowest() -> UInt32? {
        guard count > 0 else { return nil }
        while unsafe words[lowestWord] == 0 { lowestWord += 1 }
        let bit = unsafe words[lowestWord].trailingZeroBitCount
        unsafe words[lowestWord] &= ~(1 << UInt64(bit))
        count -= 1
        return UInt32(lowestWord * 64 + bit)
    }

    /// Host memory behind it, in bytes.
    var residentBytes: Int { mapping.residentBytes }
}
