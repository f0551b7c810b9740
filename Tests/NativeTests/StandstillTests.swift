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
            live.settingsChanged()
            for page in 0..<pages { memory.advance(page) }
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

    @Test("keeps its limit, and goes by new settings at once while it is beyond that")
    func limit() throws {
        // More than all of it costs in the store.
        let limit = 48 << 20
        let rig = try Rig(pages: (64 << 20) / pageSize, limit: UInt64(limit), isRunning: false)
        let (pager, memory) = (rig.live.pager, rig.memory)
        // The kernel filled it, and told nobody.
        #expect(waitUntil { rig.evictions > 3000 && pager.cost <= limit })
        let isEnough = Lock(false)
        let guest = try Kernel.Thread(name: "guest") {
            while !isEnough.withLock({ $0 }) {
                for page in 0..<memory.pageCount { _ = memory.verify(page) }
            }
        }
        func set(_ mode: Mode) {
            pager.settings.setMode(mode)
            rig.live.settingsChanged()
        }
        // The worker is woken for the limit and for the settings, in any order.
        var drained = 0
        for _ in 0..<20 {
            set(.drain)
            guard waitUntil({ pager.counters.evictedPages == 0 }) else { break }
            drained += 1
            set(.active)
            waitUntil { pager.counters.evictedPages > 1000 }
        }
        #expect(drained == 20)
        isEnough.withLock { $0 = true }
        guest.join()
        rig.finish()
    }
}
