import Engine
import Kernel
import Testing

/// The trace is of a guest that serves requests by Zipf's law, then reads all that it has in order,
/// then serves again. What it does while serving is played several times over, since to settle and to
/// be judged afterwards takes longer than the recording.
@Suite("The policy, on what a real guest touched")
struct RecordedTraceTests {
    private let trace = RecordedTrace.redis
    private var serving: [RecordedTrace.Tick] { trace.ticks(of: .serving) }
    private static let second: UInt64 = 1_000_000_000
    private static let budget = 0.005
    /// Ticks.
    private static let settling = 240
    private static let judged = 360

    private func serving(ticks count: Int) -> [RecordedTrace.Tick] {
        let serving = serving
        return (0..<count).map { serving[$0 % serving.count] }
    }

    private func settled(_ settings: TraceReplay.Settings = .init(budget: budget)) throws -> TraceReplay {
        let replay = try TraceReplay(trace, settings)
        _ = replay.play(serving(ticks: Self.settling))
        return replay
    }

    /// Share of the time that was waited.
    private func stall(_ outcomes: some Collection<TraceReplay.Outcome>) -> Double {
        let faults = outcomes.reduce(0) { $0 + $1.faults.count }
        return Double(UInt64(faults) * TraceReplay.wait) / Double(outcomes.reduce(0) { $0 + $1.elapsed })
    }

    private func share(_ part: Int, of whole: Int) -> Double { Double(part) / Double(whole) }

    /// How often the sizes turn round, after at least `amplitude` in one direction.
    private func turns(_ sizes: [Int], amplitude: Int) -> Int {
        var (extreme, rises, turns) = (sizes[0], true, 0)
        for size in sizes {
            if rises ? size > extreme : size < extreme {
                extreme = size
            } else if abs(size - extreme) >= amplitude {
                (extreme, rises, turns) = (size, !rises, turns + 1)
            }
        }
        return turns
    }

    @Test("the trace has what the tests are about: hot memory, warm and cold, and changes of it")
    func contents() {
        var ticksTouched = [Int](repeating: 0, count: trace.pageCount)
        for tick in serving { for page in tick.touched { ticksTouched[page] += 1 } }
        let hot = ticksTouched.count { $0 > serving.count / 2 }
        let warm = ticksTouched.count { 2...serving.count / 8 ~= $0 }
        let cold = ticksTouched.count { $0 == 0 }
        print(
            "trace: \(trace.pageCount) pages, \(serving.count) ticks; \(hot) hot, \(warm) warm, \(cold) cold")
        #expect(trace.resident.count > trace.pageCount / 2)
        #expect(serving.count >= 150)
        #expect(hot > 500 && warm > 1000 && cold > 10_000)
        let reading = Set(trace.ticks(of: .readingEverything).flatMap(\.touched))
        #expect(reading.count { ticksTouched[$0] == 0 } > 2000)
    }

    @Test("a damaged trace is refused, not replayed in part")
    func damaged() {
        let begin = Array("frosttrc".utf8) + [1, 0, 8, 0, 0, 0]
        #expect(throws: RecordedTrace.Flaw.noTrace) { try RecordedTrace([1, 2, 3]) }
        #expect(throws: RecordedTrace.Flaw.version(2)) { try RecordedTrace(Array("frosttrc".utf8) + [2, 0]) }
        #expect(throws: RecordedTrace.Flaw.page(9)) { try RecordedTrace(begin + [0, 0, 1, 7 << 1 | 1, 0]) }
        #expect(throws: RecordedTrace.Flaw.ends(after: 17)) { try RecordedTrace(begin + [0, 0, 1]) }
    }

    // MARK: Under a stall budget

    @Test("most of memory leaves, and what is out stays much the same", arguments: [0.002, 0.005, 0.01])
    func converges(budget: Double) throws {
        let replay = try settled(.init(budget: budget))
        let before = replay.out
        let sizes = serving(ticks: Self.judged).map { tick in
            _ = replay.play(tick)
            return replay.outCount
        }
        let common = share(before.intersection(replay.out).count, of: before.union(replay.out).count)
        let turns = turns(sizes, amplitude: trace.pageCount / 20)
        print(
            "budget \(budget): \(sizes.min()!) to \(sizes.max()!) pages out, \(turns) turns, \(common) in common"
        )
        #expect(sizes.min()! > trace.pageCount * 3 / 4)
        #expect(sizes.max()! - sizes.min()! < trace.pageCount / 10)
        #expect(turns <= 3)
        #expect(common > 0.85)
    }

    @Test("waits use some of the budget, and are within it", arguments: [0.002, 0.005, 0.01])
    func usesBudget(budget: Double) throws {
        let outcomes = try settled(.init(budget: budget)).play(serving(ticks: Self.judged))
        let used = stall(outcomes) / budget
        let worst = (0...outcomes.count - 60).map { stall(outcomes[$0..<$0 + 60]) / budget }.max()!
        print("budget \(budget): \(used) of it used, \(worst) in the worst minute")
        #expect(used > 0.25 && used < 0.9)
        #expect(worst < 1.5)
    }

    @Test("few pages leave only to come back within half a minute", arguments: [0.002, 0.005, 0.01])
    func returns(budget: Double) throws {
        let replay = try TraceReplay(trace, .init(budget: budget))
        var leftAt: [Int: UInt64] = [:]
        var (left, returned) = (0, 0)
        for tick in serving(ticks: Self.settling + Self.judged) {
            let outcome = replay.play(tick)
            returned += outcome.faults.count { replay.now - leftAt[$0]! < 30 * Self.second }
            left += outcome.left.count
            for page in outcome.left { leftAt[page] = replay.now }
        }
        print("budget \(budget): \(left) left, \(returned) of them came back at once")
        #expect(share(returned, of: left) < 0.25)
    }

    @Test(
        "no more leaves at once than the controller may take, however cold the rest is",
        arguments: [0.002, 0.01])
    func pace(budget: Double) throws {
        let replay = try TraceReplay(trace, .init(budget: budget))
        for tick in serving(ticks: Self.settling) {
            let outcome = replay.play(tick)
            let resident = Double(replay.resident + outcome.left.count)
            let paceMax = StallController.paceMax * resident * Double(outcome.elapsed) / 1e9
            #expect(Double(outcome.left.count) <= paceMax + StallController.batchMin)
        }
    }

    @Test("looking costs half of the budget at most")
    func passes() throws {
        let outcomes = try settled().play(serving(ticks: Self.judged))
        let found = outcomes.reduce(0) { $0 + ($1.lightFaults ?? 0) }
        // A light fault is a sixth of a wait (`PassCost`).
        let cost =
            Double(found) * Double(TraceReplay.wait) / 6 / Double(outcomes.reduce(0) { $0 + $1.elapsed })
        let passes = outcomes.count { $0.lightFaults != nil }
        print("\(passes) passes, \(cost / Self.budget) of the budget")
        #expect(cost < Self.budget * 0.55)
        #expect(passes >= Self.judged / 60)
    }

    enum Change: CaseIterable {
        /// Everything goes on, on other pages.
        case otherPages
        /// All keys are read, in order.
        case readingEverything
    }

    @Test(
        "a change is noticed within four seconds; nothing leaves until its faults have worn off; then it settles",
        arguments: Change.allCases)
    func change(_ change: Change) throws {
        let replay = try settled()
        let before = replay.outCount
        let ticks =
            switch change {
            case .otherPages: serving(ticks: Self.settling).map(trace.mirrored)
            case .readingEverything:
                trace.ticks(of: .readingEverything) + serving(ticks: Self.settling)
            }
        var begun: Int?
        var noticed: Int?
        var calm: Int?
        var cameBack: [Int] = []
        for (index, tick) in ticks.enumerated() {
            let outcome = replay.play(tick)
            let isOver = replay.controller.isOver(budget: Self.budget)
            #expect(!isOver || outcome.left.isEmpty)
            if stall([outcome]) > 2 * Self.budget { begun = begun ?? index }
            if isOver { noticed = noticed ?? index }
            if noticed != nil, !isOver { calm = calm ?? index }
            if calm == nil { cameBack += outcome.faults }
        }
        print(
            "\(change): begins in tick \(begun ?? -1), noticed in \(noticed ?? -1), over by \(calm ?? -1), \(cameBack.count) faults"
        )
        let reaction = try #require(noticed) - #require(begun)
        #expect(reaction < 4)
        #expect(calm ?? .max < ticks.count - Self.settling + 90)
        #expect(Set(cameBack).count == cameBack.count, "what came back left again meanwhile")
        #expect(replay.outCount > before * 9 / 10)
    }

    // MARK: By age, and by a limit

    @Test(
        "what is touched more often than the idle age stays; what is idle for twice as long is out",
        arguments: [4, 15, 60])
    func idleAge(seconds: UInt64) throws {
        let idleAge = seconds * Self.second
        let replay = try TraceReplay(trace, .init(idleAge: idleAge))
        var (left, tooSoon, forgotten) = (0, 0, 0)
        for tick in trace.ticks {
            let outcome = replay.play(tick)
            left += outcome.left.count
            tooSoon += outcome.left.count { replay.now - replay.touchedAt[$0]! < idleAge }
            guard outcome.lightFaults != nil else { continue }
            forgotten += replay.touchedAt.indices.count { page in
                guard !replay.isOut[page], let touchedAt = replay.touchedAt[page] else { return false }
                return replay.now - touchedAt >= 2 * idleAge
            }
        }
        print("idle age \(seconds) s: \(left) left, \(tooSoon) too soon, \(forgotten) forgotten")
        #expect(left > trace.pageCount / 2)
        #expect(tooSoon == 0)
        #expect(forgotten == 0)
    }

    @Test(
        "under a limit the coldest leave first, as finely as ages are told apart", arguments: [0.2, 0.5, 0.9])
    func limit(share: Double) throws {
        let limit = Int(Double(trace.pageCount) * share)
        let replay = try TraceReplay(trace, .init(limit: limit))
        var (left, wrong) = (0, 0)
        for tick in trace.ticks {
            let outcome = replay.play(tick)
            #expect(replay.resident <= limit)
            guard !outcome.left.isEmpty else { continue }
            left += outcome.left.count
            // Pages last touched within one span look the same; the spans' young ends ascend.
            func age(_ page: Int) -> Int {
                let touchedAt = Int64(replay.touchedAt[page]!)
                return replay.history.spans.firstIndex { touchedAt <= $0.to } ?? replay.history.spans.count
            }
            let coldest = replay.touchedAt.indices.lazy
                .filter { !replay.isOut[$0] && replay.touchedAt[$0] != nil }.map(age).min()!
            wrong += outcome.left.count { age($0) > coldest }
        }
        print("limit \(share): \(left) left, \(wrong) of them before colder ones")
        #expect(left > trace.pageCount - limit - trace.pageCount / 50)
        #expect(wrong == 0)
    }

    // MARK: Prefetch

    @Test("what is read in order comes before it is wanted, most of it; what is not, hardly brings anything")
    func prefetch() throws {
        func play(prefetches: Bool) throws -> (serving: Int, early: Int, used: Int, reading: Int) {
            let replay = try TraceReplay(trace, .init(budget: Self.budget, prefetches: prefetches))
            let serving = replay.play(serving(ticks: Self.settling))
            let used = Int(replay.prefetch.hits)
            let reading = replay.play(trace.ticks(of: .readingEverything))
            return (
                serving.reduce(0) { $0 + $1.faults.count }, serving.reduce(0) { $0 + $1.early.count }, used,
                reading.reduce(0) { $0 + $1.faults.count }
            )
        }
        let (without, with) = (try play(prefetches: false), try play(prefetches: true))
        print("prefetch: \(without) without, \(with) with it")
        #expect(with.reading < without.reading / 2)
        #expect(with.early - with.used < with.serving / 10)
    }
}
