import Engine
import Kernel
import Testing

@Suite("An eviction plan")
struct EvictionPlanTests {
    private func demand(
        ages: [Int: Int], costPages: Int, limitPages: Int?, idlePasses: Int? = nil,
        bytesFreedPerPage: Int = pageSize
    ) -> EvictionDemand {
        var pagesByAge = [Int](repeating: 0, count: 256)
        for (age, pages) in ages { pagesByAge[age] = pages }
        return EvictionDemand(
            pagesByAge: pagesByAge, cost: costPages * pageSize,
            limit: limitPages.map { $0 * pageSize }, idlePasses: idlePasses,
            bytesFreedPerPage: bytesFreedPerPage)
    }

    @Test("takes nothing below the limit, without an idle age")
    func belowLimit() {
        let plan = EvictionPlan(for: demand(ages: [9: 100], costPages: 100, limitPages: 100))
        #expect(plan == .nothing)
        #expect(plan.evictsNothing)
    }

    @Test("takes the coldest first, and of the last age only as many as needed")
    func coldestFirst() {
        // 36 pages too many, and one 64th of the limit as headroom.
        let plan = EvictionPlan(
            for: demand(ages: [1: 60, 5: 30, 9: 10], costPages: 100, limitPages: 64))
        #expect(plan == EvictionPlan(ageMin: 6, quotaBelow: 27))
    }

    @Test("takes pages touched a moment ago when there is nothing colder")
    func allHot() {
        let plan = EvictionPlan(for: demand(ages: [1: 100], costPages: 100, limitPages: 64))
        #expect(plan == EvictionPlan(ageMin: 2, quotaBelow: 37))
    }

    @Test("takes all, and no more, when all is too little")
    func moreThanThereIs() {
        let plan = EvictionPlan(for: demand(ages: [1: 10, 2: 10], costPages: 500, limitPages: 64))
        #expect(plan == EvictionPlan(ageMin: 1, quotaBelow: 0))
    }

    @Test("leaves headroom, so that the next fault does not exceed the limit again")
    func headroom() {
        let plan = EvictionPlan(for: demand(ages: [3: 6400], costPages: 6401, limitPages: 6400))
        #expect(plan.quotaBelow == 1 + 6400 / 64)
        let after = EvictionPlan(
            for: demand(ages: [3: 6300], costPages: 6401 - plan.quotaBelow, limitPages: 6400))
        #expect(after == .nothing)
    }

    @Test("takes more pages where the store keeps part of each in RAM")
    func compressedPagesCost() {
        let plan = EvictionPlan(
            for: demand(
                ages: [3: 100], costPages: 100, limitPages: 64, bytesFreedPerPage: pageSize / 2))
        #expect(plan.quotaBelow == 74)
    }

    @Test("takes every page that was idle for long enough, limit or not")
    func idleAge() {
        let plan = EvictionPlan(
            for: demand(ages: [1: 50, 4: 30, 5: 20], costPages: 100, limitPages: nil, idlePasses: 4))
        #expect(plan == EvictionPlan(ageMin: 5, quotaBelow: 0))
    }

    @Test("counts what leaves for its age towards the limit")
    func idleAgeAndLimit() {
        let enough = EvictionPlan(
            for: demand(ages: [1: 50, 5: 50], costPages: 100, limitPages: 64, idlePasses: 4))
        #expect(enough == EvictionPlan(ageMin: 5, quotaBelow: 0))
        let tooLittle = EvictionPlan(
            for: demand(ages: [1: 70, 5: 30], costPages: 100, limitPages: 64, idlePasses: 4))
        #expect(tooLittle == EvictionPlan(ageMin: 2, quotaBelow: 7))
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

    @Test("is half a second at most where a limit must be kept")
    func limited() {
        #expect(PassInterval.nanoseconds(idleAge: 0, limited: true) == second / 2)
        #expect(PassInterval.nanoseconds(idleAge: 80 * second, limited: true) == second / 2)
    }

    @Test("is long enough for ages to reach the idle age", arguments: [false, true])
    func agesReach(limited: Bool) {
        let interval = PassInterval.nanoseconds(idleAge: 86_400 * second, limited: limited)
        #expect(interval * UInt64(AgeMap.oldest - 3) >= 86_400 * second)
    }
}

@Suite("Pass times")
struct PassTimesTests {
    @Test("ask for one pass more than the idle age has, since a touch may go unseen")
    func regular() {
        var times = PassTimes()
        for pass in UInt64(1)...20 { times.note(pass * 100) }
        #expect(times.passes(idleAge: 400) == 5)
        #expect(times.passes(idleAge: 401) == 6)
    }

    @Test("ask for more passes when passes come early: nothing leaves younger than asked")
    func early() {
        var times = PassTimes()
        for pass in UInt64(1)...20 { times.note(pass * 100) }
        for pass in UInt64(1)...50 { times.note(2000 + pass) }
        #expect(times.passes(idleAge: 250) == 53)
    }

    @Test("know no answer before enough time, or when ages do not reach that far")
    func unknown() {
        var times = PassTimes()
        #expect(times.passes(idleAge: 1) == nil)
        times.note(0)
        #expect(times.passes(idleAge: 1) == nil)
        for pass in UInt64(1)...1000 { times.note(pass) }
        #expect(times.passes(idleAge: 252) == 253)
        #expect(times.passes(idleAge: 253) == nil)
    }
}
