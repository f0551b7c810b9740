import Foundation
import Kernel
import SimulatedKernel
import Synchronization

/// Many runs, one lane of them on each CPU.
final class Campaign: Sendable {
    struct Totals {
        var steps = 0
        var evictions: UInt64 = 0
        var fetches: UInt64 = 0
        var rescues: UInt64 = 0
        var cleanEvictions: UInt64 = 0
        var rewrittenBytes: UInt64 = 0
        var compactionMoves: UInt64 = 0
        var wholeFetches: UInt64 = 0
        var demotions: UInt64 = 0
        var tiersRemoved = 0
        var failures: [World.Outcome] = []
    }

    private let first: UInt64
    private let runs: Int
    private let state = Mutex(Totals())
    private let started = Atomic<Int>(0)
    private static let failuresMax = 5

    init(first: UInt64, runs: Int) {
        self.first = first
        self.runs = runs
    }

    var totals: Totals { state.withLock { $0 } }
    var failures: [World.Outcome] { totals.failures }

    var summary: String {
        let totals = totals
        return "simulation: \(runs) runs from seed \(first), \(totals.steps) steps, "
            + "\(totals.evictions) evictions (\(totals.cleanEvictions) clean), \(totals.fetches) fetches "
            + "(\(totals.wholeFetches) in huge pages), \(totals.rescues) rescues, \(totals.rewrittenBytes >> 10) KiB compacted, "
            + "\(totals.compactionMoves) moves within the pool, \(totals.demotions) demotions, "
            + "\(totals.tiersRemoved) tiers removed"
    }

    func run() {
        let lanes = (0..<min(4, ProcessInfo.processInfo.activeProcessorCount)).map { lane in
            try! Kernel.Thread(name: "sim-lane") { [self] in runLane(lane) }
        }
        lanes.forEach { $0.join() }
    }

    private func runLane(_ lane: Int) {
        while failures.count < Self.failuresMax {
            let index = started.add(1, ordering: .relaxed).oldValue
            if index >= runs { return }
            let seed = first + UInt64(index)
            LastSeeds.note(seed, lane: lane)
            let outcome = try! simulate(seed: seed, cpu: lane)
            state.withLock { totals in
                totals.steps += outcome.steps
                totals.evictions += outcome.evictions
                totals.fetches += outcome.fetches
                totals.rescues += outcome.rescues
                totals.cleanEvictions += outcome.cleanEvictions
                totals.rewrittenBytes += outcome.rewrittenBytes
                totals.compactionMoves += outcome.compactionMoves
                totals.wholeFetches += outcome.wholeFetches
                totals.demotions += outcome.demotions
                totals.tiersRemoved += outcome.tiersRemoved
                if outcome.violation != nil { totals.failures.append(outcome) }
            }
        }
    }
}
