import CBareLoops
import Engine
import Kernel

/// What being watched costs a thread that walks its working set, and the watching itself
/// meanwhile: our trackers with a pass every second, and the kernel's DAMON. Turns with
/// and without, a second or two each.
struct Slowdown {
    let bench: Bench

    /// Bytes of memory, and of it those that are walked.
    static let size = 256 << 20
    static let workingSet = 32 << 20
    private static let second: UInt64 = 1_000_000_000
    private var turns: Int { bench.isQuick ? 4 : 10 }
    private static let passesPerTurn = 2

    private static let hotPages = (0..<UInt32(workingSet / pageSize)).map {
        UInt32(size / pageSize / 7) + $0
    }

    /// What a turn of watching showed.
    private struct Turn {
        let pace: Walker.Pace
        /// Of the watcher's CPU time, in a second.
        let milliseconds: Double
    }

    func run(_ cell: Tracking.Cell) throws -> [Result] {
        let rig = try TrackedRig(cell.kind, cell.memory, bytes: Self.size)
        for _ in 0..<70 { _ = rig.pass(writing: Self.hotPages, times: 1) }
        let walker = try Walker(rig.memory, Self.hotPages)
        defer { walker.stop() }
        return results(cell.name, "a pass each second", walker) {
            watch(walker) { rig.pass() }
        }
    }

    /// Shared memory of which a page has left in each chunk: there the first touch of what a pass
    /// unmapped is a message to the fault thread. What is armed is not unmapped, and is none.
    func runWhereEvicted() throws -> [Result] {
        try GuardCell.all(try KernelFeatures.probe())
            .filter { $0.memory == .shared && $0.choice == .minor }.flatMap(whereEvicted)
    }

    private func whereEvicted(_ cell: GuardCell) throws -> [Result] {
        let guest = try cell.makeGuest(Self.size / pageSize)
        let rig = try PagerRig(guest, cell)
        defer { rig.close() }
        rig.arm()
        for first in stride(from: 0, to: guest.pageCount, by: hugePageSize / pageSize) {
            rig.evict(first..<first + 1)
        }
        let walker = try Walker(guest, at: guest.base, Self.hotPages)
        defer { walker.stop() }
        let faults = rig.live.pager.counters.faults.value
        let results = results(
            "tracking/\(cell.trackerName)/shared-evicted", "a pass each second; a page in 512 has left",
            walker
        ) { watch(walker) { cpuTime { rig.arm() } / 1e6 } }
        if bench.isVerbose {
            print("\(cell.trackerName): \(rig.live.pager.counters.faults.value - faults) messages")
        }
        return results
    }

    /// A turn with a pass each second, which takes so many milliseconds of CPU time.
    private func watch(_ walker: Walker, pass: () -> Double) -> Turn {
        let start = walker.mark
        var sum = 0.0
        for number in 1...Self.passesPerTurn {
            sum += pass()
            let due = start.wall + UInt64(number) * Self.second
            Kernel.sleep(nanoseconds: due - min(due, monotonicNow()))
        }
        return Turn(
            pace: Walker.Pace(from: start, to: walker.mark),
            milliseconds: sum / Double(Self.passesPerTurn))
    }

    private func results(
        _ name: String, _ how: String, _ walker: Walker, watched: () -> Turn
    ) -> [Result] {
        var turnsWatched: [Turn] = []
        var turnsAlone: [Walker.Pace] = []
        for _ in 0..<turns {
            turnsWatched.append(watched())
            // What was armed at last is touched first, which may take long.
            let last = walker.mark.touches
            while walker.mark.touches < last + 2 * Self.hotPages.count {
                Kernel.sleep(nanoseconds: Self.second / 10)
            }
            let start = walker.mark
            Kernel.sleep(nanoseconds: Self.second)
            turnsAlone.append(Walker.Pace(from: start, to: walker.mark))
        }
        let what = "\(Self.workingSet >> 20) MiB of \(Self.size >> 20) are walked; \(how)"
        return [
            Result(
                "\(name)/slowdown", median(turnsWatched.map(\.pace.wall)), "ns/touch",
                floor: median(turnsAlone.map(\.wall)), "the same without being watched; \(what)"),
            Result(
                "\(name)/slowdown/own-cpu", median(turnsWatched.map(\.pace.own)), "ns/touch",
                floor: median(turnsAlone.map(\.own)), "the same, of the walking thread's CPU time"),
            Result(
                "\(name)/tracker-ms-per-second", median(turnsWatched.map(\.milliseconds)), "ms", floor: nil,
                "the tracker's CPU time meanwhile; \(what)"),
        ]
    }
}

/// DAMON, the kernel's own monitor, on the same memory with the same touching.
extension Slowdown {
    /// Its defaults, and regions so small that single pages show.
    private static let kinds: [(name: String, attributes: bench_damon)] = [
        ("damon", bench_damon(sample_us: 5000, aggregate_us: 100_000, regions_min: 10, regions_max: 1000)),
        (
            "damon-fine",
            bench_damon(sample_us: 5000, aggregate_us: 100_000, regions_min: 4000, regions_max: 16000)
        ),
    ]
    /// Regions start out few, and are split in two in each aggregation.
    private static let settle = 2 * second

    /// A turn of DAMON, and how many aggregations it made in a second.
    private struct DamonTurn {
        let turn: Turn
        let aggregations: Double
    }

    /// Empty where the kernel has no DAMON for us; says so.
    func runDamon() throws -> [Result] {
        let memories: [TrackedMemory] = [.small, .huge, .shared]
        return try memories.flatMap { memory in
            try Self.kinds.flatMap { kind in
                let name = "tracking/\(kind.name)/\(memory.rawValue)"
                guard Damon(try memory.map(bytes: Self.size), kind.attributes, saying: name) != nil else {
                    return [Result]()
                }
                return try whileWalked(name, kind.attributes, memory)
                    + [againstSize(name, kind.attributes, memory)]
            }
        }
    }

    private func whileWalked(
        _ name: String, _ attributes: bench_damon, _ memoryKind: TrackedMemory
    ) throws -> [Result] {
        let memory = try memoryKind.map(bytes: Self.size)
        let walker = try Walker(memory, Self.hotPages)
        defer { walker.stop() }
        var aggregations: [Double] = []
        let how =
            "samples each \(attributes.sample_us) us, aggregations each \(attributes.aggregate_us), "
            + "\(attributes.regions_min) to \(attributes.regions_max) regions"
        var results = results(name, how, walker) {
            let watched = watch(memory, attributes, walker, name)
            aggregations.append(watched.aggregations)
            return watched.turn
        }
        results.append(
            Result(
                "\(name)/aggregations-per-second", median(aggregations), "/s",
                floor: 1e6 / Double(attributes.aggregate_us), "what was asked for"))
        return results
    }

    private func watch(
        _ memory: WatchedMemory, _ attributes: bench_damon, _ walker: Walker, _ name: String
    ) -> DamonTurn {
        guard let damon = Damon(memory, attributes, saying: name) else {
            preconditionFailure("DAMON could be had a moment ago")
        }
        Kernel.sleep(nanoseconds: Self.settle)
        let start = walker.mark
        let before = damon.progress
        Kernel.sleep(nanoseconds: UInt64(Self.passesPerTurn) * Self.second)
        let end = walker.mark
        let after = damon.progress
        let seconds = Double(end.wall - start.wall) / Double(Self.second)
        return DamonTurn(
            turn: Turn(
                pace: Walker.Pace(from: start, to: end),
                milliseconds: (after.cpuTime - before.cpuTime) / 1e6 / seconds),
            aggregations: (after.aggregations - before.aggregations) / seconds)
    }

    /// The working set that our trackers are measured with against size (`Tracking`).
    private func againstSize(
        _ name: String, _ attributes: bench_damon, _ memoryKind: TrackedMemory
    ) throws -> Result {
        func cost(_ bytes: Int) throws -> Double {
            let memory = try memoryKind.map(bytes: bytes)
            let walker = try Walker(memory, Tracking.hotPages)
            defer { walker.stop() }
            return watch(memory, attributes, walker, name).turn.milliseconds
        }
        let small = try cost(Tracking.sizeLarge / 16)
        let large = try cost(Tracking.sizeLarge)
        return Result(
            "\(name)/ms-per-second/\(Tracking.workingSetOfLarge)", large, "ms", floor: small,
            "the same working set in \(Tracking.text(Tracking.sizeLarge / 16)): flat is the aim")
    }
}

/// A running monitor.
final class Damon {
    private let bytes: Int

    /// nil: there is none for us, and a line says why.
    init?(_ memory: WatchedMemory, _ attributes: bench_damon, saying name: String) {
        var attributes = attributes
        bytes = memory.length
        let answer = bench_damon_start(memory.base, UInt64(memory.length), &attributes)
        guard answer == 0 else {
            print("\(name): not measured, DAMON does not start: \(Errno(-answer).text)")
            return nil
        }
    }

    /// CPU time in nanoseconds, and aggregations, so far.
    var progress: (cpuTime: Double, aggregations: Double) {
        var seen: UInt64 = 0
        var nanoseconds: UInt64 = 0
        precondition(bench_damon_bytes_seen(&seen) == 0 && bench_damon_cpu_time(&nanoseconds) == 0)
        return (Double(nanoseconds), Double(seen) / Double(bytes))
    }

    deinit { bench_damon_stop() }
}
