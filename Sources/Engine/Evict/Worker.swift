import Kernel

/// The pager's background work, one pass at a time: look, choose, evict, tidy up.
/// Runs on one thread of its own, or step by step under simulation.
public final class Worker<Port: KernelPort>: @unchecked Sendable {
    private let pager: Pager<Port>
    private let tracker: Tracker<Port>
    private let evictor: Evictor<Port>
    private var candidates: [Int] = []
    /// Where the last pass stopped choosing, so that a quota does not always fall on
    /// the same pages.
    private var cursor = 0
    private var passTimes = PassTimes()

    public init(pager: Pager<Port>) {
        self.pager = pager
        tracker = Tracker(pager: pager)
        evictor = Evictor(pager: pager)
        candidates.reserveCapacity(hugePageSize / pageSize)
    }

    /// Nanoseconds until the next pass is due.
    public var interval: UInt64 {
        PassInterval.nanoseconds(
            idleAge: pager.settings.idleAge, limited: pager.settings.limit != 0)
    }

    /// One pass: looks at guest memory, then evicts. Returns the pages evicted.
    public func pass() -> Int {
        pager.limitPassed.store(false, ordering: .relaxed)
        passTimes.note(pager.kernel.now())
        pager.passLock.withLock { _ in tracker.pass(idlePasses: lookPasses) }
        let evicted = evict(for: demand)
        pager.store.trim()
        measureMetadata()
        return evicted
    }

    /// Between passes, when the limit was passed: evicts by the ages that the last pass
    /// found. Looking again so soon would call cold whatever was not touched for a
    /// moment, the guest's own kernel too. Returns the pages evicted.
    public func relieve() -> Int {
        pager.limitPassed.store(false, ordering: .relaxed)
        pager.passLock.withLock { _ in tracker.recount() }
        let evicted = evict(for: demand)
        pager.store.trim()
        return evicted
    }

    private func evict(for demand: EvictionDemand) -> Int {
        let plan = EvictionPlan(for: demand)
        guard !plan.evictsNothing, evictor.health.mayTry(at: pager.kernel.now()) else { return 0 }
        return evict(plan)
    }

    /// How long a huge page stays warm before its pages are looked at one by one: as
    /// long as pages must be idle, or a little while when it is the limit that presses.
    private var lookPasses: Int? {
        let idleAge = pager.settings.idleAge
        if idleAge != 0 { return passTimes.passes(idleAge: idleAge) }
        let limit = Int(pager.settings.limit)
        return limit != 0 && pager.cost > limit - limit / 8 ? Self.lookPassesUnderLimit : nil
    }

    private static var lookPassesUnderLimit: Int { 4 }

    private func measureMetadata() {
        var bytes = pager.store.metadataBytes
        pager.passLock.withLock { _ in
            pager.regions.forEach { bytes += $0.table.residentBytes + $0.ages.trim() }
        }
        pager.counters.metadataBytes.store(bytes, ordering: .relaxed)
    }

    private var demand: EvictionDemand {
        let limit = pager.settings.limit
        let idleAge = pager.settings.idleAge
        let evicted = pager.counters.evictedPages
        let costPerPage = evicted > 0 ? pager.store.heldBytes / evicted : pageSize / 2
        return EvictionDemand(
            pagesByAge: tracker.pagesByAge, cost: pager.cost,
            limit: limit == 0 ? nil : Int(limit),
            idlePasses: idleAge == 0 ? nil : passTimes.passes(idleAge: idleAge),
            bytesFreedPerPage: max(pageSize - costPerPage, pageSize / 16))
    }

    private func evict(_ plan: EvictionPlan) -> Int {
        var quota = plan.quotaBelow
        var evicted = 0
        let hugePages = pager.passLock.withLock { _ in allHugePages() }
        guard !hugePages.isEmpty else { return 0 }
        for step in hugePages.indices {
            let (slot, index) = hugePages[(cursor + step) % hugePages.count]
            while pager.controlWaiting.value > 0 { pager.kernel.pause() }
            evicted += pager.passLock.withLock { _ in
                guard let region = pager.regions[slot], index < region.hugePageCount else { return 0 }
                choose(region, region.pages(ofHugePage: index), plan, &quota)
                return evictor.evict(region, candidates[...])
            }
            if quota == 0 && plan.quotaBelow > 0 {
                cursor = (cursor + step + 1) % hugePages.count
                // Everything of `ageMin` and older must still go.
                quota = -1
            }
            guard evictor.health.mayTry(at: pager.kernel.now()) else { break }
        }
        return evicted
    }

    private func allHugePages() -> [(slot: Int, index: Int)] {
        var all: [(slot: Int, index: Int)] = []
        for slot in 0..<RegionList.capacity {
            guard let region = pager.regions[slot] else { continue }
            for index in 0..<region.hugePageCount { all.append((slot, index)) }
        }
        return all
    }

    private func choose(_ region: Region, _ pages: Range<Int>, _ plan: EvictionPlan, _ quota: inout Int) {
        candidates.removeAll(keepingCapacity: true)
        for page in pages {
            let age = Int(region.ages[page])
            if age >= plan.ageMin {
                candidates.append(page)
            } else if quota > 0, age == plan.ageMin - 1, age != Int(AgeMap.absent) {
                candidates.append(page)
                quota -= 1
            }
        }
    }
}
