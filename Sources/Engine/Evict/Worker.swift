import Kernel

/// The pager's background work, one pass at a time: look, choose, evict, tidy up.
/// Runs on one thread of its own (`LivePager.work`), or step by step under simulation.
///
/// | call | when | what it does |
/// |---|---|---|
/// | `round` | a pass is due (`interval`), or settings have changed | by mode: `pass`, or `drain` begins |
/// | `pass` | by `round`, in modes `active` and `observe` | looks at memory, evicts, compacts the logs |
/// | `relieve` | the limit was passed; what a rate held up may go on (`retryAt`) | evicts by the ages of the last look |
/// | `adjust` | every second between passes | evicts under the stall budget |
/// | `tidyUp` | at the end of these; at once while `isUnfinished`, at `tidyAt`, every second | moves pages between tiers and out of them, gives back what has come free |
public final class Worker<Port: KernelPort>: @unchecked Sendable {
    let pager: Pager<Port>
    let tracker: Tracker<Port>
    let evictor: Evictor<Port>
    private var candidates: [Int] = []
    /// Where the last pass stopped choosing, so that a quota does not always fall on
    /// the same pages.
    private var cursor = 0
    private var controller = StallController()
    private var passCost = PassCost()
    /// What had been waited for pages, and the time, when the controller last looked.
    private var waitedBefore: (time: UInt64, count: UInt64) = (0, 0)
    private var roundBefore: UInt64 = 0
    /// How far the guest's clock was behind the kernel's then.
    private var behindBefore: UInt64 = 0
    private var modeBefore = Mode.off
    /// When the last round ended.
    private var rounded: (at: UInt64, guestTime: UInt64) = (0, 0)
    /// Accesses to pages that were there which had been answered at the last pass.
    private var answersBefore = PassCost.Answers()
    var poolCompactor: PoolCompactor<Port>
    let demotion: Demotion<Port>
    let mover: PageMover<Port>
    /// Of tiers that are being removed, by tier.
    var drains = [TierDrain](repeating: TierDrain(), count: TierIndex.tiersMax + 1)
    /// Of mode `drain`.
    var bringingBack = BringBack()
    /// Pages are on their way between tiers, or out of them.
    public internal(set) var isUnfinished = false
    /// When it is worth tidying up again, where that is soon, on the kernel's clock.
    public internal(set) var tidyAt: UInt64?
    /// When what a rate limit held up may go on, on the kernel's clock; nil when nothing is.
    public private(set) var retryAt: UInt64?
    /// Told of a tier that is gone, before its device is closed. Set before the worker runs.
    public var onTierRemoved: (Tier<Port>) -> Void = { _ in }
    /// Wakes the fault server, which has been asked for pages. Set before the worker runs.
    public var onRecall: () -> Void = {}

    public init(
        pager: Pager<Port>, compaction: CompactionLimits = CompactionLimits()
    ) throws(Errno) {
        self.pager = pager
        poolCompactor = PoolCompactor(compaction)
        demotion = Demotion(pager: pager)
        tracker = Tracker(pager: pager)
        evictor = Evictor(pager: pager)
        mover = try PageMover(pager: pager, logCompactor: evictor.logCompactor)
        candidates.reserveCapacity(hugePageSize / pageSize)
    }

    /// Nanoseconds until the next pass is due. Passes whose distance is a matter of what they cost
    /// the guest go by its clock. While it stands still there are none, nil, but for a limit's sake:
    /// what a migration brings is found by looking.
    public var untilPass: UInt64? {
        let settings = pager.settings
        let (interval, limit) = (interval, settings.limit)
        func left(_ since: UInt64, of interval: UInt64) -> UInt64 { interval - min(interval, since) }
        let since = pager.kernel.now() &- rounded.at
        if settings.idleAge > 0 || settings.stallBudget == 0 && limit == 0 {
            return left(since, of: interval)
        }
        if pager.guestClock.isRunning {
            return left(pager.guestTime &- rounded.guestTime, of: interval)
        }
        return limit == 0 ? nil : left(since, of: max(interval, Self.intervalStandingStill))
    }

    /// Nanoseconds.
    private static var intervalStandingStill: UInt64 { 4_000_000_000 }

    /// Nanoseconds from pass to pass.
    public var interval: UInt64 {
        let settings = pager.settings
        // Each is read once: another thread may change them in between.
        let budget = settings.stallBudget
        let isLimited = settings.limit != 0
        return PassInterval.nanoseconds(
            idleAge: settings.idleAge, limited: isLimited,
            affordable: budget == 0 && !isLimited
                ? 0
                : passCost.affordableInterval(
                    budget: isLimited ? nil : budget, vcpus: settings.vcpuCount))
    }

    /// What is due, by the mode in force. Returns the pages that left.
    public func round() -> Int {
        defer {
            publishStall()
            rounded = (pager.kernel.now(), pager.guestTime)
        }
        let mode = pager.settings.mode
        defer { modeBefore = mode }
        switch mode {
        case .active, .observe: return pass()
        case .drain: giveUpStore(isNew: modeBefore != .drain)
        // The controller counts no time in which nothing may leave.
        case .off: roundBefore = 0
        }
        return 0
    }

    /// Once begun, it goes on from where it is: pages that cannot be read keep none from coming that
    /// lie behind them.
    private func giveUpStore(isNew: Bool) {
        if isNew { bringingBack = BringBack() }
        dropCopies()
        tidyUp()
        measureMetadata()
    }

    /// One pass: looks at guest memory, then evicts. Returns the pages evicted.
    public func pass() -> Int {
        pager.limitPassed.store(false, ordering: .relaxed)
        pager.holdingPassLock {
            let before = pager.kernel.threadTime()
            tracker.pass(splitting)
            let answers = PassCost.Answers(
                count: pager.counters.remaps.value &+ pager.counters.lifts.value,
                time: pager.counters.timeToAnswers.value)
            passCost.note(
                cpu: pager.kernel.threadTime() &- before, lightFaults: pager.counters.lightFaults.value,
                answers: answers - answersBefore, wait: controller.usualWait)
            answersBefore = answers
            pager.lookedAt.store(pager.kernel.now(), ordering: .relaxed)
        }
        // Huge pages that are to be made whole want what is missing of them.
        if !pager.recalls.isEmpty { onRecall() }
        let evicted = evict(surplus: surplus())
        compact()
        tidyUp()
        measureMetadata()
        return evicted
    }

    /// Keeps free segments in the logs for the evictions to come.
    private func compact() {
        for _ in 0..<LogCompactor.stepsPerPass {
            while pager.controlWaiting.value > 0 { pager.kernel.pause() }
            guard pager.holdingPassLock({ evictor.logCompactor.step(in: pager) }) else { return }
        }
    }

    /// Between passes, when the limit was passed: evicts by the ages that are known.
    /// Returns the pages evicted.
    public func relieve() -> Int {
        pager.limitPassed.store(false, ordering: .relaxed)
        pager.holdingPassLock { tracker.recount() }
        let evicted = evict(surplus: 0)
        tidyUp()
        return evicted
    }

    /// Between passes, every second or so: goes on evicting under the stall budget, when
    /// passes are further apart. Looks again where it evicts. While the guest stands still, and
    /// maybe no pass is due, it keeps the limit. Returns the pages evicted.
    public func adjust() -> Int {
        guard pager.guestClock.isRunning || !isBeyondLimit else { return relieve() }
        defer { tidyUp() }
        guard pager.settings.mode == .active, pager.settings.stallBudget > 0 else { return 0 }
        let surplus = surplus()
        publishStall()
        guard surplus > 0 else { return 0 }
        pager.holdingPassLock { tracker.recount() }
        return evict(surplus: surplus, lookingAgain: true)
    }

    /// Pages to evict because the guest would hardly notice.
    private func surplus() -> Int {
        let now = pager.guestTime
        let behind = pager.guestClock.behind(pager.kernel.now())
        let waited = waited()
        defer { (waitedBefore, roundBefore, behindBefore) = (waited, now, behind) }
        let budget = pager.settings.stallBudget
        let (stall, waits) = (waited.time &- waitedBefore.time, waited.count &- waitedBefore.count)
        // What was waited while the guest stood still, by QEMU itself, is no share of vCPU time.
        guard budget > 0, roundBefore > 0, now > roundBefore, behind == behindBefore else {
            controller.learn(stall: stall, waits: waits)
            return 0
        }
        let reading = StallController.Reading(
            stall: stall, waits: waits, elapsed: now - roundBefore, vcpus: pager.settings.vcpuCount,
            residentPages: pager.counters.residentPages.value)
        return controller.round(reading, budget: budget)
    }

    private func publishStall() {
        let budget = pager.settings.stallBudget
        let share = budget > 0 ? controller.share : 0
        let pace = budget > 0 && pager.settings.mode == .active ? controller.rate(budget: budget) : 0
        pager.counters.stallShare.store(UInt64((share * 1e6).rounded()), ordering: .relaxed)
        pager.counters.evictionPace.store(UInt64(pace.rounded()), ordering: .relaxed)
    }

    /// What accesses have waited for us, in nanoseconds, and how many did: those that the
    /// fault thread served, lifts of protection among them, and those that the worker held up.
    private func waited() -> (time: UInt64, count: UInt64) {
        (
            pager.faultTimes.total.value &+ pager.counters.heldUpTime.value,
            pager.faultTimes.served.value &+ pager.counters.heldUpAccesses.value
        )
    }

    /// `lookingAgain`: some time has gone by since the last pass.
    private func evict(surplus: Int, lookingAgain: Bool = false) -> Int {
        let (plan, era) = pager.holdingPassLock {
            (EvictionPlan(for: demand(surplus: surplus)), tracker.era)
        }
        retryAt = nil
        pager.store.hurry(isBeyondLimit)
        guard pager.settings.mode == .active, !plan.evictsNothing else { return 0 }
        let evicted = storeAccepts ? evict(plan, era, lookingAgain) : 0
        let now = pager.kernel.now()
        let delay = pager.store.putDelay(at: now) ?? 0
        if delay > 0 { retryAt = now + max(delay, Self.retryPauseMin) }
        return evicted
    }

    /// By more than passes as such let it be.
    private var isBeyondLimit: Bool {
        let limit = Int(pager.settings.limit)
        return limit != 0 && pager.cost > limit + limit / 32
    }

    /// How long a huge page stays warm before its pages are looked at one by one: as
    /// long as pages must be idle, or a little while when it is the limit that presses.
    private var splitting: Splitting {
        let idleAge = pager.settings.idleAge
        guard pager.settings.mode == .active else { return .never }
        if idleAge != 0 { return .after(idleAge) }
        let limit = Int(pager.settings.limit)
        let isPressed = limit != 0 && pager.cost > limit - limit / 8
        if pager.settings.stallBudget > 0 {
            return isPressed ? .after(Self.surplusAgeMin) : .sparingBusy(after: Self.surplusAgeMin)
        }
        return isPressed ? .after(Self.lookAgeUnderLimit) : .never
    }

    /// A try costs a look at all ages; the burst of a rate outlasts it. Nanoseconds.
    private static var retryPauseMin: UInt64 { 100_000_000 }
    /// Nanoseconds.
    private static var lookAgeUnderLimit: UInt64 { 2_000_000_000 }
    /// What was in use this short ago is not cold, however idle the rest is. Nanoseconds.
    public static var surplusAgeMin: UInt64 { 4_000_000_000 }

    func dropCopies() {
        pager.holdingPassLock { pager.dropAllCopies() }
    }

    func measureMetadata() {
        pager.holdingPassLock { pager.forgetStays() }
        var bytes = pager.store.metadataBytes
        pager.holdingPassLock {
            pager.regions.forEach {
                bytes += $0.table.residentBytes + $0.ages.trim() + $0.swapped.trim() + $0.merged.trim()
                bytes += $0.looks.bytes
            }
        }
        pager.counters.metadataBytes.store(bytes, ordering: .relaxed)
    }

    private func demand(surplus: Int) -> EvictionDemand {
        let limit = pager.settings.limit
        let idleAge = pager.settings.idleAge
        let budget = pager.settings.stallBudget
        let isStalled = budget > 0 && controller.isOver(budget: budget)
        let evicted = pager.counters.evictedPages
        let costPerPage = evicted > 0 ? pager.store.heldBytes / evicted : pageSize / 2
        let history = tracker.history
        let stamps = history.spans.map(\.stamp) + [history.current]
        return EvictionDemand(
            groups: stamps.map { .init(stamp: $0, pages: tracker.pagesByStamp[Int($0)]) },
            idle: idleAge == 0 || isStalled
                ? StampSet() : history.stamps(idleFor: idleAge, at: tracker.lookedAt),
            cost: pager.cost, limit: limit == 0 ? nil : Int(limit), surplus: surplus,
            surplusFrom: history.stamps(idleFor: Self.surplusAgeMin, at: tracker.lookedAt),
            bytesFreedPerPage: max(pageSize - costPerPage, pageSize / 16),
            costMax: pager.store.memoryRoom)
    }

    private func evict(_ plan: EvictionPlan, _ era: Int, _ lookingAgain: Bool) -> Int {
        let hugePages = pager.holdingPassLock { allHugePages() }
        guard !hugePages.isEmpty else { return 0 }
        var choice = EvictionChoice(plan, copies: pager.counters.keptCopies.value)
        var evicted = sweep(hugePages, &choice, era, lookingAgain)
        if choice.cheapOnly, !choice.isQuotaUsed, mayGoOn {
            choice.cheapOnly = false
            evicted += sweep(hugePages, &choice, era, lookingAgain)
        }
        evictor.wholeBuffer?.release()
        return evicted
    }

    /// Goes once round all memory, from where the quota was used up the last time.
    private func sweep(
        _ hugePages: [(slot: Int, index: Int)], _ choice: inout EvictionChoice, _ era: Int,
        _ lookingAgain: Bool
    ) -> Int {
        var evicted = 0
        let begin = cursor
        for step in hugePages.indices {
            let (slot, index) = hugePages[(begin + step) % hugePages.count]
            // Which may wait for a block that pages of are under way from.
            if pager.controlWaiting.value > 0 { evicted += finishUnderWay() }
            while pager.controlWaiting.value > 0 { pager.kernel.pause() }
            let hadQuota = !choice.isQuotaUsed
            let done = pager.holdingPassLock { () -> Int? in
                guard tracker.era == era else { return nil }
                guard let region = pager.regions[slot], index < region.hugePageCount else { return 0 }
                choose(region, index, &choice, lookingAgain)
                return evictor.evict(
                    region, candidates[...], evenTouched: choice.plan.takes(tracker.history.current),
                    overlapping: true)
            }
            // The plan speaks of stamps that mean something else now.
            guard let done else { break }
            evicted += done
            if hadQuota, choice.isQuotaUsed { cursor = (begin + step + 1) % hugePages.count }
            guard mayGoOn else { break }
        }
        return evicted + finishUnderWay()
    }

    private func finishUnderWay() -> Int { pager.holdingPassLock { evictor.finishUnderWay() } }

    private var mayGoOn: Bool { pager.settings.mode == .active && storeAccepts }

    private var storeAccepts: Bool { pager.store.accepts(at: pager.kernel.now()) }

    func allHugePages() -> [(slot: Int, index: Int)] {
        var all: [(slot: Int, index: Int)] = []
        for slot in 0..<RegionList.capacity {
            guard let region = pager.regions[slot] else { continue }
            for index in 0..<region.hugePageCount { all.append((slot, index)) }
        }
        return all
    }

    /// Lists the pages of a huge page that leave. What the last pass did not look at is
    /// looked at first: where eviction decides, ages are no older than the last pass.
    private func choose(
        _ region: Region, _ hugePage: Int, _ choice: inout EvictionChoice, _ lookingAgain: Bool
    ) {
        candidates.removeAll(keepingCapacity: true)
        let pages = region.pages(ofHugePage: hugePage)
        // Nearly all there are: nothing in them has changed since they were counted.
        guard region.ages.mayHold(choice.leaving, pages) else { return }
        // To store what the host has swapped out, it would have to come back first.
        let age = { region.swapped.contains($0) ? AgeMap.absent : region.ages[$0] }
        guard pages.contains(where: { choice.mayLeave(age($0)) }) else { return }
        let isWatched = region.chunks.isWatched(region.chunk(of: pages.lowerBound))
        func pick(_ choice: inout EvictionChoice) {
            if region.guard.leavesWhole {
                if choice.takesWhole(pages, stamp: age) { candidates.append(contentsOf: pages) }
                return
            }
            choice.pick(
                pages, stamp: age, hasCopy: { isWatched && region.table[$0].namesCopy }, into: &candidates)
        }
        guard lookingAgain || region.visits.isResting(hugePage) else { return pick(&choice) }
        // A look costs the guest a light fault for each page touched since: only for what leaves.
        var trial = choice
        pick(&trial)
        guard !candidates.isEmpty else { return }
        tracker.visit(region, hugePage: hugePage)
        candidates.removeAll(keepingCapacity: true)
        pick(&choice)
    }
}
