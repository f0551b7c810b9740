import Engine
import Kernel

/// The policy under a recorded guest, without a kernel: tick by tick the guest touches what the
/// trace says, waits for what is out of that, and then the worker has its turn. It decides by the
/// engine's own ages, history, controller, plan, choice, prefetch and pass interval; what is left of
/// `Worker` and `Tracker` is here: who calls what, when, with what.
///
/// Simpler than there: a pass looks at all memory, pages leave at once for a device that keeps
/// nothing of them in RAM, no page that leaves has a copy there, and within a tick pages are
/// touched in the order of their addresses, since nobody knows in which they were.
final class TraceReplay {
    struct Settings {
        /// Nanoseconds; 0: age evicts nothing.
        var idleAge: UInt64 = 0
        /// The most pages in RAM.
        var limit: Int?
        /// Of the guest's time; 0 for none.
        var budget = 0.0
        var prefetches = false
    }

    struct Outcome {
        /// Nanoseconds.
        var elapsed: UInt64
        /// Pages that were waited for.
        var faults: [Int] = []
        /// Pages that came before they were wanted.
        var early: [Int] = []
        /// What was found touched by a pass, if there was one.
        var lightFaults: Int?
        /// Pages that left, in the order in which they did.
        var left: [Int] = []
    }

    /// What an access to a page that is out waits, in nanoseconds: a storage device's read, and some.
    static let wait: UInt64 = 100_000

    let settings: Settings
    let pageCount: Int
    private(set) var now: UInt64 = 0
    private(set) var history = IdleHistory(at: 0)
    private(set) var controller = StallController()
    private(set) var prefetch = Prefetch()
    /// By page.
    private(set) var isOut: [Bool]
    /// By page, the truth: the end of the last tick that touched it; nil where it was never in RAM.
    private(set) var touchedAt: [UInt64?]
    private(set) var resident = 0
    private(set) var interval: UInt64 = 0

    private let ages: AgeMap
    /// Touched since they were last looked at.
    private var accessed: [Bool]
    private var pagesByStamp = [Int](repeating: 0, count: AgeMap.stampCount)
    private var passCost = PassCost()
    private var passedAt: UInt64 = 0
    private var cursor = 0
    private let block = Block()

    private final class Block {}

    init(_ trace: RecordedTrace, _ settings: Settings) throws(Errno) {
        self.settings = settings
        pageCount = trace.pageCount
        ages = try AgeMap(pageCount: pageCount)
        isOut = Array(repeating: false, count: pageCount)
        accessed = Array(repeating: false, count: pageCount)
        touchedAt = Array(repeating: nil, count: pageCount)
        for page in trace.resident {
            accessed[page] = true
            touchedAt[page] = 0
        }
        resident = trace.resident.count
        _ = pass()
    }

    var out: Set<Int> { Set(isOut.indices.filter { isOut[$0] }) }
    var outCount: Int { isOut.count { $0 } }

    func play(_ ticks: some Sequence<RecordedTrace.Tick>) -> [Outcome] { ticks.map { play($0) } }

    func play(_ tick: RecordedTrace.Tick) -> Outcome {
        var outcome = Outcome(elapsed: tick.nanoseconds)
        now += tick.nanoseconds
        for page in tick.touched { access(page, &outcome) }
        let surplus = surplus(faults: outcome.faults.count, elapsed: tick.nanoseconds)
        if now - passedAt >= interval {
            outcome.lightFaults = pass()
            outcome.left = evict(surplus, lookingAgain: false)
        } else if surplus > 0 || settings.limit.map({ resident > $0 }) ?? false {
            count(nil)
            outcome.left = evict(surplus, lookingAgain: surplus > 0)
        }
        return outcome
    }

    // MARK: The guest, and the fault server

    private func access(_ page: Int, _ outcome: inout Outcome) {
        defer {
            accessed[page] = true
            touchedAt[page] = now
        }
        guard isOut[page] else {
            if touchedAt[page] == nil { resident += 1 }
            return
        }
        outcome.faults.append(page)
        comeBack(page)
        guard settings.prefetches else { return }
        let region = ObjectIdentifier(block)
        for next in prefetch.fault(region, page).clamped(to: 0..<pageCount) where isOut[next] {
            prefetch.brings(region, next)
            comeBack(next)
            outcome.early.append(next)
        }
    }

    private func comeBack(_ page: Int) {
        isOut[page] = false
        resident += 1
        ages[page] = history.current
    }

    // MARK: The tracker

    /// Returns how many of the pages were found touched.
    @discardableResult
    private func look(_ pages: Range<Int>) -> Int {
        var returned = [Int](repeating: 0, count: AgeMap.stampCount)
        var found = 0
        for page in pages where accessed[page] {
            ages.stamp(page..<page + 1, history.current, returned: &returned)
            accessed[page] = false
            found += 1
        }
        return found
    }

    private func pass() -> Int {
        let found = look(0..<pageCount)
        passedAt = now
        count(history.endSpan(at: now, idleAge: settings.idleAge))
        passCost.note(cpu: 0, lightFaults: found, wait: controller.usualWait)
        let isLimited = settings.limit != nil
        interval = PassInterval.nanoseconds(
            idleAge: settings.idleAge, limited: isLimited,
            affordable: settings.budget == 0 && !isLimited
                ? 0 : passCost.affordableInterval(budget: isLimited ? nil : settings.budget, vcpus: 1))
        return found
    }

    private func count(_ relabel: Relabel?) {
        for stamp in pagesByStamp.indices { pagesByStamp[stamp] = 0 }
        ages.sweep(relabel, into: &pagesByStamp)
    }

    // MARK: The worker

    private func surplus(faults: Int, elapsed: UInt64) -> Int {
        guard settings.budget > 0 else { return 0 }
        let reading = StallController.Reading(
            stall: UInt64(faults) * Self.wait, waits: UInt64(faults), elapsed: elapsed, vcpus: 1,
            residentPages: resident)
        return controller.round(reading, budget: settings.budget)
    }

    private func demand(_ surplus: Int) -> EvictionDemand {
        let isStalled = settings.budget > 0 && controller.isOver(budget: settings.budget)
        let stamps = history.spans.map(\.stamp) + [history.current]
        return EvictionDemand(
            groups: stamps.map { .init(stamp: $0, pages: pagesByStamp[Int($0)]) },
            idle: settings.idleAge == 0 || isStalled
                ? StampSet() : history.stamps(idleFor: settings.idleAge, at: passedAt),
            cost: resident * pageSize, limit: settings.limit.map { $0 * pageSize }, surplus: surplus,
            surplusFrom: history.stamps(idleFor: Worker<LinuxKernel>.surplusAgeMin, at: passedAt),
            bytesFreedPerPage: pageSize, costMax: 0)
    }

    private func evict(_ surplus: Int, lookingAgain: Bool) -> [Int] {
        let plan = EvictionPlan(for: demand(surplus))
        guard !plan.evictsNothing else { return [] }
        var left: [Int] = []
        var choice = EvictionChoice(plan, copies: 0)
        sweep(&choice, lookingAgain, &left)
        if choice.cheapOnly, !choice.isQuotaUsed {
            choice.cheapOnly = false
            sweep(&choice, lookingAgain, &left)
        }
        return left
    }

    /// Goes once round all memory, from where the quota was used up the last time.
    private func sweep(_ choice: inout EvictionChoice, _ lookingAgain: Bool, _ left: inout [Int]) {
        let pagesPerHugePage = hugePageSize / pageSize
        let hugePages = pageCount / pagesPerHugePage
        let begin = cursor
        for step in 0..<hugePages {
            let index = (begin + step) % hugePages
            let hadQuota = !choice.isQuotaUsed
            for page in choose(
                index * pagesPerHugePage..<(index + 1) * pagesPerHugePage, &choice, lookingAgain)
            where !accessed[page] || choice.plan.takes(history.current) {
                ages.forget(page..<page + 1)
                isOut[page] = true
                resident -= 1
                left.append(page)
            }
            if hadQuota, choice.isQuotaUsed { cursor = (begin + step + 1) % hugePages }
        }
    }

    private func choose(_ pages: Range<Int>, _ choice: inout EvictionChoice, _ lookingAgain: Bool) -> [Int] {
        func pick(_ choice: inout EvictionChoice) -> [Int] {
            var picked: [Int] = []
            choice.pick(pages, stamp: { ages[$0] }, hasCopy: { _ in false }, into: &picked)
            return picked
        }
        guard ages.mayHold(choice.leaving, pages) else { return [] }
        guard lookingAgain else { return pick(&choice) }
        var trial = choice
        if pick(&trial).isEmpty { return [] }
        look(pages)
        return pick(&choice)
    }
}
