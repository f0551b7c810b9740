import Kernel
import Synchronization

/// The library's own page table of one block: an entry a page, 8 bytes each, host
/// memory only where a page ever left. All threads; each transition is one
/// compare-and-swap, and the winner does what the transition stands for.
@safe public struct PageTable: ~Copyable, @unchecked Sendable {
    private let mapping: Mapping
    private let entries: UnsafeMutablePointer<Atomic<UInt64>>
    public let pageCount: Int

    public init(pageCount: Int) throws(Errno) {
        let bytes = pageCount * MemoryLayout<Atomic<UInt64>>.stride
        mapping = try Mapping(length: roundUp(bytes, to: pageSize))
        unsafe entries = mapping.base.assumingMemoryBound(to: Atomic<UInt64>.self)
        self.pageCount = pageCount
    }

    /// Acquire: who sees `staged` or `stored` also sees the contents behind it.
    @inline(__always)
    public subscript(page: Int) -> PageEntry {
        assert(page >= 0 && page < pageCount)
        return unsafe PageEntry(word: entries[page].load(ordering: .acquiring))
    }

    /// True when the entry was `old` and is now `new`. Release on success, for the
    /// acquire in `subscript`.
    @inline(__always)
    public func exchange(_ page: Int, from old: PageEntry, to new: PageEntry) -> Bool {
        assert(page >= 0 && page < pageCount)
        return unsafe entries[page].compareExchange(
            expected: old.word, desired: new.word, ordering: .acquiringAndReleasing
        ).exchanged
    }

    /// Replaces an entry that nobody else changes: see `Pager+WholePages.swift`.
    @inline(__always)
    func replace(_ page: Int, by entry: PageEntry) {
        assert(page >= 0 && page < pageCount)
        unsafe entries[page].store(entry.word, ordering: .releasing)
    }

    /// Host memory behind it, in bytes.
    public var residentBytes: Int { mapping.residentBytes }
}

@inline(__always)
public func roundUp(_ value: Int, to unit: Int) -> Int {
    (value + unit - 1) / unit * unit
}
