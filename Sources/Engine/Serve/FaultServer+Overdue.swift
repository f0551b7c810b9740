import Kernel

/// Reads that a device does not end. A server is given up after its time-out, and Linux gives up
/// most disks; where neither happens, nothing ends an access's wait but the device. The host
/// program is told then as of a page that cannot be read, and again when the page is there.
extension FaultServer {
    /// Nanoseconds: what Linux gives a disk, as a rule, before it resets it.
    public static var answerMaxDefault: UInt64 { 30_000_000_000 }

    func noteOverdue(at now: UInt64) {
        pager.serverEpoch.add(1, ordering: .sequentiallyConsistent)
        defer { pager.serverEpoch.add(1, ordering: .sequentiallyConsistent) }
        var tiers = Set<TierIndex>()
        fetches.forEachOverdue(at: now, after: answerMax) { fetch in
            guard !pager.store.givesUp(fetch.tier) else { return }
            tiers.insert(fetch.tier)
            if fetch.want == .part ? whole?.wanted.isAwaited ?? false : fetch.isAwaited {
                noteUnanswered(fetch.region, fetch.region.head(of: fetch.page), fetch.tier)
            }
        }
        // Those that came to a device whose buffers are all taken wait as long.
        for tier in tiers {
            for (region, page) in delayedPages(of: tier) { noteUnanswered(region, page, tier) }
        }
    }

    private func noteUnanswered(_ region: Region, _ page: Int, _ tier: TierIndex) {
        guard !waiting.contains(region, page) else { return }
        pager.noteUnreadable(tier)
        park(region, page, .timedOut, tier: tier)
    }
}

/// Devices that take long. What an access waits for is asked of a mirror's other place. What the
/// worker has asked of a device, a write, a discard, a read of what is to move, nothing but the
/// device can end; the worker, which waits, cannot tell, so this thread does.
extension FaultServer {
    public func noteHungDevices() {
        let now = pager.kernel.now()
        guard now &- hungLookAt >= Self.hungPause else { return }
        hungLookAt = now
        pager.store.reading {
            pager.store.forEachTier { note($0, at: now) }
            // What mirrors were asked for.
            fetches.areUnstarted = !pager.store.startFetches()
        }
    }

    static var hungPause: UInt64 { 500_000_000 }

    private func note(_ tier: Tier<Port>, at now: UInt64) {
        guard let device = tier.device else { return }
        device.askOthers(at: now)
        if device.givesUp { return }
        let since = device.traffic.workerWaitsSince.load(ordering: .relaxed)
        // Taken before `now` may have been taken after it.
        let isHung = since != 0 && now > since && now - since >= answerMax
        guard tier.isHung.exchange(isHung, ordering: .relaxed) != isHung else { return }
        if isHung {
            pager.counters.writeErrors.increment()
            pager.store.noteWriteError(tier.index)
            pager.host.report(.writeFailed(.timedOut, tier.index, region: nil, page: 0))
        } else if !tier.isFailing {
            pager.host.report(.writeRecovered(tier.index))
        }
    }
}
