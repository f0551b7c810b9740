import CFrostline
import Engine
import Kernel

@c @implementation
public func frostline_pager_stats(
    _ pager: OpaquePointer?, _ stats: UnsafeMutablePointer<frostline_stats>?
) {
    guard let stats = unsafe stats else { return }
    let live = unsafe livePager(pager)
    var filled = unsafe snapshot(live)
    unsafe copyKnownFields(of: &filled, to: stats)
}

/// Copies a struct that begins with its `struct_size` over the caller's: an older caller
/// has a shorter one and gets the fields it knows.
func copyKnownFields<Fields>(of filled: inout Fields, to target: UnsafeMutablePointer<Fields>) {
    let raw = UnsafeMutableRawPointer(target)
    let room = unsafe Int(raw.load(as: UInt32.self))
    unsafe withUnsafeMutableBytes(of: &filled) { bytes in
        let count = min(room, bytes.count)
        unsafe bytes.storeBytes(of: UInt32(count), as: UInt32.self)
        unsafe raw.copyMemory(from: bytes.baseAddress!, byteCount: count)
    }
}

private func snapshot(_ live: LivePager) -> frostline_stats {
    var stats = unsafe frostline_stats()
    let pager = live.pager
    unsafe stats.tracker = cString(live.trackerNames)
    unsafe stats.guard = cString(live.guardNames)
    unsafe stats.store = cString(live.storeName)
    unsafe stats.seal = cString(live.sealName ?? "none")
    unsafe fillPlaces(&stats, pager)
    pager.store.reading { unsafe fillCosts(&stats, pager) }
    unsafe fillCounters(&stats, pager.counters)
    unsafe stats.limit = pager.settings.limit
    unsafe stats.idle_age = pager.settings.idleAge
    unsafe stats.stall_budget = UInt64((pager.settings.stallBudget * 1e6).rounded())
    unsafe stats.mode = UInt64(pager.settings.mode.rawValue)
    unsafe stats.fault_time_total = pager.faultTimes.total.value
    let times = pager.faultTimes
    unsafe stats.fault_time_p50 = times.percentile(0.5)
    unsafe stats.fault_time_p99 = times.percentile(0.99)
    unsafe stats.fault_time_max = times.longest.value
    unsafe withUnsafeMutableBytes(of: &stats.fault_time_counts) { bytes in
        let counts = unsafe bytes.assumingMemoryBound(to: UInt64.self)
        for power in counts.indices { unsafe counts[power] = times.count(belowPower: power) }
    }
    return unsafe stats
}

private func bytes(_ pages: Int) -> UInt64 { UInt64(max(0, pages)) * UInt64(pageSize) }

private func fillPlaces(_ stats: inout frostline_stats, _ pager: Pager<LinuxKernel>) {
    let counters = pager.counters
    unsafe stats.guest_bytes = bytes(counters.attachedPages.value)
    unsafe stats.resident_bytes = bytes(counters.residentPages.value)
    unsafe stats.evicted_bytes = bytes(counters.evictedPages)
    unsafe stats.same_filled_bytes = bytes(counters.pages(in: .sameFilled))
    unsafe stats.staging_bytes = bytes(counters.stagedPages.value)
    unsafe stats.staging_max_bytes = UInt64(pager.staging.length)
    unsafe stats.swapped_bytes = bytes(counters.swappedPages.value)
    unsafe stats.merged_bytes = bytes(counters.mergedPages.value)
    unsafe stats.touched_bytes = bytes(counters.touchedPages.value)
}

private func fillCosts(_ stats: inout frostline_stats, _ pager: Pager<LinuxKernel>) {
    unsafe stats.same_filled_cost = UInt64(pager.store.words.usedBytes)
    for tier in pager.store.tiers {
        let stored = bytes(pager.counters.pages(in: tier.index))
        switch tier.backing {
        case .compressed(let store):
            unsafe stats.compressed_bytes += stored
            unsafe stats.compressed_cost += UInt64(store.pool.heldBytes)
            unsafe stats.compressed_payload += UInt64(store.pool.payloadBytes)
            unsafe stats.raw_bytes += bytes(store.pool.rawPageCount)
            unsafe stats.pool_max += UInt64(store.options.bytesMax ?? 0)
        case .log(let store):
            unsafe stats.file_bytes += stored
            unsafe stats.file_cost += UInt64(store.usedBytes)
            unsafe stats.written_bytes += store.writtenBytes.value
            unsafe stats.rewritten_bytes += store.rewrittenBytes.value
        }
    }
    unsafe stats.metadata_bytes = UInt64(pager.counters.metadataBytes.value)
}

private func fillCounters(_ stats: inout frostline_stats, _ counters: Counters) {
    unsafe stats.faults = counters.faults.value
    unsafe stats.fetches = counters.fetches.value
    unsafe stats.prefetches = counters.prefetches.value
    unsafe stats.prefetch_hits = counters.prefetchHits.value
    unsafe stats.rescues = counters.rescues.value
    unsafe stats.zero_fills = counters.zeroFills.value
    unsafe stats.duplicate_faults = counters.duplicateFaults.value
    unsafe stats.evictions = counters.evictions.value
    unsafe stats.clean_evictions = counters.cleanEvictions.value
    unsafe stats.kept_copy_bytes = bytes(counters.keptCopies.value)
    unsafe stats.busy_pages = counters.busyPages.value
    unsafe stats.returned_pages = counters.returnedPages.value
    unsafe stats.discarded_pages = counters.discardedPages.value
    unsafe stats.write_errors = counters.writeErrors.value
    unsafe stats.read_errors = counters.readErrors.value
    unsafe stats.poisoned_pages = counters.poisonedPages.value
    unsafe stats.waiting_pages = UInt64(max(0, counters.waitingPages.value))
    unsafe stats.passes = counters.passes.value
    unsafe stats.compaction_moves = counters.compactionMoves.value
    unsafe stats.stall_share = counters.stallShare.value
    unsafe stats.eviction_pace = counters.evictionPace.value
    unsafe stats.held_up_accesses = counters.heldUpAccesses.value
    unsafe stats.held_up_time = counters.heldUpTime.value
    unsafe stats.huge_page_splits = counters.hugePageSplits.value
    unsafe stats.huge_page_mends = counters.hugePageMends.value
    unsafe stats.huge_page_departures = counters.hugePageDepartures.value
    unsafe stats.huge_page_returns = counters.hugePageReturns.value
}
