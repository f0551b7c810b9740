import Engine
import Kernel
import Synchronization
import Testing

extension RemoteStorage {
    /// Whoever wants something from a slow tier waits for it; nobody else does.
    @Suite("A slow tier", .serialized)
    struct SlowTierTests {
        private static let pages = 12_288

        @Test("to read holds up no access to what another has, nor to memory never touched")
        func others() throws {
            let socket = temporaryPath("nbd.sock")
            let server = try NBDServer(["nbdkit", "-f", "-U", socket, "memory", "128M"], socket: socket)
            var slow = TierOptions(.nbd(uri: "nbd+unix:///?socket=\(socket)"))
            slow.timeoutSeconds = 3600
            let log = HostLog()
            let live = try LivePager(
                PagerOptions(
                    tracker: .none, store: .tiers([TierOptions(.compressed, maxBytes: 16 << 20), slow]),
                    readErrorAction: .stop, limit: 0, idleAge: 0),
                host: log.host)
            live.pager.settings.setMode(.off)
            live.settingsChanged()
            let memory = try VersionedMemory(pageCount: Self.pages)
            // One in each chunk stays a hole, where a touch is a fault, too.
            let holes = stride(from: 7, to: Self.pages, by: hugePageSize / pageSize).map { $0 }
            for page in 0..<Self.pages where !holes.contains(page) { memory.advance(page) }
            let region = try live.attach(name: "ram", start: memory.start, length: memory.length)
            let evictor = Evictor(pager: live.pager)
            for index in 0..<region.hugePageCount {
                let pages = region.pages(ofHugePage: index).filter { !holes.contains($0) }
                #expect(evictor.evict(region, pages[...]) == pages.count)
            }
            func pages(in tier: Int) -> [Int] {
                (0..<Self.pages).filter {
                    let entry = region.table[$0]
                    return entry.state == .stored && Locator(payload: entry.payload).tier.position == tier
                }
            }
            let (quick, remote) = (pages(in: 0), pages(in: 1))
            try #require(quick.count > 256 && remote.count > 256)

            server.stop()
            let isServed = Atomic<Bool>(false)
            let waiting = try Kernel.Thread(name: "waiting") {
                for page in remote.prefix(64) where !memory.verify(page) { Issue.record("page \(page)") }
                isServed.store(true, ordering: .relaxed)
            }
            func readsUnderWay() -> Int {
                live.pager.store.reading {
                    live.pager.store.tiers[1].traffic?.inFlight.load(ordering: .relaxed) ?? 0
                }
            }
            #expect(waitUntil { readsUnderWay() > 0 })
            let done = Atomic<Int>(0)
            let others = try Kernel.Thread(name: "others") {
                for page in quick + holes {
                    if !memory.verify(page) { Issue.record("page \(page)") }
                    done.add(1, ordering: .relaxed)
                }
            }
            #expect(waitUntil { done.load(ordering: .relaxed) == quick.count + holes.count })
            let hasAnswered = isServed.load(ordering: .relaxed)
            #expect(!hasAnswered && readsUnderWay() > 0, "while the slow tier has not answered")

            server.goOn()
            waiting.join()
            others.join()
            #expect((0..<Self.pages).count { !memory.verify($0) } == 0)
            #expect(log.errors == [])
            live.pager.detach(region)
            live.stop()
            server.kill()
        }
    }
}
