import Kernel

/// What the simulated kernel keeps of one page.
public struct PTE: Sendable {
    public enum State: UInt8, Sendable { case absent, present, poisoned, swapped }
    public var state = State.absent
    /// Read-write protected: the next access is noted.
    public var armed = false
    /// Mapped by a huge page: armed, and touched, as a whole.
    public var isHuge = false
    /// One with an equal page elsewhere, until it is written.
    public var isMerged = false
    /// Shared memory: in the file, mapped or not.
    public var cached = false
    /// In the file although it was punched, as may happen.
    public var unpunched = false
    /// Registered for missing (and in shared memory minor) faults, and for tracking.
    public var missing = false
    public var tracked = false
    /// I/O under way.
    public var pins: UInt16 = 0
    /// What was last written, in guest memory: the oracle of the simulation.
    public var version: UInt32 = 0
    /// When it was last touched, and what of that the last scan saw.
    public var touchedAt: UInt64 = 0
    public var idleSince: UInt64 = 0
    public var scannedAt: UInt64 = 0
    /// The last scan found it mapped, or it was in the file.
    public var wasThere = false
    /// Hugetlbfs: it was armed when it was unmapped, and the page table says so. Looks like swap.
    public var isMarked = false
    /// Hugetlbfs: filled by the kernel over such a mark. Looks armed, is read unnoticed, and
    /// cannot be written before it is armed or disarmed.
    public var isStale = false
    /// When it was last swapped out.
    public var swappedAt: UInt64 = 0

    public init() {}
}

/// A mapping in the simulated address space: real memory, simulated page table.
/// The memory of an absent page, if it is not in a file, is all zeros, so that the
/// kernel's own fills cost nothing.
@safe public final class Space: @unchecked Sendable {
    public let name: String
    public let start: UInt64
    public let pageCount: Int
    @usableFromInline let ptes: UnsafeMutablePointer<PTE>
    /// Keeps the memory, when it is the simulation's own.
    private let mapping: Mapping?
    private let sharedMemory: SharedMemory?
    /// Where the pager has mapped shared memory a second time; 0 before.
    public var viewStart: UInt64 = 0
    /// A shared mapping of a file, not private anonymous memory.
    public var isShared: Bool { sharedMemory != nil }
    /// In huge pages of hugetlbfs: only whole ones are mapped, armed and freed.
    public let isHugetlb: Bool
    /// The guest's memory, not the pager's.
    public let isGuest: Bool

    /// Memory of a guest: `leadingPages` after a huge page's boundary.
    public init(
        name: String, pageCount: Int, leadingPages: Int, isShared: Bool, isHugetlb: Bool = false
    ) throws(Errno) {
        self.isHugetlb = isHugetlb
        let length = (pageCount + leadingPages) * pageSize
        self.name = name
        if isShared {
            let memory = try SharedMemory(length: length)
            start = memory.start + UInt64(leadingPages * pageSize)
            mapping = nil
            sharedMemory = memory
        } else {
            let mapping = try Mapping(length: length, alignment: hugePageSize)
            start = UInt64(UInt(bitPattern: mapping.base)) + UInt64(leadingPages * pageSize)
            self.mapping = consume mapping
            sharedMemory = nil
        }
        self.pageCount = pageCount
        isGuest = true
        ptes = Self.emptyTable(pageCount)
    }

    /// Memory that the pager mapped for itself.
    init(name: String, start: UInt64, pageCount: Int) {
        self.name = name
        self.start = start
        self.pageCount = pageCount
        mapping = nil
        sharedMemory = nil
        isGuest = false
        isHugetlb = false
        ptes = Self.emptyTable(pageCount)
    }

    private static func emptyTable(_ pageCount: Int) -> UnsafeMutablePointer<PTE> {
        let ptes = UnsafeMutablePointer<PTE>.allocate(capacity: pageCount)
        ptes.initialize(repeating: PTE(), count: pageCount)
        return ptes
    }

    deinit { ptes.deallocate() }

    public var length: UInt64 { UInt64(pageCount * pageSize) }

    @inlinable
    public subscript(page: Int) -> PTE {
        unsafeAddress {
            precondition(page >= 0 && page < pageCount)
            return UnsafePointer(ptes + page)
        }
        unsafeMutableAddress {
            precondition(page >= 0 && page < pageCount)
            return ptes + page
        }
    }

    public func memory(_ page: Int) -> UnsafeMutableRawPointer {
        UnsafeMutableRawPointer(bitPattern: UInt(start) + UInt(page * pageSize))!
    }

    public func address(of page: Int) -> UInt64 { start + UInt64(page * pageSize) }

    func contains(_ address: UInt64) -> Bool {
        address >= start && address < start + length
    }

    func viewContains(_ address: UInt64) -> Bool {
        viewStart != 0 && address >= viewStart && address < viewStart + length
    }

    /// Pages of a range that must lie in this space, or in its second mapping.
    func pages(_ start: UInt64, _ length: UInt64) -> Range<Int> {
        let first = Int(start - (viewContains(start) ? viewStart : self.start)) / pageSize
        let range = first..<first + Int(length) / pageSize
        precondition(range.upperBound <= pageCount, "a range crosses mappings")
        return range
    }

    /// The pages of the huge page that a page would be in; nil where the space cuts it.
    public func hugePage(of page: Int) -> Range<Int>? {
        let pagesPerHugePage = hugePageSize / pageSize
        let first = page - Int(address(of: page) / UInt64(pageSize)) % pagesPerHugePage
        let pages = first..<first + pagesPerHugePage
        return pages == pages.clamped(to: 0..<pageCount) ? pages : nil
    }

    /// The pages that are mapped together with a page.
    public func unit(of page: Int) -> Range<Int> {
        guard isHugetlb else { return page..<page + 1 }
        let pagesPerHugePage = hugePageSize / pageSize
        let first = page / pagesPerHugePage * pagesPerHugePage
        return first..<first + pagesPerHugePage
    }

    /// Whether a range is of whole huge pages, where no others are.
    func isWhole(_ pages: Range<Int>) -> Bool {
        unit(of: pages.lowerBound).lowerBound == pages.lowerBound
            && unit(of: pages.upperBound - 1).upperBound == pages.upperBound
    }

    /// Maps the page's huge page, if it is in one, by single pages.
    func split(_ page: Int) {
        guard self[page].isHuge, let pages = hugePage(of: page) else { return }
        for page in pages { self[page].isHuge = false }
    }

    /// Notes an access.
    func touch(_ page: Int, at now: UInt64) {
        let pages = self[page].isHuge ? hugePage(of: page) : nil
        for page in pages ?? page..<page + 1 {
            self[page].armed = false
            self[page].touchedAt = now
        }
    }

    /// Whether the kernel has the page's contents: mapped, in its swap, or in the file.
    public func holds(_ page: Int) -> Bool {
        self[page].state == .present || self[page].state == .swapped || self[page].cached
    }

    /// Maps a page.
    func fill(_ page: Int) {
        self[page].state = .present
        self[page].cached = isShared
        self[page].isHuge = isHugetlb
        self[page].isMarked = false
        self[page].isStale = false
    }

    /// Fills what a page's access finds missing, as the kernel does where nobody else is asked.
    func fillUnit(of page: Int) {
        for page in unit(of: page) {
            let isStale = self[page].isMarked
            fill(page)
            self[page].isStale = isStale
            self[page].armed = isStale
        }
    }

    /// The page is gone, and its memory reads as zeros.
    func clear(_ page: Int) {
        if holds(page) { erase(page) }
        self[page].cached = false
        self[page].unpunched = false
        unmap(page)
    }

    func erase(_ page: Int) {
        memory(page).initializeMemory(as: UInt8.self, repeating: 0, count: pageSize)
    }

    /// The page is not mapped any more.
    func unmap(_ page: Int) {
        split(page)
        if isHugetlb, self[page].armed { self[page].isMarked = true }
        self[page].state = .absent
        self[page].isStale = false
        self[page].armed = false
        self[page].isMerged = false
    }
}
