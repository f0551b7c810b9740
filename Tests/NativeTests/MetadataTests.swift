import Engine
import Kernel
import Testing

/// What the pager itself costs the host, beside what it stores.
@Suite("The pager's bookkeeping", .serialized)
struct MetadataTests {
    /// 1 GiB: a few pages of memory that any pager needs weigh little in it.
    private static let pages = (1 << 30) / pageSize

    /// How a pager stores pages.
    enum Storing: String {
        case compressed
        case file

        var choice: PagerOptions.StoreChoice {
            switch self {
            case .compressed: .compressed
            case .file: .file(path: temporaryPath("metadata"), size: 2 << 30)
            }
        }
    }

    @Test(
        "is at most 0.2 % of memory that is out, and next to nothing when nothing is",
        arguments: [Storing.compressed, .file])
    func bounds(_ storing: Storing) throws {
        let live = try LivePager(
            PagerOptions(
                tracker: .none, store: storing.choice, readErrorAction: .stop, limit: 0, idleAge: 0),
            host: HostLog().host)
        let memory = try VersionedMemory(pageCount: Self.pages)
        let region = try live.attach(name: "ram", start: memory.start, length: memory.length)
        for page in 0..<Self.pages { memory.advance(page) }
        let counters = live.pager.counters
        /// In thousandths of a per cent of the memory.
        func measured(in mode: Mode) -> Int {
            counters.metadataBytes.store(-1, ordering: .relaxed)
            live.pager.settings.setMode(mode)
            live.settingsChanged()
            waitUntil { counters.metadataBytes.value >= 0 }
            return counters.metadataBytes.value * 100_000 / Int(memory.length)
        }
        let before = measured(in: .active)

        // The worker rests while the test does its work.
        live.pager.settings.setMode(.off)
        let evictor = Evictor(pager: live.pager)
        for index in 0..<region.hugePageCount {
            _ = evictor.evict(region, Array(region.pages(ofHugePage: index))[...])
        }
        #expect(counters.evictedPages == Self.pages)
        let out = measured(in: .active)
        #expect(out <= 200)

        live.pager.settings.setMode(.drain)
        live.settingsChanged()
        waitUntil { counters.evictedPages == 0 && region.fetchesInFlight.value == 0 }
        let back = measured(in: .drain)
        #expect(back <= 20)
        print(
            "\(storing.rawValue): bookkeeping, in 0.001 % of the memory: \(before) before anything left, "
                + "\(out) when everything was out, \(back) when everything was back")
        #expect((0..<Self.pages).count { !memory.verify($0) } == 0)
        live.pager.detach(region)
        live.stop()
    }
}
