import Kernel

/// Keeps the compressed pool's waste low: goes through the page tables for pages whose
/// objects are to move (`PoolCompaction`), and tells their entries the new places. A little
/// at a time. Worker thread only.
///
/// An object is moved by one compare-and-swap of its page's entry, from `stored` there to
/// `stored` here, once its bytes are copied. Whoever reads an object first takes the entry
/// away from `stored`, so nobody reads one at a place that the entry has left, and when
/// somebody was quicker it is the copy that is dropped. Only this thread puts anything into
/// the pool, hence an object that is freed meanwhile is not overwritten while it is copied.
struct PoolCompactor<Port: KernelPort> {
    private let limits: CompactionLimits
    /// The tier that is being compacted.
    private var tier: (index: TierIndex, compaction: PoolCompaction)?
    /// Where the search goes on: a block's slot, and a page of it.
    private var slot = 0
    private var page = 0

    init(_ limits: CompactionLimits) { self.limits = limits }

    /// One step: begins when it is worth it, goes on, or ends.
    mutating func step(_ pager: Pager<Port>) {
        if tier == nil { begin(pager) }
        guard let (index, compaction) = tier else { return }
        var moves = 0
        var pages = 0
        while slot < RegionList.capacity {
            if moves >= limits.movesPerStep || pages >= limits.pagesPerStep { return }
            while pager.controlWaiting.value > 0 { pager.kernel.pause() }
            let done = pager.holdingPassLock { sweep(pager, index, compaction) }
            moves += done.moves
            pages += done.pages
        }
        compaction.end()
        tier = nil
    }

    /// Forgets what was begun in a tier that is gone.
    mutating func forget(_ index: TierIndex) {
        if tier?.index == index { tier = nil }
    }

    private mutating func begin(_ pager: Pager<Port>) {
        for candidate in pager.store.tiers {
            guard case .compressed(let store) = candidate.backing,
                store.compaction.begin(gainMin: gainMin(store.pool, pager))
            else { continue }
            tier = (candidate.index, store.compaction)
            (slot, page) = (0, 0)
            return
        }
    }

    /// What makes a search of the page tables worth its while, in bytes.
    private func gainMin(_ pool: CompressedPool, _ pager: Pager<Port>) -> Int {
        max(
            limits.gainMin, pool.heldBytes / limits.gainShare,
            pager.counters.attachedPages.value / limits.pagesPerGain)
    }

    /// The next few neighbours in one chunk; pass lock held.
    private mutating func sweep(
        _ pager: Pager<Port>, _ index: TierIndex, _ compaction: PoolCompaction
    ) -> (moves: Int, pages: Int) {
        guard let region = pager.regions[slot], page < region.pageCount else {
            (slot, page) = (slot + 1, 0)
            return (0, 0)
        }
        let chunk = region.chunk(of: page)
        let rest = page..<region.pages(ofChunk: chunk).upperBound
        // Nothing ever left from elsewhere, and looking there would cost memory.
        guard region.chunks.isWatched(chunk) else {
            page = rest.upperBound
            return (0, 0)
        }
        let pages = rest.prefix(limits.pagesPerLock)
        var moves = 0
        for page in pages where move(region, page, pager, index, compaction) { moves += 1 }
        page = pages.endIndex
        return (moves, pages.count)
    }

    private func move(
        _ region: Region, _ page: Int, _ pager: Pager<Port>, _ index: TierIndex,
        _ compaction: PoolCompaction
    ) -> Bool {
        let entry = region.table[page]
        guard entry.state == .stored else { return false }
        let old = Locator(payload: entry.payload)
        guard old.tier == index, compaction.concerns(old.place),
            let place = compaction.copy(old.place)
        else { return false }
        let new = Locator(tier: index, place: place)
        pager.store.adopt(new)
        let isMoved = pager.relocate(region, page, entry, to: new)
        if isMoved { pager.counters.compactionMoves.increment() }
        return isMoved
    }
}

/// When compaction begins, and how much it does at a time.
public struct CompactionLimits: Sendable {
    /// Bytes to be gained, at least.
    public var gainMin = 256 << 10
    /// At least this share of what the pool holds.
    public var gainShare = 32
    /// At least a byte for so many pages whose entries must be looked at.
    public var pagesPerGain = 2
    /// Entries that a step looks at, about.
    public var pagesPerStep = 1 << 18
    /// Objects that a step moves, about.
    public var movesPerStep = 4096
    /// Entries looked at while control calls wait.
    public var pagesPerLock = 512

    public init() {}
}
