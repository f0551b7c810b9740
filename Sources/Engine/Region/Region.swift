import Kernel
import Synchronization

/// One attached RAMBlock: its addresses and what the library knows of its pages.
public final class Region: Sendable {
    public let name: String
    /// Tells it from every other block that this process ever had.
    public let serial: UInt32
    private static let serials = Atomic<UInt32>(0)
    /// Address of the first page in this process.
    public let start: UInt64
    /// Bytes, a multiple of the page size.
    public let length: UInt64
    /// How its pages are taken.
    public let `guard`: Guard
    /// The second mapping of shared memory; nil for private memory.
    private let view: SharedView?
    /// From an address of the block to that of the same page in its second mapping.
    private let viewOffset: UInt64
    public let table: PageTable
    public let chunks: ChunkTable
    public let ages: AgeMap
    /// Pages that the host's kernel has swapped out, as far as was last seen: they keep
    /// their age, are not resident, and are left to the kernel.
    let swapped: PageSet
    /// The kernel may merge pages of the block with equal ones (KSM).
    public let mayMerge: Bool
    /// Pages that were found merged when they were to leave, and have not been touched
    /// since: they stay.
    let merged: PageSet
    /// For the holder of the pass lock.
    let looks: HugePageLooks
    let visits: VisitSchedule
    /// As of the last pass or recount.
    var residentPages: Int {
        get { residents.load(ordering: .relaxed) }
        set { residents.store(newValue, ordering: .relaxed) }
    }
    private let residents = Atomic<Int>(0)
    public let workingSet = WorkingSet()
    let transfers: TransferCounts
    /// Pages that leave and come back as one: 1, or in hugetlbfs 512. The entry of the first
    /// says where they are; see `Pager+WholePages.swift`.
    public let unitPages: Int
    /// Pages that precede the block in its first, huge-page-aligned chunk.
    private let leadingPages: Int
    /// Reads of the store under way for this block.
    public let fetchesInFlight = Atomic<Int>(0)
    /// Evictions under way, and pages that the worker is moving in the store: between its steps
    /// none. Changed under the pass lock.
    let inHand = Atomic<Int>(0)

    public init(name: String, start: UInt64, length: UInt64, guard: Guard = .move, mayMerge: Bool = false)
        throws(Errno)
    {
        precondition(start % UInt64(pageSize) == 0 && length % UInt64(pageSize) == 0 && length > 0)
        let pages = Int(length) / pageSize
        self.name = name
        serial = Self.serials.add(1, ordering: .relaxed).newValue
        self.start = start
        self.length = length
        self.guard = `guard`
        unitPages = `guard`.leavesWhole ? hugePageSize / pageSize : 1
        precondition((start | length) % UInt64(unitPages * pageSize) == 0)
        if `guard`.isShared {
            let view = try SharedView(of: start, length: length, isHuge: `guard`.leavesWhole)
            viewOffset = view.start &- start
            self.view = consume view
        } else {
            view = nil
            viewOffset = 0
        }
        table = try PageTable(pageCount: pages)
        chunks = try ChunkTable(pageCount: pages)
        ages = try AgeMap(pageCount: pages)
        swapped = try PageSet(pageCount: pages)
        self.mayMerge = mayMerge
        merged = try PageSet(pageCount: pages)
        leadingPages = Int(start % UInt64(hugePageSize)) / pageSize
        let hugePages = (pages + leadingPages + hugePageSize / pageSize - 1) / (hugePageSize / pageSize)
        looks = HugePageLooks(count: hugePages)
        visits = try VisitSchedule(count: hugePages)
        transfers = try TransferCounts(count: hugePages)
    }

    public var end: UInt64 { start + length }
    public var pageCount: Int { table.pageCount }

    @inline(__always)
    public func contains(_ address: UInt64) -> Bool { address >= start && address < end }
    @inline(__always)
    public func page(at address: UInt64) -> Int { Int((address - start) / UInt64(pageSize)) }
    @inline(__always)
    public func address(of page: Int) -> UInt64 { start + UInt64(page) * UInt64(pageSize) }
    /// Where shared memory can be read without a fault.
    @inline(__always)
    public func viewAddress(of page: Int) -> UInt64 {
        assert(`guard`.isShared)
        return address(of: page) &+ viewOffset
    }
    /// Bytes that leave and come back as one.
    @inline(__always)
    public var unitLength: UInt64 { UInt64(unitPages * pageSize) }
    /// The first of the pages that leave together with `page`.
    @inline(__always)
    public func head(of page: Int) -> Int { page & ~(unitPages - 1) }
    /// The pages that leave together, from their first.
    @inline(__always)
    public func unit(of head: Int) -> Range<Int> { head..<head + unitPages }
    @inline(__always)
    func identity(of page: Int) -> PageIdentity { PageIdentity(block: serial, page: UInt32(page)) }
    @inline(__always)
    public func offset(of page: Int) -> UInt64 { UInt64(page) * UInt64(pageSize) }

    /// The chunk a page lies in. Chunks are aligned to huge pages by address.
    public func chunk(of page: Int) -> Int { (page + leadingPages) / chunks.pagesPerChunk }

    /// The pages of a chunk; the block's ends may cut it, or leave nothing of it.
    public func pages(ofChunk chunk: Int) -> Range<Int> {
        let first = chunk * chunks.pagesPerChunk - leadingPages
        return (first..<first + chunks.pagesPerChunk).clamped(to: 0..<pageCount)
    }

    /// The pages of the huge page at `index`, counted from the one the block starts in.
    public func pages(ofHugePage index: Int) -> Range<Int> { pages(ofHugePages: index..<index + 1) }

    /// The same for neighbours.
    public func pages(ofHugePages range: Range<Int>) -> Range<Int> {
        let pagesPerHugePage = hugePageSize / pageSize
        let first = range.lowerBound * pagesPerHugePage - leadingPages
        return max(0, first)..<min(pageCount, range.upperBound * pagesPerHugePage - leadingPages)
    }

    /// The huge page that a page lies in, counted like `pages(ofHugePage:)`.
    @inline(__always)
    public func hugePage(of page: Int) -> Int { (page + leadingPages) / (hugePageSize / pageSize) }
    public func hugePage(at address: UInt64) -> Int { hugePage(of: page(at: address)) }

    /// Huge pages the block touches, whole or in part.
    public var hugePageCount: Int { visits.count }

    /// Position of a page in its huge page: where it is put in staging, so that a
    /// whole huge page moves as one.
    public func positionInHugePage(_ page: Int) -> Int {
        (page + leadingPages) % (hugePageSize / pageSize)
    }
}
