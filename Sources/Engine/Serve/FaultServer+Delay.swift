import Kernel

/// Pages that accesses wait for before they are asked of their tier, in the order in which they
/// came: its reads are limited, or it has more than its share of the buffers. Fault thread only.
struct DelayedPages {
    struct Delayed {
        let region: Region
        let page: Int
        var isWrite: Bool
        /// When its fault message was read.
        let start: UInt64
    }

    /// Beyond these, accesses do not wait for their turn; for a buffer they do.
    static let capacity = 1024
    fileprivate var pages: [Delayed] = []
    /// Memory that is used in turns with that of `pages`.
    fileprivate var others: [Delayed] = []
    /// When the first may be read, as far as is known. Nanoseconds.
    fileprivate var readyAt: UInt64 = .max
    /// Some wait for a buffer.
    fileprivate var awaitBuffers = false

    init() {
        pages.reserveCapacity(Self.capacity)
        others.reserveCapacity(Self.capacity)
    }

    /// True when the page waits already. Whoever accesses it faults again each time it is woken.
    mutating func noteAgain(_ region: Region, _ page: Int, isWrite: Bool) -> Bool {
        let found = pages.firstIndex { $0.page == page && $0.region === region }
        guard let found else { return false }
        if isWrite { pages[found].isWrite = true }
        return true
    }

    var isEmpty: Bool { pages.isEmpty }

    mutating func noteFreeBuffer() {
        if awaitBuffers { (awaitBuffers, readyAt) = (false, 0) }
    }

    /// `others` are to be served; those that must wait again are appended.
    fileprivate mutating func beginTurn() {
        swap(&pages, &others)
        readyAt = .max
    }

    fileprivate mutating func endTurn() { others.removeAll(keepingCapacity: true) }

    fileprivate mutating func append(_ one: Delayed, readyAt time: UInt64?) {
        pages.append(one)
        if let time { readyAt = min(readyAt, time) } else { awaitBuffers = true }
    }
}

extension FaultServer {
    /// True when a stored page must wait for its turn; then it is noted.
    func delay(_ region: Region, _ page: Int, _ stored: PageEntry, isWrite: Bool) -> Bool {
        if delayed.noteAgain(region, page, isWrite: isWrite) { return true }
        let one = DelayedPages.Delayed(region: region, page: page, isWrite: isWrite, start: batchStart)
        let locator = Locator(payload: stored.payload)
        if mustWait(for: locator.tier) {
            delayed.append(one, readyAt: nil)
            return true
        }
        guard delayed.pages.count < DelayedPages.capacity, pager.store.limitsRates(of: locator) else {
            return false
        }
        let now = pager.kernel.now()
        let delay = pager.store.readDelay(locator, .fault, at: now)
        if delay > 0 { delayed.append(one, readyAt: now + delay) }
        return delay > 0
    }

    /// For a buffer.
    func mustWait(for tier: TierIndex) -> Bool {
        fetches.mustWait(for: tier, devices: pager.store.deviceCount) && pager.store.isOnDevice(tier)
    }

    /// Those that are stored in the tier.
    func delayedPages(of tier: TierIndex) -> [(region: Region, page: Int)] {
        delayed.pages.compactMap { one in
            guard pager.regions.find(one.region.start) === one.region else { return nil }
            let entry = one.region.table[one.page]
            guard entry.state == .stored, Locator(payload: entry.payload).tier == tier else { return nil }
            return (one.region, one.page)
        }
    }

    /// Serves those whose turn has come. True when there was any.
    func serveDelayed() -> Bool {
        let now = pager.kernel.now()
        guard now >= delayed.readyAt else { return false }
        delayed.beginTurn()
        defer { delayed.endTurn() }
        var served = 0
        for index in delayed.others.indices {
            let one = delayed.others[index]
            // Who took a page that is not stored any more has woken the access.
            guard pager.regions.find(one.region.start) === one.region,
                one.region.table[one.page].state == .stored
            else { continue }
            if fetches.freeCount == 0 {
                delayed.append(one, readyAt: nil)
                continue
            }
            let before = delayed.pages.count
            batchStart = one.start
            serve(one.region, one.page, isWrite: one.isWrite)
            if delayed.pages.count == before { served += 1 }
        }
        return served > 0
    }

    /// How long a device is left alone that could not begin its reads, in nanoseconds.
    private static var startPause: UInt64 { 1_000_000 }

    /// How long the server may sleep when no message comes, in nanoseconds: `tick`, or less.
    public func pause(tick: UInt64) -> UInt64 {
        let tick =
            fetches.areUnstarted
            ? min(tick, Self.startPause) : fetches.isIdle ? tick : min(tick, Self.hungPause)
        let readyAt = min(
            delayed.isEmpty ? .max : delayed.readyAt, whole?.readyAt ?? .max,
            pager.recalls.isEmpty ? .max : recallReadyAt)
        guard readyAt < .max else { return tick }
        let now = pager.kernel.now()
        return readyAt > now ? min(tick, readyAt - now) : 0
    }
}
