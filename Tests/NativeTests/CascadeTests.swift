import Engine
import Kernel
import Testing

/// Small tiers on real memory, through which pages move all the time while they come and go.
@Suite("Tiers under forced eviction", .serialized)
struct CascadeTests {
    private static let pages = (96 << 20) / pageSize

    @Test("cascade, demote, are added and removed, and lose no write of several writers")
    func soak() throws {
        let seed = seedForThisRun()
        let log = HostLog()
        let live = try start(
            [
                TierOptions(.compressed, maxBytes: 16 << 20), file("first", 12 << 20),
                file("second", 128 << 20),
            ], log)
        let memory = try VersionedMemory(pageCount: Self.pages)
        let region = try live.attach(name: "ram", start: memory.start, length: memory.length)
        let writers = Writers(memory, count: 3, seed: seed) { pages in
            live.pager.beginDiscard(region, pages: pages)
            memory.drop(pages)
            live.pager.endDiscard(region, pages: pages)
        }
        waitUntil { demotions(live, 0) > 200 && demotions(live, 1) > 200 && pages(live, 2) > 0 }
        #expect(demotions(live, 0) > 200 && demotions(live, 1) > 200, "the oldest move on")
        #expect(pages(live, 2) > 0)

        #expect(try live.addTier(file("third", 128 << 20)) == 3)
        try live.removeTier(1)
        try live.removeTier(2)
        waitUntil { !exists(live, 1) && !exists(live, 2) }
        #expect(!exists(live, 1) && !exists(live, 2), "drained tiers are gone")
        try live.removeTier(0)
        waitUntil { !exists(live, 0) }
        #expect(!exists(live, 0))
        #expect(pages(live, 3) > 0, "the only one left has them")
        #expect(throws: SetupFailure.self) { try live.removeTier(3) }
        #expect(try live.addTier(TierOptions(.compressed, maxBytes: 16 << 20)) == 0)
        waitUntil { demotions(live, 0) > 200 }
        #expect(demotions(live, 0) > 200, "compressed memory is the first again")

        writers.stop()
        print(
            "cascade: seed \(seed), \(live.pager.counters.evictions.value) evictions, "
                + "\(writers.operations) page checks, \(writers.mismatches) mismatches")
        var mismatches = writers.mismatches
        for page in 0..<memory.pageCount where !memory.verify(page) { mismatches += 1 }
        #expect(mismatches == 0, "seed \(seed)")
        #expect(log.errors == [], "seed \(seed)")
        live.pager.detach(region)
        #expect(live.pager.counters.evictedPages == 0)
        #expect(live.pager.store.tiers.allSatisfy { $0.objectCount == 0 })
        live.stop()
    }

    @Test("keep to their rates, for writing and for reading")
    func rates() throws {
        var tier = file("limited", 128 << 20)
        tier.writeLimits = RateLimits(bytes: 16 << 20)
        tier.readLimits = RateLimits(transfers: 1000)
        let log = HostLog()
        let begin = monotonicNow()
        let live = try start([tier], log)
        let memory = try VersionedMemory(pageCount: Self.pages)
        let region = try live.attach(name: "ram", start: memory.start, length: memory.length)
        for page in 0..<memory.pageCount { memory.advance(page) }
        waitUntil { pages(live, 0) >= Self.pages / 2 }
        let traffic = try #require(live.pager.store.tiers[0].traffic)
        // A batch may have begun just in time.
        let writing = Double(monotonicNow() - begin) / 1e9
        #expect(Double(traffic.writtenBytes.load(ordering: .relaxed)) <= (writing + 1) * 16e6 * 1.05 + 2e6)
        #expect(pages(live, 0) >= Self.pages / 2, "and get there")

        let before = traffic.reads.load(ordering: .relaxed)
        let readingBegin = monotonicNow()
        var mismatches = 0
        // Backwards: nothing is brought early.
        for page in (0..<memory.pageCount).reversed().prefix(6000) where !memory.verify(page) {
            mismatches += 1
        }
        let reading = Double(monotonicNow() - readingBegin) / 1e9
        #expect(mismatches == 0)
        #expect(Double(traffic.reads.load(ordering: .relaxed) - before) <= (reading + 1) * 1000 + 2)
        #expect(log.errors == [])
        live.pager.detach(region)
        live.stop()
    }

    @Test("leave most of a low rate to accesses while one of them is emptied")
    func lowRate() throws {
        let rate = 40
        var slow = file("slow", 64 << 20)
        slow.readLimits = RateLimits(transfers: UInt64(rate))
        let log = HostLog()
        let live = try start([slow, file("below", 64 << 20)], log)
        let memory = try VersionedMemory(pageCount: Self.pages)
        let region = try live.attach(name: "ram", start: memory.start, length: memory.length)
        for page in 0..<memory.pageCount { memory.advance(page) }
        waitUntil { pages(live, 0) >= Self.pages / 4 }
        let traffic = try #require(live.pager.store.tiers[0].traffic)
        let before = traffic.reads.load(ordering: .relaxed)
        let begin = monotonicNow()
        try live.removeTier(0)
        var most = 0.0
        while monotonicNow() < begin + 3_000_000_000 {
            let reads = Double(traffic.reads.load(ordering: .relaxed) - before)
            // A quarter of the burst is for what is not urgent, and then what comes in.
            most = max(most, reads - Double(rate) * Double(monotonicNow() - begin) / 1e9)
            Kernel.sleep(nanoseconds: 1_000_000)
        }
        #expect(most <= Double(rate) / 4 + 1)
        #expect(traffic.reads.load(ordering: .relaxed) - before >= rate, "and it is emptied")
        #expect(log.errors == [])
        live.pager.detach(region)
        live.stop()
    }

    @Test("keep an access waiting for its turn, however often it is woken")
    func wokenWaiter() throws {
        var tier = file("slow", 64 << 20)
        // One page is more than may be read in a minute.
        tier.readLimits = RateLimits(bytes: 8)
        let live = try start([tier], HostLog())
        let memory = try VersionedMemory(pageCount: hugePageSize / pageSize)
        let region = try live.attach(name: "ram", start: memory.start, length: memory.length)
        for page in 0..<memory.pageCount { memory.advance(page) }
        let pages = Array(0..<memory.pageCount)
        #expect(Evictor(pager: live.pager).evict(region, pages[...]) == memory.pageCount)
        #expect(memory.verify(0), "nothing was read before")

        let isDone = Lock(false)
        let reader = try Kernel.Thread(name: "reader") {
            _ = memory.verify(256)
            isDone.withLock { $0 = true }
        }
        // More often than accesses are noted.
        for _ in 0..<1100 {
            let faults = live.pager.counters.faults.value
            live.pager.kernel.wake(start: region.start, length: region.length)
            while live.pager.counters.faults.value == faults, !isDone.withLock({ $0 }) {
                Kernel.sleep(nanoseconds: 10_000)
            }
        }
        #expect(!isDone.withLock { $0 })
        #expect(live.pager.counters.fetches.value == 1)
        live.pager.detach(region)
        reader.join()
        live.stop()
    }

    private func start(_ tiers: [TierOptions], _ log: HostLog) throws -> LivePager {
        try LivePager(
            PagerOptions(
                tracker: .none, store: .tiers(tiers), readErrorAction: .stop,
                limit: Settings.limitMin, idleAge: 0),
            host: log.host)
    }

    private func file(_ name: String, _ size: UInt64) -> TierOptions {
        TierOptions(.file(path: temporaryPath("tier-\(name)")), maxBytes: size)
    }

    private func tier<Value>(_ live: LivePager, _ index: Int, _ value: (Tier<LinuxKernel>) -> Value) -> Value?
    {
        live.pager.store.reading { live.pager.store.tier(TierIndex(index + 1)).map(value) }
    }

    private func exists(_ live: LivePager, _ index: Int) -> Bool { tier(live, index) { _ in true } ?? false }

    private func demotions(_ live: LivePager, _ index: Int) -> UInt64 {
        tier(live, index) { $0.demotions.load(ordering: .relaxed) } ?? 0
    }

    private func pages(_ live: LivePager, _ index: Int) -> Int {
        live.pager.counters.pages(in: TierIndex(index + 1))
    }
}
