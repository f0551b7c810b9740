import Synchronization

/// What the pager has done and where pages are: plain counters that any thread
/// reads without a lock. Each says in pages or times what it counts.
public final class Counters: Sendable {
    public let faults = Atomic<UInt64>(0)
    public let fetches = Atomic<UInt64>(0)
    /// Pages fetched before they were wanted, included in `fetches`.
    public let prefetches = Atomic<UInt64>(0)
    /// Of those, pages that the guest went through.
    public let prefetchHits = Atomic<UInt64>(0)
    public let rescues = Atomic<UInt64>(0)
    public let zeroFills = Atomic<UInt64>(0)
    /// Pages of shared memory that were in RAM and only had to be mapped again.
    public let remaps = Atomic<UInt64>(0)
    /// Pages that were only protected: an access waited until that was lifted.
    public let lifts = Atomic<UInt64>(0)
    /// Of both together: the time since the last look, in nanoseconds.
    let timeToAnswers = Atomic<UInt64>(0)
    /// Accesses that waited for a page in the worker's hands, and for how long at most, in
    /// nanoseconds: `FaultTimes` knows only what the fault thread served.
    public let heldUpAccesses = Atomic<UInt64>(0)
    public let heldUpTime = Atomic<UInt64>(0)
    public let duplicateFaults = Atomic<UInt64>(0)
    public let evictions = Atomic<UInt64>(0)
    /// Of those, pages for which nothing was written: the store still had them.
    public let cleanEvictions = Atomic<UInt64>(0)
    public let busyPages = Atomic<UInt64>(0)
    public let returnedPages = Atomic<UInt64>(0)
    public let discardedPages = Atomic<UInt64>(0)
    public let writeErrors = Atomic<UInt64>(0)
    public let readErrors = Atomic<UInt64>(0)
    public let poisonedPages = Atomic<UInt64>(0)
    public let passes = Atomic<UInt64>(0)
    /// Huge pages that were split to be looked into, and ranges made huge pages again.
    public let hugePageSplits = Atomic<UInt64>(0)
    public let hugePageMends = Atomic<UInt64>(0)
    /// Huge pages that left whole, and those of them that were made whole again once they were back.
    public let hugePageDepartures = Atomic<UInt64>(0)
    public let hugePageReturns = Atomic<UInt64>(0)
    /// Objects of the compressed pool that were moved closer together.
    public let compactionMoves = Atomic<UInt64>(0)

    /// Attached blocks, those of them that are shared memory, and those that are zapped.
    public let blocks = Atomic<Int>(0)
    public let sharedBlocks = Atomic<Int>(0)
    public let zappedBlocks = Atomic<Int>(0)
    /// Sum of the attached blocks, in pages.
    public let attachedPages = Atomic<Int>(0)
    /// Host memory of page tables, ages and bookkeeping as of the last pass, in bytes.
    public let metadataBytes = Atomic<Int>(0)
    /// Pages found touched by the last pass.
    public let touchedPages = Atomic<Int>(0)
    /// Accesses that the kernel had to let pass for them, at least: one for a mapped huge page.
    public let lightFaults = Atomic<Int>(0)
    /// Pages in guest memory as of the last pass, corrected for what moved since.
    public let residentPages = Atomic<Int>(0)
    /// Pages that the host's kernel has swapped out, as of the last pass.
    public let swappedPages = Atomic<Int>(0)
    /// Pages that were merged (KSM) when they were to leave, as of the last pass.
    public let mergedPages = Atomic<Int>(0)
    /// Pages that were taken from the guest and are not stored yet.
    public let stagedPages = Atomic<Int>(0)
    /// Pages in each tier, by its number.
    private let tierPages = InlineArray<8, Atomic<Int>> { _ in Atomic<Int>(0) }
    /// Pages in guest memory of which the store has kept a copy.
    public let keptCopies = Atomic<Int>(0)
    /// The stall budget as its controller saw it last: the share of vCPU time that is lost, in
    /// millionths, and pages a second that leave for its sake. 0 without a budget.
    public let stallShare = Atomic<UInt64>(0)
    public let evictionPace = Atomic<UInt64>(0)
    /// Unreadable pages that an access waits for.
    public let waitingPages = Atomic<Int>(0)

    public init() {}

    @inline(__always)
    func stored(_ tier: TierIndex, change: Int) {
        tierPages[tier.number].add(change, ordering: .relaxed)
    }

    /// Pages in a tier.
    public func pages(in tier: TierIndex) -> Int { tierPages[tier.number].value }

    /// Pages that are in the store and nowhere else.
    public var evictedPages: Int {
        var sum = 0
        for number in 0...TierIndex.tiersMax { sum += tierPages[number].value }
        return sum
    }
}

extension Atomic where Value == UInt64 {
    @inline(__always)
    func increment(by amount: UInt64 = 1) { add(amount, ordering: .relaxed) }
    @inline(__always)
    public var value: UInt64 { load(ordering: .relaxed) }
}

extension Atomic where Value == Int {
    @inline(__always)
    public var value: Int { load(ordering: .relaxed) }
}
