import CBareLoops
import Engine
import Kernel

/// What looking at memory costs: the worker's CPU time for a pass, and the guest's for
/// the first write to a page that is watched. Tracker wp, the one that a kernel without
/// RWP has; private anonymous memory in small pages.
struct Tracking {
    let bench: Bench

    /// Memory under a pager whose passes are made here.
    private final class Rig {
        let memory: Mapping
        let pager: Pager<LinuxKernel>
        let region: Region
        let tracker: Tracker<LinuxKernel>
        let pageCount: Int

        init(bytes: Int) throws {
            memory = try Mapping(length: bytes, alignment: hugePageSize)
            precondition(bench_forbid_huge(memory.base, UInt64(bytes)) == 0)
            pageCount = bytes / pageSize
            for page in 0..<pageCount { bench_write(memory.base, UInt32(page)) }
            let port = try LinuxKernel(tracking: .writeProtection, file: nil)
            let store = try Store<LinuxKernel>(
                backing: .compressed(try CompressedStore(capacity: bytes)), pagesMax: pageCount)
            pager = try Pager(
                port: port, store: store, settings: try Settings(limit: 0, idleAge: 0),
                host: Host(report: { _ in }, log: { _, message in print(message) }), tracking: true,
                readErrorAction: .stop, wakeWorker: {})
            region = try Region(
                name: "bench", start: UInt64(UInt(bitPattern: memory.base)), length: UInt64(bytes))
            try pager.attach(region)
            tracker = Tracker(pager: pager)
            tracker.pass(lookAge: nil)
        }

        /// Milliseconds of this thread's CPU that passes take on average, `pages` of them
        /// written before each. Many passes: quiet memory is not looked at in each.
        func pass(writing pages: [UInt32], times: Int) -> Double {
            var sum = 0.0
            for _ in 0..<times {
                for page in pages { bench_write(memory.base, page) }
                sum += cpuTime { tracker.pass(lookAge: nil) }
            }
            return sum / Double(times) / 1e6
        }

        deinit { pager.detach(region) }
    }

    private static let gibibyte = 1 << 30

    func run() throws -> [Result] {
        let rig = try Rig(bytes: Self.gibibyte)
        // One hot place, and writes all over.
        let dense = (0..<UInt32(2560)).map { 40_000 + $0 }
        let spread = (0..<UInt32(2560)).map { $0 * 101 % UInt32(rig.pageCount) }
        let times = bench.isQuick ? 65 : 260
        let scan = bareScan(rig)
        var results = [("idle", []), ("1-percent-dense", dense), ("1-percent-spread", spread)].map {
            Result(
                "tracking/wp/anonymous/pass-ms-per-gib/\($0)", rig.pass(writing: $1, times: times), "ms",
                floor: scan, "one bare PAGEMAP_SCAN of the same GiB, all of it present; CPU time")
        }
        results.append(try againstSize(times: times))
        results.append(firstWrite(rig))
        return results
    }

    /// A working set of 10 MiB in 256 MiB, and in 4 GiB.
    private func againstSize(times: Int) throws -> Result {
        let hot = (0..<UInt32(2560)).map { 30_000 + $0 }
        let small = try Rig(bytes: Self.gibibyte / 4).pass(writing: hot, times: times)
        let large = try Rig(bytes: 4 * Self.gibibyte).pass(writing: hot, times: times)
        return Result(
            "tracking/wp/anonymous/pass-ms/10-mib-of-4-gib", large, "ms", floor: small,
            "the same working set in 256 MiB: flat is the aim")
    }

    private func firstWrite(_ rig: Rig) -> Result {
        let pages = (0..<UInt32(20_000)).map { $0 * 7 % UInt32(rig.pageCount) }
        func writeAll() -> Double {
            cpuTime { for page in pages { bench_write(rig.memory.base, page) } } / Double(pages.count)
        }
        // Every place is due again after 64 quiet passes at most.
        for _ in 0..<70 { rig.tracker.pass(lookAge: nil) }
        let armed = writeAll()
        return Result(
            "tracking/wp/anonymous/first-write", armed / 1e3, "us", floor: writeAll() / 1e3,
            "the same writes once more, to pages that are not armed")
    }

    private func bareScan(_ rig: Rig) -> Double {
        let answers = (0..<9).map { _ in
            cpuTime { precondition(bench_scan(rig.memory.base, UInt64(rig.memory.length)) >= 0) } / 1e6
        }
        return median(answers)
    }
}
