import Foundation
import Kernel
import SimulatedKernel
import Synchronization
import Testing

@Suite("The pager over a simulated kernel", .serialized)
struct SimulationTests {
    private static let environment = ProcessInfo.processInfo.environment

    /// Under a minute; unoptimised code is fifteen times slower, and has the assertions.
    #if DEBUG
        private static let runsWanted = 100
    #else
        private static let runsWanted = 3000
    #endif

    @Test("keeps every rule, whatever interleaves and fails")
    func manySeeds() throws {
        if let seed = Self.environment["FROSTLINE_SIM_SEED"].flatMap({ UInt64($0) }) {
            let outcome = try simulate(seed: seed, trace: Trace { print($0) })
            #expect(outcome.violation == nil, "seed \(seed)")
            return
        }
        let runs = Self.environment["FROSTLINE_SIM_RUNS"].flatMap { Int($0) } ?? Self.runsWanted
        let first = Self.environment["FROSTLINE_SIM_FIRST"].flatMap { UInt64($0) } ?? 1
        let campaign = Campaign(first: first, runs: runs)
        campaign.run()
        print(campaign.summary)
        #expect(campaign.failures.isEmpty)
        for failure in campaign.failures {
            Issue.record("FROSTLINE_SIM_SEED=\(failure.seed): \(failure.violation ?? "")")
        }
        // A campaign in which nothing happens proves nothing.
        #expect(campaign.totals.evictions > UInt64(runs))
        #expect(campaign.totals.fetches > UInt64(runs))
        #expect(campaign.totals.rescues > 0)
        #expect(campaign.totals.cleanEvictions > 0)
        #expect(campaign.totals.rewrittenBytes > 0)
        #expect(campaign.totals.compactionMoves > UInt64(runs / 10))
        #expect(campaign.totals.wholeFetches > 0)
        #expect(campaign.totals.demotions > UInt64(runs / 10))
        #expect(campaign.totals.tiersRemoved > runs / 10)
    }

    @Test("replays a seed exactly", arguments: [UInt64(3), 44, 555])
    func replay(seed: UInt64) throws {
        let first = try simulate(seed: seed)
        let second = try simulate(seed: seed)
        #expect(first.hash == second.hash)
        #expect(first.steps == second.steps)
    }

    @Test(
        "notices a kernel, disk, compaction or demotion that breaks its promises",
        arguments: Sabotage.allCases)
    func noticesSabotage(_ sabotage: Sabotage) throws {
        for seed in 1...UInt64(400) {
            if try simulate(seed: seed, sabotage: sabotage).violation != nil { return }
        }
        Issue.record("400 runs did not notice \(sabotage)")
    }
}

func simulate(
    seed: UInt64, sabotage: Sabotage? = nil, trace: Trace = Trace(), cpu: Int = 0
) throws -> World.Outcome {
    let world = try World(seed: seed, sabotage: sabotage, trace: trace)
    return try world.run(seed: seed, cpu: cpu)
}
