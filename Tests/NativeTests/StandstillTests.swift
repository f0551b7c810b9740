import Engine
import Kernel
import Testing

@Suite("A guest that stands still", .serialized)
struct StandstillTests {
    /// Memory that nobody touches, under a budget of half of the vCPU time.
    private final class Rig {
        let live: LivePager
        let memory: VersionedMemory
        let region: Region
        var evictions: UInt64 { live.pager.counters.evictions.value }
        var passes: UInt64 { live.pager.counters.passes.value }

        init(pages: Int, limit: UInt64 = 0, budget: UInt64 = 0, isRunning: Bool) throws {
            live = try LivePager(
                PagerOptions(
                    tracker: .none, store: .compressed, readErrorAction: .stop, limit: limit, idleAge: 0),
                host: HostLog().host)
            live.pager.setRunning(isRunning)
            memory = try VersionedMemory(pageCount: pages)
            region = try live.attach(name: "ram", start: memory.start, length: memory.length)
            try live.pager.settings.setStallBudget(millionths: budget)
            for page in 0..<pages { memory.advance(page) }
            live.settingsChanged()
        }

        func finish() {
            #expect((0..<memory.pageCount).count { !memory.verify($0) } == 0)
            live.pager.detach(region)
            live.stop()
        }
    }

    @Test("loses nothing to the stall budget, which it cannot use up, until it goes on")
    func budget() throws {
        let running = try Rig(pages: 8192, budget: Settings.stallBudgetMax, isRunning: true)
        let still = try Rig(pages: 8192, budget: Settings.stallBudgetMax, isRunning: false)
        #expect(waitUntil { running.evictions > 0 })
        #expect(still.evictions == 0)
        let passes = still.passes
        let others = running.passes
        #expect(waitUntil { running.passes > others + 2 })
        #expect(still.passes == passes, "a look would find nothing new")
        still.live.pager.setRunning(true)
        #expect(waitUntil { still.evictions > 0 })
        print("evicted \(running.evictions) and, later, \(still.evictions) pages")
        running.finish()
        still.finish()
    }

    @Test("keeps its limit")
    func limit() throws {
        let rig = try Rig(pages: (96 << 20) / pageSize, limit: Settings.limitMin, isRunning: false)
        #expect(waitUntil { rig.live.pager.cost <= Int(Settings.limitMin) })
        rig.finish()
    }
}
