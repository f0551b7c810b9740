import Engine
import Kernel
import Synchronization
import Testing

@Suite("Fault times")
struct FaultTimesTests {
    @Test("give percentiles exact to 6 %", arguments: [UInt64(1), 17, 999, 65_536, 7_654_321])
    func exactness(nanoseconds: UInt64) {
        let times = FaultTimes()
        for _ in 0..<99 { times.add(nanoseconds) }
        times.add(nanoseconds * 100)
        let median = times.percentile(0.5)
        #expect(median >= nanoseconds && Double(median) <= Double(nanoseconds) * 1.0626)
        #expect(times.percentile(1) == nanoseconds * 100)
        #expect(times.longest.load(ordering: .relaxed) == nanoseconds * 100)
    }

    @Test("are zero before any fault, and hold any time")
    func bounds() {
        let times = FaultTimes()
        #expect(times.percentile(0.99) == 0)
        times.add(0)
        #expect(times.percentile(1) == 0)
        times.add(.max)
        #expect(times.percentile(1) > 8_000_000_000_000)
    }

    @Test("count each fault in one power of two")
    func powers() {
        let times = FaultTimes()
        for nanoseconds in [UInt64(0), 1, 2, 3, 4, 1000, 1023, 1024, 1_000_000] { times.add(nanoseconds) }
        #expect(times.count(belowPower: 10) == 2)
        #expect(times.count(belowPower: 11) == 1)
        let counted = (0..<FaultTimes.powers).reduce(UInt64(0)) { $0 + times.count(belowPower: $1) }
        #expect(counted == 9)
    }
}

@Suite("Busy polling")
struct BusyPollTests {
    @Test("starts when faults come close together, and grows with their distance to a bound")
    func grows() {
        var poll = BusyPoll()
        #expect(poll.window == 0)
        poll.faultCame(afterIdle: 10_000)
        #expect(poll.window == 4_000)
        for _ in 0..<10 { poll.faultCame(afterIdle: 50_000) }
        #expect(poll.window == BusyPoll.windowMax)
    }

    @Test("stays as it is while it catches the faults")
    func pays() {
        var poll = BusyPoll()
        poll.faultCame(afterIdle: 10_000)
        poll.faultCame(afterIdle: 3_000)
        #expect(poll.window == 4_000)
    }

    @Test("ends when faults come rarely: an idle VM costs no CPU time")
    func ends() {
        var poll = BusyPoll()
        for _ in 0..<10 { poll.faultCame(afterIdle: 50_000) }
        for _ in 0..<10 { poll.faultCame(afterIdle: 1_000_000) }
        #expect(poll.window == 0)
    }
}

@Suite("Busy polling while reads are under way")
struct ReadPollTests {
    @Test("lasts twice as long as reads of a quick device take")
    func quick() {
        var poll = BusyPoll()
        #expect(poll.readWindow == 0)
        poll.readTook(60_000)
        #expect(poll.readWindow == 120_000)
        #expect(poll.window == 0)
    }

    @Test("does not begin for a slow device")
    func slow() {
        var poll = BusyPoll()
        for _ in 0..<20 { poll.readTook(5_000_000) }
        #expect(poll.readWindow == 0)
    }

    @Test("ends when a device gets slow, not for one slow read, and begins again when it is quick")
    func changes() {
        var poll = BusyPoll()
        for _ in 0..<20 { poll.readTook(60_000) }
        poll.readTook(1_000_000_000)
        #expect(poll.readWindow > 120_000)
        for _ in 0..<20 { poll.readTook(1_000_000) }
        #expect(poll.readWindow == 0)
        for _ in 0..<20 { poll.readTook(60_000) }
        #expect(poll.readWindow > 0)
    }

    @Test("is no shorter than that for faults")
    func atLeast() {
        var poll = BusyPoll()
        for _ in 0..<10 { poll.faultCame(afterIdle: 50_000) }
        poll.readTook(1_000)
        #expect(poll.readWindow == BusyPoll.windowMax)
    }
}

@Suite("The store's health")
struct StoreHealthTests {
    private final class Reports: Sendable {
        let lines = Mutex<[String]>([])
        var host: Engine.Host {
            Engine.Host(
                report: { [self] event in
                    let line = if case .writeRecovered = event { "recovered" } else { "failed" }
                    lines.withLock { $0.append(line) }
                }, log: { _, _ in })
        }
    }

    private let second: UInt64 = 1_000_000_000

    @Test("tells the host program of the first failure and of the recovery only")
    func reports() throws {
        let region = try Region(name: "ram", start: 0x20_0000, length: UInt64(pageSize))
        let reports = Reports()
        var health = StoreHealth()
        health.recordSuccess(TierIndex(1), host: reports.host)
        health.record((.inputOutput, 0), TierIndex(1), region, at: 0, host: reports.host)
        health.record((.noSpace, 0), TierIndex(1), region, at: 2 * second, host: reports.host)
        health.recordSuccess(TierIndex(1), host: reports.host)
        health.recordSuccess(TierIndex(1), host: reports.host)
        #expect(reports.lines.withLock { $0 } == ["failed", "recovered"])
    }

    @Test("waits longer after each failure, to a bound")
    func backsOff() throws {
        let region = try Region(name: "ram", start: 0x20_0000, length: UInt64(pageSize))
        let host = Reports().host
        var health = StoreHealth()
        #expect(health.mayTry(at: 0))
        health.record((.noSpace, 0), TierIndex(1), region, at: 0, host: host)
        #expect(!health.mayTry(at: second - 1) && health.mayTry(at: second))
        health.record((.noSpace, 0), TierIndex(1), region, at: second, host: host)
        #expect(!health.mayTry(at: 3 * second - 1) && health.mayTry(at: 3 * second))
        for attempt in 1...10 {
            health.record((.noSpace, 0), TierIndex(1), region, at: UInt64(attempt) * 100 * second, host: host)
        }
        #expect(!health.mayTry(at: 1030 * second - 1) && health.mayTry(at: 1030 * second))
    }

    @Test("takes many failures before its next try for one")
    func oneFailure() throws {
        let region = try Region(name: "ram", start: 0x20_0000, length: UInt64(pageSize))
        var health = StoreHealth()
        for page in 0..<64 {
            health.record((.timedOut, page), TierIndex(1), region, at: 0, host: Reports().host)
        }
        #expect(health.mayTry(at: second))
    }
}
