import Kernel

/// Pages that come back because they are to leave the store.
extension FaultServer {
    /// Calls `clear` when pages have been asked for since the last time; before `serveUntilQuiet`.
    public func noticeRecalls(_ clear: () -> Void) {
        guard pager.recalls.areNew.load(ordering: .relaxed) else { return }
        pager.recalls.areNew.store(false, ordering: .sequentiallyConsistent)
        clear()
    }

    /// Begins to bring back a few. Between batches of messages, like a prefetch. True when there
    /// was anything to do.
    func advanceRecalls() -> Bool {
        guard !pager.recalls.isEmpty else { return false }
        var worked = false
        for _ in 0..<Self.prefetchesPerTurn {
            guard let recall = pager.recalls.next({ mayRecall(from: $0) }) else { break }
            bringBack(recall.region, recall.page)
            worked = true
        }
        return worked
    }

    /// A tier that does not answer keeps few buffers busy, and an access to a huge page waits for no
    /// more than one that nobody wants.
    private func mayRecall(from tier: TierIndex) -> Bool {
        guard fetches.freeCount > Self.buffersForFaults, whole == nil, wholesWanted.isEmpty else {
            return false
        }
        guard pager.store.isOnDevice(tier) else { return true }
        guard fetches.countUnderWay(of: tier) < Self.recallsMax / max(1, pager.store.deviceCount) else {
            return false
        }
        let now = pager.kernel.now()
        let delay = pager.store.tier(tier)?.readDelay(.background, at: now) ?? 0
        if delay > 0 { recallReadyAt = min(recallReadyAt, now + delay) }
        return delay == 0
    }

    /// Under way, of all devices together: so that some that hang leave buffers for the others.
    private static var recallsMax: Int { FetchTable.capacity / 4 }

    private func bringBack(_ region: Region, _ page: Int) {
        guard pager.regions.find(region.start) === region else { return }
        let entry = region.table[page]
        guard entry.state == .stored else { return }
        if region.guard.leavesWhole { return want(whole: region, page, isAwaited: false) }
        let arriving = entry.becoming(.arriving)
        guard pager.transition(region, page, from: entry, to: arriving) else { return }
        fetch(region, page, arriving, want: .recall)
    }
}
