import Kernel

/// Pages that accesses wait for because their tier's reads are limited, in the order in which
/// they came. Fault thread only.
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
    fileprivate var readyAt: UInt64 = 0

    init() { pages.reserveCapacity(Self.capacity) }

    var isEmpty: Bool { pages.isEmpty }
}

extension FaultServer {
    /// True when a stored page must wait for its turn; then it is noted.
    func delay(_ region: Region, _ page: Int, _ stored: PageEntry, isWrite: Bool) -> Bool {
        guard pager.store.limitsRates(of: stored) else { return false }
        let now = pager.kernel.now()
        let delay = pager.store.readDelay(stored, .fault, at: now)
        guard delay > 0, delayed.pages.count < DelayedPages.capacity else { return false }
        if delayed.pages.isEmpty { delayed.readyAt = now + delay }
        delayed.pages.append(.init(region: region, page: page, isWrite: isWrite, start: batchStart))
        return true
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
            let entry = one.region.table[one.page]
            let delay = entry.state == .stored ? pager.store.readDelay(entry, .fault, at: now) : 0
            if delay > 0 || fetches.freeCount == 0 {
                delayed.readyAt = min(delayed.readyAt, now + delay)
                delayed.pages.append(one)
                continue
            }
            batchStart = one.start
            serve(one.region, one.page, isWrite: one.isWrite)
            served += 1
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
