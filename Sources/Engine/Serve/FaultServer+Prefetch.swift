import Kernel

/// Pages that come from the store before they are wanted.
extension FaultServer {
    /// A wanted page came back: what follows may be wanted soon.
    func noteDemand(_ region: Region, _ page: Int) {
        let pages = prefetch.fault(ObjectIdentifier(region), page)
        pager.counters.prefetchHits.store(prefetch.hits, ordering: .relaxed)
        // A stream that comes while another's window is under way waits for its next fault.
        guard ahead == nil, !pages.isEmpty, hasRoom(for: pages.count) else { return }
        ahead = (region, pages.clamped(to: 0..<region.pageCount))
    }

    private func hasRoom(for pages: Int) -> Bool {
        let limit = pager.settings.limit
        return limit == 0 || pager.cost + pages * pageSize <= Int(limit)
    }

    /// Begins a few prefetches. Called between batches of messages, so that no fault waits
    /// for more than these. True when there was anything to do.
    func advancePrefetch() -> Bool {
        guard let (region, pages) = ahead else { return false }
        guard pager.regions.find(region.start) === region else {
            ahead = nil
            return false
        }
        let now = pages.prefix(Self.prefetchesPerTurn)
        for page in now where fetches.freeCount > Self.buffersForFaults {
            let entry = region.table[page]
            guard entry.state == .stored,
                mayPrefetch(Locator(payload: entry.payload))
            else { continue }
            let arriving = entry.becoming(.arriving)
            guard pager.transition(region, page, from: entry, to: arriving) else { continue }
            pager.counters.prefetches.increment()
            prefetch.brings(ObjectIdentifier(region), page)
            fetch(region, page, arriving, want: .ahead)
        }
        let rest = now.endIndex..<pages.upperBound
        ahead = rest.isEmpty ? nil : (region, rest)
        return true
    }

    private func mayPrefetch(_ locator: Locator) -> Bool {
        !pager.store.limitsRates(of: locator)
            || pager.store.readDelay(locator, .prefetch, at: pager.kernel.now()) == 0
    }

    static var prefetchesPerTurn: Int { 4 }
    /// Reads that are kept free for faults.
    static var buffersForFaults: Int { FetchTable.capacity / 2 }

    /// A page brought in vain must look cold: idle since it came. One that is used is noted when
    /// it is, but not if that is before it is armed: then it is as old as its arrival.
    func settlePrefetched(_ region: Region, _ page: Int, isAwaited: Bool) {
        noteBack(region, page)
        // Not armed means that it looks touched: only less is evicted. Unmapping it would
        // make the guest wait for what came early.
        guard pager.tracking, !isAwaited, !pager.isZapped(region) else { return }
        _ = pager.kernel.arm(start: region.address(of: page), length: UInt64(pageSize))
    }

    /// Could not be had: as if never tried. An access may have come meanwhile, and wait:
    /// woken, it faults again, and then the failure is its own.
    func giveUpPrefetch(_ region: Region, _ page: Int, from entry: PageEntry) {
        let locator = Locator(payload: entry.payload)
        pager.counters.stored(locator.tier, change: 1)
        if pager.transition(region, page, from: entry, to: entry.becoming(.stored)) {
            pager.kernel.wake(start: region.address(of: page), length: UInt64(pageSize))
        } else {
            pager.counters.stored(locator.tier, change: -1)
            pager.store.drop(locator)
        }
    }
}
