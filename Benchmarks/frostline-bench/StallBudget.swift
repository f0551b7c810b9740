import CBareLoops
import Engine
import Kernel

/// A stall budget of 0.5 % on a program with a hot fifth: what it saves, and what the
/// program loses by it. The program writes, because tracker wp sees writes.
struct StallBudget {
    let bench: Bench

    private static let pageCount = 65_536
    private static let millionths: UInt64 = 5000
    private static let settleSeconds: UInt64 = 120
    private static let measureSeconds: UInt64 = 10

    func run() throws -> [Result] {
        let guest = try Guest(pageCount: Self.pageCount)
        precondition(bench_forbid_huge(guest.base, guest.length) == 0)
        let before = Self.rate(guest, seconds: Self.measureSeconds)
        var options = PagerOptions(
            tracker: .writeProtection, store: .compressed, readErrorAction: .stop, limit: 0, idleAge: 0)
        options.stallBudget = Self.millionths
        let live: LivePager
        let region: Region
        do throws(SetupFailure) {
            live = try LivePager(options, host: Host(report: { _ in }, log: { _, _ in }))
            region = try live.attach(name: "bench", start: guest.start, length: guest.length)
        } catch {
            throw BenchmarkFailure(error.message)
        }
        _ = Self.rate(guest, seconds: bench.isQuick ? Self.settleSeconds / 2 : Self.settleSeconds)
        let stallBefore = live.pager.faultTimes.total.value
        let start = monotonicNow()
        let after = Self.rate(guest, seconds: Self.measureSeconds)
        let stall =
            Double(live.pager.faultTimes.total.value - stallBefore) / Double(monotonicNow() - start)
        let resident = Double(guest.mapping.residentBytes) / Double(guest.mapping.length)
        let held = Double(live.pager.store.heldBytes) / Double(guest.mapping.length)
        live.settingsChanged()
        live.pager.settings.setMode(.drain)
        while live.pager.counters.evictedPages > 0 { Kernel.sleep(nanoseconds: 1_000_000) }
        live.pager.detach(region)
        live.stop()
        let afterwards = Self.rate(guest, seconds: Self.measureSeconds)
        return [
            Result(
                "policy/stall-budget/saved", 100 * (1 - resident - held), "%", floor: nil,
                "of memory, the pool subtracted; a fifth of the pages is in steady use, and 20 times a "
                    + "second some page of all is"),
            Result(
                "policy/stall-budget/stall", 100 * stall, "%", floor: Double(Self.millionths) / 1e4,
                "of the program's time, spent waiting for pages; the budget"),
            Result(
                "policy/stall-budget/throughput", after, "/s", floor: max(before, afterwards),
                "writes a second of the same program before there was a pager, or afterwards"),
        ]
    }

    /// Writes a second: all over a fifth of the pages, and 20 times a second anywhere.
    private static func rate(_ guest: Guest, seconds: UInt64) -> Double {
        let start = monotonicNow()
        var elapsed: UInt64 = 0
        var random: UInt64 = 88_172_645_463_325_252
        var writes = 0
        var writesAnywhere: UInt64 = 0
        func write(below bound: Int) {
            random ^= random << 13
            random ^= random >> 7
            random ^= random << 17
            bench_write(guest.base, UInt32((random >> 20) % UInt64(bound)))
        }
        while elapsed < seconds * 1_000_000_000 {
            for _ in 0..<1000 { write(below: pageCount / 5) }
            writes += 1000
            elapsed = monotonicNow() - start
            if elapsed / 50_000_000 > writesAnywhere {
                writesAnywhere += 1
                write(below: pageCount)
            }
        }
        return Double(writes) * 1e9 / Double(elapsed)
    }
}
