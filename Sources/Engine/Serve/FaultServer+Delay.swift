import Kernel

/// Pages that accesses wait for before they are asked of their tier, in the order in which they
/// came: its reads are limited, or it has more than its share of the buffers. Fault thread only.
struct DelayedPages {
    struct Delayed {
        let region: Region
        let page: Int
        let isWrite: Bool
        /// When its fault message was read.
        let start: UInt64
    }

    /// Beyond these, accesses do not wait for their turn.
    static let capacity = 1024
    fileprivate var pages: [Delayed] = []
    /// When the first may be read, as far as is known. Nanoseconds.
    fileprivate var readyAt: UInt64 = .max
    /// Some wait for a buffer.
    fileprivate var awaitBuffers = false

    init() { pages.reserveCapacity(Self.capacity) }

    var isEmpty: Bool { pages.isEmpty }

    mutating func noteFreeBuffer() {
        if awaitBuffers { (awaitBuffers, readyAt) = (false, 0) }
    }

    fileprivate mutating func append(_ one: Delayed, readyAt time: UInt64?) {
        pages.append(one)
        if let time { readyAt = min(readyAt, time) } else { awaitBuffers = true }
    }
}

extension FaultServer {
    /// True when a stored page must wait for its turn; then it is noted.
    func delay(_ region: Region, _ page: Int, _ stored: PageEntry, isWrite: Bool) -> Bool {
        guard delayed.pages.count < DelayedPages.capacity else { return false }
        let one = DelayedPages.Delayed(region: region, page: page, isWrite: isWrite, start: batchStart)
        if isCrowded(by: stored) {
            delayed.append(one, readyAt: nil)
            return true
        }
        guard pager.store.limitsRates(of: stored) else { return false }
        let now = pager.kernel.now()
        let delay = pager.store.readDelay(stored, .fault, at: now)
        if delay > 0 { delayed.append(one, readyAt: now + delay) }
        return delay > 0
    }

    private func isCrowded(by stored: PageEntry) -> Bool {
        guard fetches.isScarce else { return false }
        let tier = Locator(payload: stored.payload).tier
        return pager.store.isOnDevice(tier)
            && fetches.isCrowded(by: tier, devices: pager.store.deviceCount)
    }

    /// Serves those whose turn has come. True when there was any.
    func serveDelayed() -> Bool {
        let now = pager.kernel.now()
        guard now >= delayed.readyAt else { return false }
        let waiting = delayed.pages
        delayed.pages.removeAll(keepingCapacity: true)
        delayed.readyAt = .max
        var served = 0
        for one in waiting {
            guard pager.regions.find(one.region.start) === one.region else { continue }
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

    /// How long the server may sleep when no message comes, in nanoseconds: `tick`, or less.
    public func pause(tick: UInt64) -> UInt64 {
        guard !delayed.isEmpty else { return tick }
        let now = pager.kernel.now()
        return delayed.readyAt > now ? min(tick, delayed.readyAt - now) : 0
    }
}
