import Foundation
import Kernel
import Testing

/// Ten thousand faults of a dozen kinds, done for real to what is below guest memory: no byte is
/// wrong, each failure is counted and told, and nothing waits for longer than it was configured to.
@Suite("Injected faults", .serialized)
struct FaultCampaign {
    /// What is printed in the first column, and `FROSTLINE_FAULT_KINDS` names.
    private static let kinds: [FaultKind] = [
        .readErrors,
        .exportErrors,
        .altering("bit flip in a file", share: 15) { $0.flip(&$1) },
        .altering("objects exchanged in a file", share: 8) { $0.exchange(&$1) },
        .altering("stale object in a file", share: 8) { $0.stale(&$1) },
        .altering("object lost in a file", share: 8) { $0.blank(&$1) },
        .altering("file that ends early", share: 8, keepsPages: false) { $0.truncate(&$1) },
        .failingDisk,
        .cuts,
        .kills,
        .hangs,
        .refusedEvictions,
        .full(.ext4),
        .full(.xfs),
        .frozen(.ext4),
        .frozen(.xfs),
        .delays,
        .failingCompaction,
        .damagedMirror,
    ]

    private static let environment = ProcessInfo.processInfo.environment

    /// How many faults; the least is what the project promises.
    private static let wanted = environment["FROSTLINE_FAULTS"].flatMap { Int($0) } ?? 10_000

    @Test("of every kind cost time, or a page that is said to be lost, and nothing else")
    func campaign() throws {
        let seed = seedForThisRun()
        print("faults: seed \(seed)")
        let names = Self.environment["FROSTLINE_FAULT_KINDS"]?.split(separator: ",")
        let chosen = Self.kinds.filter { names?.contains($0.name[...]) ?? true }
        try #require(chosen.count == names?.count ?? Self.kinds.count, "FROSTLINE_FAULT_KINDS names no kind")
        var total = 0
        for kind in chosen {
            if let obstacle = kind.obstacle {
                print("faults: \(kind.name): left out, \(obstacle)")
                continue
            }
            let tally = try run(kind, seed)
            if kind.isFailure { total += tally.injected }
        }
        print("faults: \(total) in all, seed \(seed)")
        if names == nil { #expect(total >= Self.wanted) }
    }

    private func run(_ kind: FaultKind, _ seed: UInt64) throws -> FaultTally {
        let share = (Self.wanted * kind.share + Self.shares - 1) / Self.shares
        let begin = monotonicNow()
        let tally = try kind.run(share, seed)
        let seconds = Double(monotonicNow() - begin) / 1e9
        print(
            "faults: \(kind.name): \(tally.injected) injected, \(tally.noticed) counted, \(tally.told) told, "
                + "\(tally.wrongPages) wrong pages, the longest wait \(tally.slowest / 1_000_000) ms, "
                + String(format: "%.1f s in all", seconds))
        // Should the next kind hang, this is known.
        fflush(nil)
        let context = "\(kind.name), seed \(seed)"
        #expect(tally.injected >= max(1, share), "\(context)")
        #expect(tally.wrongPages == 0, "\(context)")
        #expect(tally.slowest < tally.bound, "\(context)")
        if kind.isFailure { #expect(tally.noticed > 0 && tally.told > 0, "\(context)") }
        return tally
    }

    /// Of the kinds that this machine can do: all that are wanted are injected by these.
    private static let shares = kinds.filter { $0.obstacle == nil }.map(\.share).reduce(0, +)
}
