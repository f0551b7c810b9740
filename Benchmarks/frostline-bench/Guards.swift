import CBareLoops
import Engine
import Kernel

/// The guards beside each other, each on its kind of memory: what taking a page away
/// costs, the store included, and what bringing it back costs the guest.
struct Guards {
    let bench: Bench

    func run() throws -> [Result] {
        let move = try measure(shared: false)
        let minor = try measure(shared: true)
        let floor = "guard move on private memory, in the same run"
        return [
            Result("guard/move/anonymous/evict", move.evicted, "pages/s", floor: nil, "one worker"),
            Result("guard/minor/shared/evict", minor.evicted, "pages/s", floor: move.evicted, floor),
            Result("guard/move/anonymous/fault-p50", move.fault, "us", floor: nil, "unpinned"),
            Result("guard/minor/shared/fault-p50", minor.fault, "us", floor: move.fault, floor),
        ]
    }

    private func measure(shared: Bool) throws -> (evicted: Double, fault: Double) {
        let guest = try Guest(pageCount: bench.pageCount)
        if shared {
            let answer = bench_make_shared(guest.base, guest.length)
            guard answer == 0 else {
                throw BenchmarkFailure("cannot map shared memory: \(Errno(-answer).text)")
            }
        }
        let rig = try PagerRig(guest)
        defer { rig.close() }
        var evicted: [Double] = []
        var faults: [Double] = []
        for part in 0..<bench.rounds {
            let pages = guest.pages(ofPart: part)
            evicted.append(Double(pages.count) * 1e9 / cpuTime { rig.evict(pages) })
            faults.append(percentile(guest.touch(part: part), 0.5) / 1e3)
        }
        return (median(evicted), median(faults))
    }
}
