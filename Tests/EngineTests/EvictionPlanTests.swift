import Engine
import Kernel
import Testing

@Suite("An eviction plan")
struct EvictionPlanTests {
    /// Groups of pages, coldest first, with stamps 1, 2, 3 …
    private func demand(
        _ pages: [Int], costPages: Int, limitPages: Int?, idle: [UInt8] = [],
        surplus: Int = 0, surplusFrom: [UInt8] = [], bytesFreedPerPage: Int = pageSize,
        costMax: Int? = nil
    ) -> EvictionDemand {
        EvictionDemand(
            groups: pages.enumerated().map { .init(stamp: UInt8($0 + 1), pages: $1) },
            idle: StampSet(idle), cost: costPages * pageSize,
            limit: limitPages.map { $0 * pageSize }, surplus: surplus,
            surplusFrom: StampSet(surplusFrom), bytesFreedPerPage: bytesFreedPerPage,
            costMax: costMax)
    }

    @Test("takes nothing below the limit, without an idle age")
    func belowLimit() {
        let plan = EvictionPlan(for: demand([100], costPages: 100, limitPages: 100))
        #expect(plan == .nothing)
        #expect(plan.evictsNothing)
    }

    @Test("takes the coldest first, and of the last group only as many as needed")
    func coldestFirst() {
        // 36 pages too many, and one 64th of the limit as headroom.
        let plan = EvictionPlan(for: demand([10, 30, 60], costPages: 100, limitPages: 64))
        #expect(plan == EvictionPlan(whole: StampSet([1]), part: 2, quota: 27))
    }

    @Test("takes pages touched a moment ago when there is nothing colder")
    func allHot() {
        let plan = EvictionPlan(for: demand([0, 0, 100], costPages: 100, limitPages: 64))
        #expect(plan == EvictionPlan(part: 3, quota: 37))
    }

    @Test("takes all, and no more, when all is too little")
    func moreThanThereIs() {
        let plan = EvictionPlan(for: demand([10, 10], costPages: 500, limitPages: 64))
        #expect(plan == EvictionPlan(whole: StampSet([1, 2])))
    }

    @Test("leaves headroom, so that the next fault does not exceed the limit again")
    func headroom() {
        let plan = EvictionPlan(for: demand([6400], costPages: 6401, limitPages: 6400))
        #expect(plan.quota == 1 + 6400 / 64)
        let after = EvictionPlan(
            for: demand([6300], costPages: 6401 - plan.quota, limitPages: 6400))
        #expect(after == .nothing)
    }

    @Test("takes more pages where the store keeps part of each in RAM")
    func compressedPagesCost() {
        let plan = EvictionPlan(
            for: demand([100], costPages: 100, limitPages: 64, bytesFreedPerPage: pageSize / 2))
        #expect(plan.quota == 74)
    }

    @Test("takes no more than that for what goes to a device, or does not fit into a bounded pool")
    func costIsBounded() {
        func quota(_ costMax: Int?) -> Int {
            EvictionPlan(
                for: demand(
                    [1000], costPages: 1000, limitPages: 640, bytesFreedPerPage: pageSize / 2,
                    costMax: costMax)
            ).quota
        }
        let toDevice = quota(0)
        #expect(toDevice >= 360 && toDevice < 500)
        #expect(quota(nil) >= toDevice * 2 - 1)
        #expect(quota(100 * pageSize) == toDevice + 100)
    }

    @Test("takes every page that was idle for long enough, limit or not")
    func idleAge() {
        let plan = EvictionPlan(
            for: demand([20, 30, 50], costPages: 100, limitPages: nil, idle: [1, 2]))
        #expect(plan == EvictionPlan(whole: StampSet([1, 2])))
    }

    @Test("counts what leaves for its age towards the limit")
    func idleAgeAndLimit() {
        let enough = EvictionPlan(
            for: demand([50, 50], costPages: 100, limitPages: 64, idle: [1]))
        #expect(enough == EvictionPlan(whole: StampSet([1])))
        let tooLittle = EvictionPlan(
            for: demand([30, 70], costPages: 100, limitPages: 64, idle: [1]))
        #expect(tooLittle == EvictionPlan(whole: StampSet([1]), part: 2, quota: 7))
    }

    @Test("takes a surplus only from those groups that may give one")
    func surplus() {
        let plan = EvictionPlan(
            for: demand(
                [10, 30, 60], costPages: 100, limitPages: nil, surplus: 25, surplusFrom: [1, 2]))
        #expect(plan == EvictionPlan(whole: StampSet([1]), part: 2, quota: 15))
        let hot = EvictionPlan(
            for: demand([0, 0, 60], costPages: 60, limitPages: nil, surplus: 25, surplusFrom: [1, 2]))
        #expect(hot.evictsNothing)
    }

    @Test("takes for the limit and as surplus the same pages, not both")
    func surplusAndLimit() {
        let plan = EvictionPlan(
            for: demand(
                [100, 100], costPages: 164, limitPages: 128, surplus: 20, surplusFrom: [1]))
        #expect(plan == EvictionPlan(part: 1, quota: 38))
    }
}

@Suite("The pass interval")
struct PassIntervalTests {
    private let second: UInt64 = 1_000_000_000

    @Test("is an eighth of the idle age, within bounds")
    func eighth() {
        #expect(PassInterval.nanoseconds(idleAge: second, limited: false) == second / 4)
        #expect(PassInterval.nanoseconds(idleAge: 80 * second, limited: false) == 10 * second)
        #expect(PassInterval.nanoseconds(idleAge: 600 * second, limited: false) == 30 * second)
    }

    @Test("is half a second at most where a limit must be kept, or up to four for what passes cost")
    func limited() {
        func interval(_ affordable: UInt64) -> UInt64 {
            PassInterval.nanoseconds(idleAge: 0, limited: true, affordable: affordable)
        }
        #expect(interval(0) == second / 2)
        #expect(interval(2 * second) == 2 * second)
        #expect(interval(9 * second) == 4 * second)
        #expect(PassInterval.nanoseconds(idleAge: 80 * second, limited: true) == second / 2)
    }

    @Test("is a second where nothing is evicted and the working set is only observed")
    func observing() {
        #expect(PassInterval.nanoseconds(idleAge: 0, limited: false) == second)
    }

    @Test("follows what passes cost under a stall budget, up to five minutes")
    func affordable() {
        func interval(_ affordable: UInt64) -> UInt64 {
            PassInterval.nanoseconds(idleAge: 0, limited: false, affordable: affordable)
        }
        #expect(interval(0) == second)
        #expect(interval(7 * second) == 7 * second)
        #expect(interval(3600 * second) == 300 * second)
    }

    @Test("is as short as an idle age wants it, whatever passes cost", arguments: [false, true])
    func wanted(limited: Bool) {
        #expect(
            PassInterval.nanoseconds(idleAge: 4 * second, limited: limited, affordable: 9 * second)
                == second / 2)
    }
}

@Suite("What passes cost")
struct PassCostTests {
    private let millisecond: UInt64 = 1_000_000

    private func interval(
        cpu: UInt64, touched: Int, answered: UInt64 = 0, wait: Double = 20_000, budget: Double? = 0.005,
        vcpus: Int = 1
    ) -> UInt64 {
        var cost = PassCost()
        let answers = PassCost.Answers(count: answered)
        for _ in 0..<64 { cost.note(cpu: cpu, lightFaults: touched, answers: answers, wait: wait) }
        return cost.affordableInterval(budget: budget, vcpus: vcpus)
    }

    private func isNear(_ actual: UInt64, _ expected: UInt64) -> Bool {
        actual > expected / 100 * 99 && actual < expected / 100 * 101
    }

    @Test("the worker has a hundredth of a CPU for them")
    func worker() {
        #expect(isNear(interval(cpu: 30 * millisecond, touched: 0), 3000 * millisecond))
    }

    @Test("light faults take half of the budget at most, of all vCPUs together")
    func guest() {
        // 3000 light faults of a sixth of 20 µs.
        #expect(isNear(interval(cpu: 0, touched: 3000), 4000 * millisecond))
        #expect(isNear(interval(cpu: 0, touched: 3000, vcpus: 4), 1000 * millisecond))
        #expect(isNear(interval(cpu: 0, touched: 3000, wait: 100_000), 20_000 * millisecond))
        #expect(isNear(interval(cpu: 0, touched: 3000, budget: 0.02), 1000 * millisecond))
    }

    @Test("accesses that are answered for a look's sake count in full")
    func answered() {
        #expect(isNear(interval(cpu: 0, touched: 0, answered: 500), 4000 * millisecond))
    }

    @Test("a tenth of the worker and of the vCPUs where there is a limit and no budget")
    func underLimit() {
        #expect(isNear(interval(cpu: 30 * millisecond, touched: 0, budget: nil), 300 * millisecond))
        #expect(
            isNear(interval(cpu: 0, touched: 0, answered: 5000, budget: nil, vcpus: 2), 500 * millisecond))
    }

    /// Intervals under a limit, for a guest that needs so many pages at once and gets one of them back
    /// every `latency` nanoseconds after a look.
    private func intervals(pages: Int, latency: UInt64) -> [UInt64] {
        var cost = PassCost()
        return (0..<20).map { _ in
            let interval = PassInterval.nanoseconds(
                idleAge: 0, limited: true, affordable: cost.affordableInterval(budget: nil, vcpus: 1))
            let times = (1...pages).map { UInt64($0) * latency }.prefix { $0 < interval }
            cost.note(
                cpu: 0, lightFaults: 0,
                answers: .init(count: UInt64(times.count), time: times.reduce(0, +)), wait: 20_000)
            return interval
        }
    }

    @Test("under a limit the next look waits until the guest has back what it needs at once")
    func answers() {
        // 100 pages at 20 ms each, as the guest can take with one CPU for itself and the pager.
        let slow = intervals(pages: 100, latency: 20 * millisecond)
        #expect(slow.last! > 2000 * millisecond, "\(slow)")
        #expect(slow.allSatisfy { $0 <= 4000 * millisecond })
        // A working set that is there again after 50 ms.
        let quick = intervals(pages: 1000, latency: 50_000)
        #expect(quick.allSatisfy { $0 == 500 * millisecond }, "\(quick)")
        // A few touches, however late.
        #expect(intervals(pages: 5, latency: 90 * millisecond).last == 500 * millisecond)
    }

    @Test("settles, where a longer interval finds more touched", arguments: [0.0, 0.3, 0.7, 1.0])
    func settles(growth: Double) {
        // Distinct pages touched grow with time, less than in proportion.
        var cost = PassCost()
        var interval: UInt64 = 0
        var intervals: [UInt64] = []
        for _ in 0..<200 {
            let affordable = cost.affordableInterval(budget: 0.005, vcpus: 1)
            interval = PassInterval.nanoseconds(idleAge: 0, limited: false, affordable: affordable)
            intervals.append(interval)
            var touched = 2000.0
            // touched × seconds^growth, without a power function: exact at 0 and 1.
            let seconds = Double(interval) / 1e9
            touched *= 1 + growth * (seconds - 1)
            cost.note(cpu: 0, lightFaults: Int(touched), wait: 20_000)
        }
        let last = intervals.suffix(50)
        #expect(last.max()! - last.min()! <= last.max()! / 20, "\(last)")
        if growth == 1 { #expect(last.last == 300_000_000_000) }
    }

    @Test("one dear pass does not set the pace for long")
    func outlier() {
        var cost = PassCost()
        for _ in 0..<10 { cost.note(cpu: millisecond, lightFaults: 0, wait: 20_000) }
        cost.note(cpu: 300 * millisecond, lightFaults: 0, wait: 20_000)
        #expect(cost.affordableInterval(budget: 0.005, vcpus: 1) > 10_000 * millisecond)
        for _ in 0..<8 { cost.note(cpu: millisecond, lightFaults: 0, wait: 20_000) }
        #expect(cost.affordableInterval(budget: 0.005, vcpus: 1) < 250 * millisecond)
    }
}

@Suite("A choice of pages")
struct EvictionChoiceTests {
    private let plan = EvictionPlan(whole: StampSet([1]), part: 2, quota: 600)
    private static let wholeHugePage = 0..<512

    @Test("does not go over all memory for what is cheap, where there cannot be enough of it")
    func cheap() {
        #expect(!EvictionChoice(EvictionPlan(part: 2, quota: 511), copies: 0).cheapOnly)
        #expect(EvictionChoice(EvictionPlan(part: 2, quota: 512), copies: 0).cheapOnly)
        #expect(EvictionChoice(EvictionPlan(part: 2, quota: 400), copies: 100).cheapOnly)
        #expect(!EvictionChoice(EvictionPlan(part: 2, quota: 400), copies: 99).cheapOnly)
        #expect(!EvictionChoice(EvictionPlan(part: 2, quota: 1), copies: 0).cheapOnly)
    }

    private func pick(
        _ choice: inout EvictionChoice, _ stamps: [UInt8], copies: Set<Int> = []
    ) -> [Int] {
        var picked: [Int] = []
        choice.pick(
            0..<stamps.count, stamp: { stamps[$0] }, hasCopy: { copies.contains($0) }, into: &picked)
        return picked
    }

    @Test("takes cold pages in any case, and of the last age first what is cheap")
    func cheapFirst() {
        var choice = EvictionChoice(plan)
        #expect(choice.cheapOnly)
        #expect(pick(&choice, [1, 2, 3, 2, 0], copies: [3]) == [0, 3])
        #expect(pick(&choice, Array(repeating: 2, count: 512)) == Array(Self.wholeHugePage))
        #expect(choice.quota == 600 - 1 - 512)
        choice.cheapOnly = false
        #expect(pick(&choice, [1, 2, 3, 2, 0]) == [0, 1, 3])
    }

    @Test("does not break into a huge page that leaves only in part")
    func partOfHugePage() {
        var choice = EvictionChoice(EvictionPlan(part: 2, quota: 500))
        #expect(pick(&choice, Array(repeating: 2, count: 512)).isEmpty)
        choice.cheapOnly = false
        #expect(pick(&choice, Array(repeating: 2, count: 512)).count == 500)
        #expect(choice.isQuotaUsed)
    }

    @Test("sees nothing cheap in a huge page of which something stays")
    func mixedHugePage() {
        var choice = EvictionChoice(plan)
        #expect(pick(&choice, Array(repeating: 2, count: 511) + [3]).isEmpty)
    }

    @Test("takes what leaves whole if all of it may leave, and goes beyond the plan for the last one")
    func wholeOnly() {
        var choice = EvictionChoice(EvictionPlan(whole: StampSet([1]), part: 2, quota: 600))
        func takes(_ stamps: [UInt8]) -> Bool { choice.takesWhole(Self.wholeHugePage) { stamps[$0] } }
        #expect(!takes(Array(repeating: 2, count: 511) + [3]))
        #expect(choice.quota == 600)
        #expect(takes(Array(repeating: 1, count: 500) + Array(repeating: 2, count: 12)))
        #expect(choice.quota == 588)
        #expect(takes(Array(repeating: 2, count: 512)))
        #expect(takes(Array(repeating: 2, count: 512)))
        #expect(choice.isQuotaUsed)
        #expect(!takes(Array(repeating: 2, count: 512)))
        #expect(takes(Array(repeating: 1, count: 512)))
    }

    @Test("goes once round when ages alone decide")
    func noQuota() {
        var choice = EvictionChoice(EvictionPlan(whole: StampSet([1])))
        #expect(!choice.cheapOnly && !choice.isQuotaUsed)
        #expect(pick(&choice, [1, 2, 1]) == [0, 2])
    }
}
