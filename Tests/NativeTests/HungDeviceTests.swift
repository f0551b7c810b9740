import Engine
import Kernel
import Synchronization
import Testing

extension RemoteStorage {
    /// A device that does not answer, and is not given up for a long time: who waits for it waits
    /// alone.
    @Suite("A device that hangs", .serialized)
    struct HungDeviceTests {
        private static let size = 64 << 20

        private final class Rig {
            let server: NBDServer
            let live: LivePager
            /// Fills up the limit.
            let memory = try! VersionedMemory(pageCount: HungDeviceTests.size / pageSize)
            let region: Region
            let log = HostLog()
            private var evictions: UInt64 = 0

            init(limit: UInt64) throws {
                let socket = temporaryPath("nbd.sock")
                server = try NBDServer(
                    ["nbdkit", "-f", "-U", socket, "memory", "256M"], socket: socket)
                var tier = TierOptions(.nbd(uri: "nbd+unix:///?socket=\(socket)"))
                tier.timeoutSeconds = 3600
                live = try LivePager(
                    PagerOptions(
                        tracker: .none, store: .tiers([tier]), readErrorAction: .stop, limit: limit,
                        idleAge: 0),
                    host: log.host)
                region = try live.attach(name: "ram", start: memory.start, length: memory.length)
            }

            /// Writes all of it; the limit has pages leave, into a device that hangs.
            func hang() {
                server.stop()
                for page in 0..<memory.pageCount { memory.advance(page) }
                var before: (UInt64, Int) = (0, 0)
                var same = 0
                waitUntil {
                    let now = (live.pager.counters.evictions.value, live.pager.counters.stagedPages.value)
                    same = now == before && now.1 > 0 ? same + 1 : 0
                    before = now
                    return same == 20
                }
                evictions = before.0
            }

            /// Of the tier that is called so; nothing when there is none.
            func inFlight(of tier: Int) -> (transfers: Int, bytes: Int) {
                live.pager.store.reading {
                    let traffic = live.pager.store.tier(TierIndex(tier + 1))?.traffic
                    return (
                        traffic?.inFlight.load(ordering: .relaxed) ?? 0,
                        traffic?.inFlightBytes.load(ordering: .relaxed) ?? 0
                    )
                }
            }

            var bounds: (transfers: Int, bytes: Int) {
                get throws {
                    guard case .log(let log) = live.pager.store.tiers[0].backing else { throw NoLog() }
                    return log.inFlightMax
                }
            }

            private struct NoLog: Error {}

            /// The worker waits for it since `hang`.
            var isHung: Bool {
                live.pager.counters.stagedPages.value > 0
                    && live.pager.counters.evictions.value == evictions
            }

            func finish() {
                server.goOn()
                var mismatches = 0
                for page in 0..<memory.pageCount where !memory.verify(page) { mismatches += 1 }
                live.pager.settings.setMode(.off)
                live.settingsChanged()
                #expect(waitUntil { inFlight(of: 0) == (0, 0) }, "and what was in flight has landed")
                #expect(mismatches == 0)
                #expect(log.errors == [])
                live.pager.detach(region)
                live.stop()
                server.kill()
            }
        }

        @Test("has writes in flight, no more than its bounds allow")
        func writesInFlight() throws {
            let rig = try Rig(limit: Settings.limitMin)
            rig.hang()
            try #require(rig.isHung)
            let (bounds, writes) = (try rig.bounds, rig.inFlight(of: 0))
            #expect((1...bounds.transfers).contains(writes.transfers))
            #expect((pageSize...bounds.bytes).contains(writes.bytes))
            rig.finish()
        }

        @Test("has reads in flight, no more than its bounds allow, when more accesses wait")
        func readsInFlight() throws {
            let rig = try Rig(limit: Settings.limitMin)
            for page in 0..<rig.memory.pageCount { rig.memory.advance(page) }
            try #require(
                waitUntil { rig.live.pager.counters.evictions.value > UInt64(rig.memory.pageCount / 3) })
            rig.live.pager.settings.setMode(.off)
            rig.live.settingsChanged()
            #expect(
                waitUntil { rig.inFlight(of: 0) == (0, 0) && rig.live.pager.counters.stagedPages.value == 0 })
            let stored = (0..<rig.memory.pageCount).filter { rig.region.table[$0].state == .stored }
            let count = 2 * TransferQueue.depth
            try #require(stored.count > 4 * count)
            rig.server.stop()
            let memory = rig.memory
            let readers = try (0..<count).map { number in
                try Kernel.Thread(name: "reader") { _ = memory.verify(stored[4 * number]) }
            }
            #expect(waitUntil { rig.inFlight(of: 0).transfers > TransferQueue.depth / 2 })
            let (bounds, reads) = (try rig.bounds, rig.inFlight(of: 0))
            #expect(reads.transfers <= min(TransferQueue.depth, bounds.transfers))
            #expect((reads.transfers * 512...bounds.bytes).contains(reads.bytes))
            rig.server.goOn()
            for reader in readers { reader.join() }
            rig.finish()
        }

        @Test("to write holds up no call of the host program's")
        func controlCalls() throws {
            let rig = try Rig(limit: Settings.limitMin)
            let live = rig.live
            let other = try VersionedMemory(pageCount: 1024)
            let plugged = try live.attach(name: "dimm0", start: other.start, length: other.length)
            let next = try VersionedMemory(pageCount: 1024)
            rig.hang()
            try #require(rig.isHung)

            let ram = rig.region
            let done = Atomic<Int>(0)
            let control = try Kernel.Thread(name: "control") {
                _ = live.storeName
                _ = live.sealName
                done.store(1, ordering: .relaxed)
                _ = try? live.exportHotness(plugged)
                done.store(2, ordering: .relaxed)
                let image = try? live.exportHotness(ram)
                done.store(3, ordering: .relaxed)
                if let image { try? live.importHotness(image, into: ram) }
                done.store(4, ordering: .relaxed)
                live.pager.detach(plugged)
                done.store(5, ordering: .relaxed)
                let region = try? live.attach(name: "dimm1", start: next.start, length: next.length)
                done.store(6, ordering: .relaxed)
                if let region { live.pager.detach(region) }
                done.store(7, ordering: .relaxed)
                _ = try? live.addTier(TierOptions(.compressed))
                done.store(8, ordering: .relaxed)
                try? live.removeTier(0)
                done.store(9, ordering: .relaxed)
            }
            waitUntil { done.load(ordering: .relaxed) == 9 }
            #expect(done.load(ordering: .relaxed) == 9, "all calls have returned")
            #expect(rig.isHung, "while the device hangs")
            let states = live.pager.store.reading { live.pager.store.tiers.map(\.state) }
            #expect(states == [.draining, .active])

            rig.server.goOn()
            control.join()
            let isGone = waitUntil { live.pager.store.reading { live.pager.store.tiers.count == 1 } }
            #expect(isGone, "what was begun ends once the device answers")
            rig.finish()
        }
    }
}
