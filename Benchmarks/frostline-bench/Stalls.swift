import CBareLoops
import Engine
import Kernel
import Synchronization

/// What eviction makes a guest's threads wait for: one that touches other pages meanwhile,
/// and one that touches the pages that are leaving.
struct Stalls {
    let bench: Bench
    let cell: GuardCell

    func run() throws -> [Result] { try other(cell) + leaving(cell) }

    private static let shares: [(String, Double)] = [("p50", 0.5), ("p99", 0.99)]
    private var rounds: Int { bench.isQuick ? 2 : 20 }

    /// Half of the guest is evicted, while the first touches of the other half are timed. All
    /// of it is armed before.
    private func other(_ cell: GuardCell) throws -> [Result] {
        let guest = try cell.makeGuest(bench.pageCount)
        let compressed = CompressedPages(of: guest)
        let rig = try PagerRig(guest, cell)
        defer { rig.close() }
        let half = bench.pageCount / 2
        // Of pages that are armed as one, one.
        let order = stride(from: half, to: bench.pageCount, by: cell.pageBytes / pageSize).shuffled()
        var ours: [UInt32] = []
        var floor: [UInt32] = []
        rig.evict(0..<bench.pageCount)
        for _ in 0..<rounds {
            for evicts in [true, false] {
                guest.bringBack(0..<bench.pageCount)
                rig.arm()
                let times = touches(guest, order) {
                    if evicts {
                        _ = rig.tryToEvict(0..<half)
                    } else {
                        compressed.compress(0..<half, at: guest.base, room: SizeClass.largest)
                    }
                }
                if evicts { ours += times } else { floor += times }
            }
        }
        return Self.shares.map { name, share in
            Result(
                "\(cell.name)/stall-other/\(name)", percentile(ours, share) / 1e3, "us",
                floor: percentile(floor, share) / 1e3,
                "first touches of other armed pages while the other thread only compresses; "
                    + "tracker \(cell.trackerName)")
        }
    }

    /// Times touches in this order for as long as another thread is at work, 8 µs apart, of
    /// huge pages 4 ms.
    private func touches(_ guest: Guest, _ order: [Int], _ work: @escaping () -> Void) -> [UInt32] {
        let distance = UInt64(8000 * cell.pageBytes / pageSize)
        return withWorkAtHand(work) { isDone in
            var times: [UInt32] = []
            times.reserveCapacity(order.count)
            for page in order where !isDone() {
                let began = monotonicNow()
                guest.touch(page, isWrite: cell.touchesByWriting)
                times.append(UInt32(truncatingIfNeeded: monotonicNow() - began))
                while monotonicNow() < began + distance, !isDone() {}
            }
            return times
        }
    }

    private func leaving(_ cell: GuardCell) throws -> [Result] {
        let guest = try cell.makeGuest(bench.pageCount)
        let rig = try PagerRig(guest, cell)
        defer { rig.close() }
        var times: [UInt32] = []
        for _ in 0..<rounds {
            guest.bringBack(0..<bench.pageCount)
            rig.arm()
            times += withWorkAtHand({ _ = rig.tryToEvict(0..<bench.pageCount) }) { isDone in
                var times: [UInt32] = []
                var page = 0
                while !isDone() {
                    page = (page + 1) % bench.pageCount
                    switch rig.region.table[rig.region.head(of: page)].state {
                    case .leaving, .wanted, .staged, .punching: break
                    default: continue
                    }
                    let began = monotonicNow()
                    guest.touch(page, isWrite: cell.touchesByWriting)
                    times.append(UInt32(truncatingIfNeeded: monotonicNow() - began))
                }
                return times
            }
        }
        guard times.count >= 20 else {
            print("\(cell.name)/stall-leaving: not measured, only \(times.count) touches met a page")
            return []
        }
        return Self.shares.map { name, share in
            Result(
                "\(cell.name)/stall-leaving/\(name)", percentile(times, share) / 1e3, "us", floor: nil,
                "touches of pages that were on their way out, \(times.count) of them")
        }
    }

    /// Runs `work` on a thread of its own, and `body` here until that is done.
    private func withWorkAtHand<Answer>(
        _ work: @escaping () -> Void, _ body: (_ isDone: () -> Bool) -> Answer
    ) -> Answer {
        let done = Flag()
        nonisolated(unsafe) let work = work
        let thread = try! Kernel.Thread(name: "bench-work") {
            work()
            done.value.store(true, ordering: .releasing)
        }
        let answer = body { done.value.load(ordering: .acquiring) }
        thread.join()
        return answer
    }

    private final class Flag: Sendable {
        let value = Atomic<Bool>(false)
    }
}

/// Pages that only look cold: a tenth of the guest is read all the time and never written,
/// the rest is idle, and what is idle for a second leaves.
struct FalseCold {
    let bench: Bench
    let cell: GuardCell
    private static let idleAge: UInt64 = 1_000_000_000

    func run() throws -> [Result] {
        let guest = try cell.makeGuest(bench.pageCount)
        let hot = stride(from: 0, to: bench.pageCount, by: 10).shuffled()
        let rig = try PagerRig(guest, cell, idleAge: Self.idleAge)
        defer { rig.close() }
        let end = monotonicNow() + (bench.isQuick ? 5 : 8) * Self.idleAge
        while monotonicNow() < end {
            for page in hot { guest.touch(page, isWrite: false) }
            Kernel.sleep(nanoseconds: 5_000_000)
        }
        let counters = rig.live.pager.counters
        let back = counters.fetches.value - counters.prefetches.value + counters.rescues.value
        let share = 100 * Double(back) / Double(max(1, counters.evictions.value))
        return [
            Result(
                cell.name + "/false-cold", share, "%", floor: nil,
                "of \(counters.evictions.value) evictions, fetched right back: a tenth of the guest is "
                    + "only read; tracker \(cell.trackerName)")
        ]
    }
}
