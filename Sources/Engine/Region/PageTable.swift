import Kernel
import Synchronization

/// The library's own page table of one block: an entry a page, 8 bytes each, host
/// memory only where a page left and has not been forgotten since (`trim`). All threads; each
/// transition is one compare-and-swap, and the winner does what the transition stands for.
@safe public struct PageTable: ~Copyable, @unchecked Sendable {
    private let mapping: Mapping
    private let entries: UnsafeMutablePointer<Atomic<UInt64>>
    public let pageCount: Int
    /// Between `trim` and those who change entries of blank memory.
    private let gate = TrimGate()

    private static let entriesPerPage = pageSize / MemoryLayout<Atomic<UInt64>>.stride

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
        // Only such an entry can lie in memory that `trim` has found blank.
        let isBlank = old.word == 0
        if isBlank { gate.enter() }
        defer { if isBlank { gate.leave() } }
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

    /// Gives memory back whose entries say `resident` and name no copy, which is what blank
    /// memory says, too. Their generations begin anew: nobody may be at work for an earlier stay
    /// of the pages. One thread at a time, while others change entries.
    public func trim() {
        for first in stride(from: 0, to: pageCount, by: Self.entriesPerPage) {
            let offset = first * MemoryLayout<Atomic<UInt64>>.stride
            guard mapping.isResident(offset: offset) else { continue }
            gate.close()
            if isForgotten(first..<min(first + Self.entriesPerPage, pageCount)) {
                mapping.release(offset: offset, length: pageSize)
            }
            gate.open()
        }
    }

    /// Makes the entries blank, as far as there is nothing to remember; true when all are. What
    /// is blank stays so until the gate is opened.
    private func isForgotten(_ pages: Range<Int>) -> Bool {
        for page in pages {
            let entry = self[page]
            if entry.word == 0 { continue }
            guard entry.isForgettable else { return false }
            let answer = unsafe entries[page].compareExchange(
                expected: entry.word, desired: 0, ordering: .acquiringAndReleasing)
            guard answer.exchanged else { return false }
        }
        return true
    }

    /// Host memory behind it, in bytes.
    public var residentBytes: Int { mapping.residentBytes }
}

@inline(__always)
public func roundUp(_ value: Int, to unit: Int) -> Int {
    (value + unit - 1) / unit * unit
}
