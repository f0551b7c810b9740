import Engine
import Kernel
import SeededRandom
import Testing

@Suite("Ages")
struct AgeMapTests {
    /// Noncopyable values cannot be captured by test macros.
    private final class Ages {
        let map: AgeMap
        init(_ pageCount: Int) throws(Errno) { map = try AgeMap(pageCount: pageCount) }
        var all: [UInt8] { (0..<map.pageCount).map { map[$0] } }
        func mayHold(_ stamp: UInt8, _ pages: Range<Int>) -> Bool { map.mayHold(StampSet([stamp]), pages) }
    }

    @Test("are what was last said of each page, in whatever ranges", arguments: UInt64(1)...20)
    func ranges(seed: UInt64) throws {
        var random = SplitMix(seed: seed)
        let ages = try Ages(1 + random.below(200))
        var expected = [UInt8](repeating: AgeMap.absent, count: ages.map.pageCount)
        for _ in 0..<200 {
            let first = random.below(expected.count)
            let range = first..<first + 1 + random.below(expected.count - first)
            let stamp = UInt8(1 + random.below(14))
            switch random.below(6) {
            case 0:
                var returned = [Int](repeating: 0, count: AgeMap.stampCount)
                ages.map.stamp(range, stamp, returned: &returned)
                for before in 0..<AgeMap.stampCount where before != Int(stamp) {
                    #expect(returned[before] == expected[range].count { Int($0) == before })
                }
                for page in range { expected[page] = stamp }
            case 1:
                ages.map.stampUnknown(range, stamp)
                for page in range where expected[page] == AgeMap.absent { expected[page] = stamp }
            case 2:
                ages.map.forget(range)
                for page in range { expected[page] = AgeMap.absent }
            case 3:
                ages.map.assign(range, stamp)
                for page in range where expected[page] != AgeMap.absent && expected[page] != AgeMap.kept {
                    expected[page] = stamp
                }
            case 4:
                ages.map.set(range, stamp)
                for page in range { expected[page] = stamp }
            default:
                ages.map[first] = AgeMap.kept
                expected[first] = AgeMap.kept
            }
            #expect(ages.all == expected, "seed \(seed)")
            #expect(ages.map.isFull(range) == !expected[range].contains(AgeMap.absent))
            let runEnd = expected[first...].firstIndex { $0 != expected[first] } ?? expected.count
            #expect(ages.map.endOfRun(from: first) == runEnd)
        }
    }

    @Test("are counted by stamp, and two stamps can become one", arguments: UInt64(1)...10)
    func sweep(seed: UInt64) throws {
        var random = SplitMix(seed: seed)
        let ages = try Ages(1000)
        var returned = [Int](repeating: 0, count: AgeMap.stampCount)
        for _ in 0..<60 {
            let first = random.below(1000)
            ages.map.stamp(
                first..<min(1000, first + random.below(100)), UInt8(1 + random.below(14)), returned: &returned
            )
        }
        let expected = ages.all.map { $0 == 3 ? 9 : $0 }
        var counts = [Int](repeating: 0, count: AgeMap.stampCount)
        ages.map.sweep(Relabel(from: 3, into: 9), into: &counts)
        #expect(ages.all == expected)
        for stamp in 1..<AgeMap.stampCount {
            #expect(counts[stamp] == expected.count { Int($0) == stamp })
        }
    }

    @Test("take half a byte a page, and none where all pages are absent")
    func memory() throws {
        let ages = try Ages(4 * 8192)
        #expect(ages.map.residentBytes == 0)
        var returned = [Int](repeating: 0, count: AgeMap.stampCount)
        ages.map.stamp(0..<4 * 8192, 5, returned: &returned)
        #expect(returned[Int(AgeMap.absent)] == 4 * 8192)
        // Notes of what changed take a page for 8 GiB, and are kept.
        #expect(ages.map.trim() == 5 * pageSize)
        ages.map.forget(8192..<3 * 8192)
        #expect(ages.map.trim() == 3 * pageSize)
        #expect(ages.map[8192] == AgeMap.absent && ages.map[0] == 5)
        // So do the counts, for 512 MiB.
        var counts = [Int](repeating: 0, count: AgeMap.stampCount)
        ages.map.sweep(nil, into: &counts)
        #expect(counts[5] == 2 * 8192)
        #expect(ages.map.trim() == 4 * pageSize)
        ages.map.forget(0..<4 * 8192)
        ages.map.sweep(nil, into: &counts)
        #expect(ages.map.trim() == pageSize)
    }

    @Test("are counted right whatever changed since the last count", arguments: UInt64(1)...20)
    func counts(seed: UInt64) throws {
        var random = SplitMix(seed: seed)
        let ages = try Ages(1 + random.below(5000))
        let others = try PageSet(pageCount: ages.map.pageCount)
        var expected = [UInt8](repeating: AgeMap.absent, count: ages.map.pageCount)
        for _ in 0..<100 {
            for _ in 0..<random.below(4) {
                let first = random.below(expected.count)
                let range = first..<min(expected.count, first + 1 + random.below(700))
                let stamp = UInt8(random.below(AgeMap.stampCount))
                switch random.below(4) {
                case 0: ages.map.set(range, stamp)
                case 1: others.insert(range)
                case 2: others.remove(range)
                default: ages.map[first] = stamp
                }
            }
            expected = ages.all
            var relabel: Relabel?
            if random.below(2) == 0 {
                let from = UInt8(1 + random.below(14))
                relabel = Relabel(from: from, into: from % 14 + 1)
                for page in expected.indices where expected[page] == from { expected[page] = from % 14 + 1 }
            }
            var counts = [Int](repeating: 0, count: AgeMap.stampCount)
            ages.map.sweep(relabel, except: others, into: &counts)
            #expect(ages.all == expected, "seed \(seed)")
            for stamp in 1..<AgeMap.stampCount {
                let wanted = expected.indices.count { Int(expected[$0]) == stamp && !others.contains($0) }
                #expect(counts[stamp] == wanted, "seed \(seed), stamp \(stamp)")
            }
            let first = random.below(expected.count)
            let range = first..<min(expected.count, first + 512)
            let stamp = UInt8(1 + random.below(AgeMap.stampCount - 1))
            if expected[range].contains(stamp) { #expect(ages.mayHold(stamp, range)) }
            ages.map[first] = stamp
            #expect(ages.mayHold(stamp, range))
        }
    }

    @Test("of parts that hold nothing wanted are not looked at")
    func holdsNothing() throws {
        let ages = try Ages(4 * 512)
        ages.map.set(0..<512, 3)
        ages.map.set(512..<4 * 512, 7)
        var counts = [Int](repeating: 0, count: AgeMap.stampCount)
        ages.map.sweep(nil, into: &counts)
        #expect(ages.mayHold(3, 0..<512))
        #expect(!ages.mayHold(3, 512..<1024))
        // A range may lie across two parts.
        #expect(ages.mayHold(3, 300..<812))
        ages.map.sweep(Relabel(from: 7, into: 3), into: &counts)
        #expect(ages.mayHold(3, 512..<1024))
        #expect(!ages.mayHold(7, 512..<1024))
    }
}

@Suite("The idle history")
struct IdleHistoryTests {
    private static let second: UInt64 = 1_000_000_000

    /// Pages touched at known times, tracked as the tracker does it.
    private struct Bench {
        var history: IdleHistory
        var stamps: [UInt8]
        var touched: [UInt64]
        var now: UInt64 = 0
        let idleAge: UInt64

        init(pages: Int, idleAge: UInt64) {
            history = IdleHistory(at: 0)
            stamps = Array(repeating: history.current, count: pages)
            touched = Array(repeating: 0, count: pages)
            self.idleAge = idleAge
        }

        mutating func touch(_ page: Int) { touched[page] = now }

        /// A pass: pages touched since `last` get the current stamp.
        mutating func pass(since last: UInt64) {
            for page in stamps.indices where touched[page] > last { stamps[page] = history.current }
            guard let relabel = history.endSpan(at: now, idleAge: idleAge) else { return }
            for page in stamps.indices where stamps[page] == relabel.from { stamps[page] = relabel.into }
        }

        var counts: [Int] {
            stamps.reduce(into: [Int](repeating: 0, count: AgeMap.stampCount)) { $0[Int($1)] += 1 }
        }
    }

    private func run(seed: UInt64, passes: Int, interval: UInt64, idleAge: UInt64) -> Bench {
        var random = SplitMix(seed: seed)
        var bench = Bench(pages: 2000, idleAge: idleAge)
        for _ in 0..<passes {
            let last = bench.now
            // Ever fewer pages are still in use: ages of all lengths.
            for _ in 0..<20 {
                bench.now += interval / 20
                bench.touch(random.below(1 + random.below(2000)))
            }
            bench.pass(since: last)
        }
        return bench
    }

    @Test("never calls a page idle for longer than it was", arguments: UInt64(1)...20)
    func neverOverstated(seed: UInt64) {
        var random = SplitMix(seed: seed &* 77)
        let idleAge = UInt64(random.below(60)) * Self.second
        let bench = run(seed: seed, passes: 50 + random.below(4000), interval: Self.second, idleAge: idleAge)
        for power in 0..<13 {
            let age = Self.second << UInt64(power)
            let idle = bench.history.stamps(idleFor: age, at: bench.now)
            for page in bench.stamps.indices where idle.contains(bench.stamps[page]) {
                #expect(bench.now - bench.touched[page] >= age, "seed \(seed), page \(page)")
            }
        }
    }

    @Test("knows pages touched since a time, and none other", arguments: UInt64(1)...10)
    func touchedSince(seed: UInt64) {
        let bench = run(seed: seed, passes: 300, interval: Self.second, idleAge: 0)
        for age in [1, 2, 5, 20, 100] {
            let time = bench.now - UInt64(age) * Self.second
            let recent = bench.history.stamps(touchedSince: time)
            for page in bench.stamps.indices where recent.contains(bench.stamps[page]) {
                #expect(bench.touched[page] >= time, "seed \(seed), page \(page)")
            }
        }
    }

    @Test("is exact to a pass up to the idle age, where eviction decides", arguments: [4, 30, 300])
    func fineBelowIdleAge(seconds: Int) {
        let idleAge = UInt64(seconds) * Self.second
        let interval = PassInterval.nanoseconds(idleAge: idleAge, limited: false)
        let bench = run(seed: 1, passes: 500, interval: interval, idleAge: idleAge)
        let young = bench.history.spans.filter { bench.now - UInt64($0.to) < idleAge - interval }
        for span in young { #expect(span.to - span.from <= 2 * Int64(interval)) }
    }

    @Test("spans an hour, each age known to a factor of five", arguments: [0, 8, 60])
    func reachesAnHour(idleSeconds: UInt64) {
        var history = IdleHistory(at: 0)
        let interval = PassInterval.nanoseconds(idleAge: idleSeconds * Self.second, limited: false)
        var now: UInt64 = 0
        while now < 3600 * Self.second {
            now += interval
            _ = history.endSpan(at: now, idleAge: idleSeconds * Self.second)
            #expect(history.spans.first?.from == 0)
            for span in history.spans.dropFirst() {
                let youngest = now - UInt64(span.to) + interval
                #expect(now - UInt64(span.from) <= 5 * youngest, "\(span) at \(now)")
            }
        }
    }

    @Test("tells how often pages return that had been idle for long")
    func returns() {
        var bench = Bench(pages: 1000, idleAge: 0)
        let workingSet = WorkingSet()
        // Each second ten pages are touched, each of which has been idle for 100 s.
        for step in 0..<600 {
            let last = bench.now
            bench.now += Self.second
            var returned = [Int](repeating: 0, count: AgeMap.stampCount)
            for page in step % 100 * 10..<step % 100 * 10 + 10 {
                returned[Int(bench.stamps[page])] += 1
                bench.touch(page)
            }
            workingSet.note(returned: returned, bench.history, at: bench.now)
            bench.pass(since: last)
        }
        for power in 0...5 { #expect(abs(workingSet.returnsPerSecond(power: power) - 10) < 1) }
        for power in 8..<13 { #expect(workingSet.returnsPerSecond(power: power) < 0.1) }
    }

    @Test("counts pages by age as they are, to a quarter", arguments: UInt64(1)...5)
    func histogram(seed: UInt64) {
        let bench = run(seed: seed, passes: 2000, interval: Self.second, idleAge: 0)
        for power in 1..<10 {
            let age = Self.second << UInt64(power)
            let truth = bench.touched.count { bench.now - $0 >= age }
            let told = bench.history.pages(idleFor: age, at: bench.now, counts: bench.counts)
            #expect(abs(told - truth) <= truth / 4 + 40, "\(told) of \(truth) at \(age), seed \(seed)")
        }
    }
}
