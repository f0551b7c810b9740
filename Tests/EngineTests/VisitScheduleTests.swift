import Engine
import Kernel
import SeededRandom
import Testing

@Suite("The schedule of visits")
struct VisitScheduleTests {
    private static let pages = 512

    /// A block whose pages are touched by hand, and passes as the tracker makes them.
    private final class Bench {
        let schedule: VisitSchedule
        /// Pages touched since the last visit, and the pass of the first such touch.
        var touched: [Int]
        var since: [Int]
        var lastVisit: [Int]
        var pass = 0
        /// Visits of the last pass.
        var visits = 0
        /// Pages times passes that touches went unnoticed beyond the pass that they precede.
        var latePasses = 0

        init(_ count: Int) throws {
            schedule = try VisitSchedule(count: count)
            touched = Array(repeating: 0, count: count)
            since = Array(repeating: 0, count: count)
            lastVisit = Array(repeating: 0, count: count)
        }

        func touch(_ index: Int, pages: Int) {
            if touched[index] == 0 { since[index] = pass + 1 }
            touched[index] = min(touched[index] + pages, VisitScheduleTests.pages)
        }

        private func visit(_ index: Int) {
            visits += 1
            lastVisit[index] = pass
            guard touched[index] > 0 else { return schedule.wasQuiet(index) }
            latePasses += touched[index] * (pass - since[index])
            schedule.wasTouched(index, pages: touched[index])
            touched[index] = 0
        }

        func makePass() {
            pass += 1
            visits = 0
            schedule.beginPass()
            for index in touched.indices where schedule.isDue(index) { visit(index) }
            guard schedule.endPass(residentPages: touched.count * VisitScheduleTests.pages) else { return }
            for index in touched.indices where schedule.isResting(index) { visit(index) }
        }

        /// Passes without a touch until all rest as long as may be, and once around.
        func settle() {
            for _ in 0..<max(400, 4 * Int(schedule.limit.longest)) { makePass() }
        }

        /// Pages times passes found late, as a share of all pages, on average of a pass.
        func lateShare(passes: Int, touches: (Int) -> Void) -> Double {
            latePasses = 0
            for step in 0..<passes {
                touches(step)
                makePass()
            }
            return Double(latePasses) / Double(passes * touched.count * VisitScheduleTests.pages)
        }
    }

    @Test("leaves nothing out for longer than the longest rest, whatever happens", arguments: UInt64(1)...20)
    func noStarvation(seed: UInt64) throws {
        var random = SplitMix(seed: seed)
        let bench = try Bench([1, 80, 1500, 2500][random.below(4)])
        let longest = Int(bench.schedule.limit.longest)
        var share = 0
        for _ in 0..<500 {
            if random.below(40) == 0 { share = random.below(4) * random.below(bench.touched.count + 1) / 8 }
            for _ in 0..<share {
                bench.touch(random.below(bench.touched.count), pages: 1 + random.below(Self.pages))
            }
            if random.below(3) == 0 { bench.schedule.wake(random.below(bench.touched.count)) }
            bench.makePass()
            let oldest = bench.lastVisit.min()!
            #expect(bench.pass - oldest <= longest + 1, "seed \(seed)")
        }
    }

    @Test("visits what was touched, or woken, at the next pass")
    func prompt() throws {
        let bench = try Bench(100)
        bench.settle()
        bench.schedule.wake(42)
        bench.makePass()
        #expect(bench.lastVisit[42] == bench.pass)
        bench.schedule.wasTouched(43, pages: 1)
        for _ in 0..<20 {
            bench.touch(43, pages: 1)
            bench.makePass()
            #expect(bench.lastVisit[43] == bench.pass)
        }
    }

    @Test("looks at an equal share of quiet memory in each pass", arguments: [64, 1024, 4096, 16_384])
    func quietCost(count: Int) throws {
        let bench = try Bench(count)
        for index in 0..<count { bench.touch(index, pages: Self.pages) }
        bench.settle()
        let distance = Int(bench.schedule.limit.longest) + 1
        for _ in 0..<200 {
            bench.makePass()
            #expect(bench.visits == count / distance)
        }
        // What is looked at does not grow with the block.
        #expect(bench.visits <= 16)
    }

    @Test(
        "notices within two passes that a program went on to something else",
        arguments: [80, 1500, 4000], [2, 8, 50])
    func phaseChange(count: Int, percent: Int) throws {
        let bench = try Bench(count)
        bench.settle()
        // So many of each huge page's pages, and then others: so many huge pages whole.
        for index in 0..<count { bench.touch(index, pages: Self.pages * percent / 100) }
        for _ in 0..<2 { bench.makePass() }
        #expect(bench.touched.allSatisfy { $0 == 0 })
        bench.settle()
        let few = (0..<count).filter { $0 &* 2_654_435_761 >> 7 % 100 < percent }
        for index in few { bench.touch(index, pages: Self.pages) }
        for _ in 0..<(percent < 8 ? 16 : 3) { bench.makePass() }
        #expect(bench.touched.allSatisfy { $0 == 0 }, "\(few.count) of \(count)")
    }

    @Test("follows scans of any length and order", arguments: [3, 12, 40, 150], [false, true])
    func scan(passes: Int, isScattered: Bool) throws {
        let count = 480
        let bench = try Bench(count)
        bench.settle()
        func touches(step: Int) {
            let front = step % passes * count / passes..<(step % passes + 1) * count / passes
            for place in front { bench.touch(isScattered ? place * 77 % count : place, pages: Self.pages) }
        }
        let start = bench.lateShare(passes: 40, touches: touches)
        let later = bench.lateShare(passes: 600, touches: touches)
        print(
            "a scan in \(passes) passes: late \(start), then \(later), rests \(bench.schedule.limit.passes)")
        #expect(start < 0.02 && later < 0.005)
    }

    @Test("follows phases of any length", arguments: [480, 4096], [10, 30, 50, 100, 200, 300])
    func phases(count: Int, passes: Int) throws {
        let bench = try Bench(count)
        bench.settle()
        // An eighth of the huge pages at a time, all over the block.
        let places = (0..<count).map { $0 * 77 % count }
        var visits = 0
        let late = bench.lateShare(passes: 2400) { step in
            let first = step / passes % 8 * count / 8
            for place in places[first..<first + count / 8] { bench.touch(place, pages: Self.pages) }
            visits += bench.visits
        }
        let share = Double(visits) / Double(2400 * count)
        print("phases of \(passes) passes in \(count): late \(late), \(share) of the block in a pass")
        #expect(late < 0.005)
    }

    @Test("spends little on places in which hardly anything is touched")
    func trickle() throws {
        var random = SplitMix(seed: 7)
        let bench = try Bench(1024)
        bench.settle()
        var visits = 0
        let late = bench.lateShare(passes: 400) { _ in
            for _ in 0..<8 { bench.touch(random.below(1024), pages: 1) }
            visits += bench.visits
        }
        print("a trickle: late \(late), \(visits / 400) visits a pass")
        #expect(late < 0.005 && visits / 400 < 1024 / 8)
    }

    @Test("rests as before when the scan is over")
    func calmAgain() throws {
        let bench = try Bench(1024)
        bench.settle()
        for step in 0..<100 {
            for index in 0..<32 { bench.touch((step * 32 + index) % 1024, pages: Self.pages) }
            bench.makePass()
        }
        #expect(bench.schedule.limit.passes < bench.schedule.limit.longest)
        bench.settle()
        #expect(bench.schedule.limit.passes == bench.schedule.limit.longest)
    }
}

@Suite("How many huge pages are split in a pass")
struct SplitAllowanceTests {
    private static let second: UInt64 = 1_000_000_000

    private func split(of touched: Int, elapsed: UInt64) -> Int {
        var splits = SplitAllowance()
        for _ in 0..<touched { splits.sawTouched() }
        splits.beginPass(elapsed: elapsed)
        return (0..<touched).count { _ in splits.take() }
    }

    @Test("a few, however small the guest")
    func few() { #expect(split(of: 10, elapsed: Self.second) == 4) }

    @Test("one of 32 in a pass, also where passes are frequent")
    func share() {
        #expect(split(of: 3200, elapsed: Self.second / 4) == 100)
        #expect(split(of: 3200, elapsed: Self.second) == 100)
    }

    @Test("as many in a minute where passes are rare, up to a quarter in each")
    func rare() {
        #expect(split(of: 3200, elapsed: 4 * Self.second) == 400)
        #expect(split(of: 3200, elapsed: 30 * Self.second) == 800)
    }
}
