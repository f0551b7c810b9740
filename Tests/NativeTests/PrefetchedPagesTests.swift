import Engine
import Kernel
import Testing

@Suite("Pages that come early")
struct PrefetchedPagesTests {
    @Test("look cold until they are used")
    func tracked() throws { try lookCold(.writeProtection) }

    @Test(
        "look cold until they are used: read-write protection",
        .enabled(if: hasReadWriteProtection, "this kernel has no userfaultfd read-write protection"))
    func readWriteProtected() throws { try lookCold(.readWriteProtection) }

    private func lookCold(_ tracker: PagerOptions.TrackerChoice) throws {
        let pages = 1024
        let live = try LivePager(
            PagerOptions(
                tracker: tracker, store: .compressed, readErrorAction: .stop, limit: 0, idleAge: 0),
            host: HostLog().host)
        let counters = live.pager.counters
        func set(_ mode: Mode) {
            live.pager.settings.setMode(mode)
            live.settingsChanged()
        }
        set(.off)
        let memory = try VersionedMemory(pageCount: pages)
        for page in 0..<pages { memory.advance(page) }
        let region = try live.attach(name: "ram", start: memory.start, length: memory.length)
        let evictor = Evictor(pager: live.pager)
        for index in 0..<region.hugePageCount {
            _ = evictor.evict(region, Array(region.pages(ofHugePage: index))[...])
        }
        #expect(counters.evictions.value == UInt64(pages))

        let used = 0..<80
        for page in used {
            memory.advance(page)
            Kernel.sleep(nanoseconds: 1_000_000)  // slower than what comes early
        }
        // What an access to the last of them has coming early, comes after it.
        waitUntil { counters.fetches.value > used.count }
        let early = Int(counters.fetches.value) - used.count
        let passes = counters.passes.value
        set(.active)
        waitUntil { counters.passes.value > passes }
        print("\(early) pages came early and were not used, \(counters.touchedPages.value) look touched")
        #expect(early > 0)
        // The touch of a page that comes just now may be overlooked: it is as young as its arrival.
        #expect(counters.touchedPages.value <= used.count)
        #expect(counters.touchedPages.value >= used.count / 2)

        for page in 0..<pages { #expect(memory.verify(page)) }
        live.pager.detach(region)
        live.stop()
    }
}
