import Engine
import Kernel
import Testing

/// What brings pages back without an access, while some cannot be read.
@Suite("Bringing pages back", .serialized)
struct BringBackTests {
    /// 128 MiB under a limit of 32 MiB: some of it is out in memory, the rest in a file.
    private static let pages = (128 << 20) / pageSize
    private static let upper = TierIndex(1)
    private static let lower = TierIndex(2)

    private final class Rig {
        let live: LivePager
        let memory: VersionedMemory
        let region: Region
        let file: StolenFile
        let log = HostLog()
        var counters: Counters { live.pager.counters }

        /// `readsMax`: of the file, in a second; 0: any number.
        init(_ name: String, readsMax: UInt64 = 0) throws {
            let path = temporaryPath(name)
            var onDisk = TierOptions(.file(path: path), maxBytes: 256 << 20)
            onDisk.readLimits.transfers = readsMax
            live = try LivePager(
                PagerOptions(
                    tracker: .none,
                    store: .tiers([
                        TierOptions(.compressed, maxBytes: 16 << 20),
                        onDisk,
                    ]), readErrorAction: .stop, limit: Settings.limitMin, idleAge: 0),
                host: log.host)
            file = StolenFile(path: path)
            memory = try VersionedMemory(pageCount: pages)
            region = try live.attach(name: "ram", start: memory.start, length: memory.length)
            for page in 0..<memory.pageCount { memory.advance(page) }
            try #require(
                waitUntil { counters.pages(in: upper) > 1000 && counters.pages(in: lower) > pages / 8 })
            // Nothing moves from here on.
            try live.pager.settings.setLimit(0)
            var before: UInt64 = .max
            waitUntil {
                defer { before = counters.evictions.value + counters.fetches.value }
                return counters.stagedPages.value == 0
                    && before == counters.evictions.value + counters.fetches.value
            }
        }

        func setMode(_ mode: Mode) {
            live.pager.settings.setMode(mode)
            live.settingsChanged()
        }

        func finish() {
            #expect((0..<memory.pageCount).count { !memory.verify($0) } == 0)
            #expect(log.errors == [], "nobody waited for a page that could not be read")
            live.pager.detach(region)
            live.stop()
        }
    }

    @Test("goes on with the others when a tier cannot be read, and ends with its mode")
    func unreadable() throws {
        let rig = try Rig("bring-back")
        rig.setMode(.off)
        let passes = rig.counters.passes.value
        let saved = rig.file.takeAway()
        rig.setMode(.drain)
        waitUntil { rig.counters.pages(in: Self.upper) == 0 && rig.counters.readErrors.value > 100 }
        #expect(rig.counters.pages(in: Self.upper) == 0, "what can be read comes back")
        #expect(rig.counters.readErrors.value > 100, "what cannot has been tried")
        #expect(rig.counters.pages(in: Self.lower) > Self.pages / 16)
        #expect(rig.counters.waitingPages.value == 0)

        rig.setMode(.active)
        waitUntil { rig.counters.passes.value > passes + 1 }
        #expect(rig.counters.passes.value > passes + 1, "the worker passes again")

        rig.file.giveBack(saved)
        rig.setMode(.drain)
        waitUntil { rig.counters.evictedPages == 0 }
        #expect(rig.counters.evictedPages == 0)
        rig.finish()
    }

    @Test("brings back what lies behind pages that cannot be read, however many these are")
    func unreadablePart() throws {
        // Slowly: one look after another at where it begins would get no further than that.
        let rig = try Rig("bring-back-part", readsMax: 2000)
        rig.setMode(.off)
        let stored = rig.counters.pages(in: Self.lower)
        let payload = rig.live.pager.store.tiers[1].backing.payload
        let contents = rig.file.takeAway()
        // What left first lies at its beginning, and the worker begins with the lowest addresses.
        var damaged = contents
        for index in 0..<payload / 2 { damaged[index] = 0 }
        rig.file.giveBack(damaged)
        rig.setMode(.drain)
        waitUntil { rig.counters.pages(in: Self.lower) < stored * 3 / 5 }
        #expect(rig.counters.pages(in: Self.lower) < stored * 3 / 5, "half can be read")
        #expect(rig.counters.readErrors.value > stored / 4, "half cannot")

        rig.file.giveBack(contents)
        waitUntil { rig.counters.evictedPages == 0 }
        #expect(rig.counters.evictedPages == 0)
        rig.finish()
    }

    @Test("empties a tier for which the others have no room")
    func removedTier() throws {
        let rig = try Rig("bring-back-tier")
        try rig.live.removeTier(Self.lower.position)
        waitUntil { rig.live.pager.store.reading { rig.live.pager.store.tiers.count == 1 } }
        #expect(rig.live.pager.store.reading { rig.live.pager.store.tiers.count == 1 }, "it is gone")
        #expect(rig.counters.pages(in: Self.lower) == 0)
        rig.finish()
    }
}
