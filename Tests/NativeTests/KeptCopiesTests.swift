import Engine
import Kernel
import Testing

/// Pages that were only read since they came from a file leave again without a write.
@Suite("A copy that the file keeps", .serialized)
struct KeptCopiesTests {
    private static let pages = (24 << 20) / pageSize

    private final class Rig {
        let live: LivePager
        let memory: VersionedMemory
        let region: Region
        private let evictor: Evictor<LinuxKernel>

        init(fileSize: UInt64) throws {
            live = try LivePager(
                PagerOptions(
                    tracker: .none, store: .file(path: temporaryPath("copies"), size: fileSize),
                    readErrorAction: .stop, limit: 0, idleAge: 0),
                host: HostLog().host)
            memory = try VersionedMemory(pageCount: pages)
            region = try live.attach(name: "ram", start: memory.start, length: memory.length)
            evictor = Evictor(pager: live.pager)
            for page in 0..<pages { memory.advance(page) }
        }

        var counters: Counters { live.pager.counters }

        /// All that is in memory, a huge page at a time. Returns how many left.
        func evictAll() -> Int {
            (0..<region.hugePageCount).reduce(0) { evicted, index in
                let candidates = Array(region.pages(ofHugePage: index))
                return evicted + evictor.evict(region, candidates[...])
            }
        }

        /// Reads all of it, until all of it is back.
        func mismatches() -> Int {
            let mismatches = (0..<pages).count { !memory.verify($0) }
            // An access may end before the server has noted that its page is back.
            for page in 0..<pages {
                while region.table[page].state != .resident { yieldThread() }
            }
            return mismatches
        }

        func close() {
            live.pager.detach(region)
            live.stop()
        }
    }

    @Test("is good for another eviction when the page was only read")
    func read() throws {
        let rig = try Rig(fileSize: 64 << 20)
        defer { rig.close() }
        #expect(rig.evictAll() == Self.pages)
        #expect(rig.mismatches() == 0)
        #expect(rig.counters.keptCopies.value == Self.pages)
        #expect(rig.evictAll() == Self.pages)
        #expect(rig.counters.cleanEvictions.value == UInt64(Self.pages))
        #expect(rig.counters.keptCopies.value == 0)
        #expect(rig.mismatches() == 0)
    }

    @Test("is dropped when the page was written since")
    func written() throws {
        let rig = try Rig(fileSize: 64 << 20)
        defer { rig.close() }
        _ = rig.evictAll()
        #expect(rig.mismatches() == 0)
        let written = (0..<Self.pages).filter { $0 % 3 == 0 }
        for page in written { rig.memory.advance(page) }
        #expect(rig.evictAll() == Self.pages)
        #expect(rig.counters.cleanEvictions.value == UInt64(Self.pages - written.count))
        #expect(rig.mismatches() == 0)
    }

    @Test("gives way when the file wants room, and to nothing when all is brought back")
    func room() throws {
        // Room for all pages, but not beside the copies of many.
        let rig = try Rig(fileSize: 28 << 20)
        defer { rig.close() }
        _ = rig.evictAll()
        #expect(rig.mismatches() == 0)
        for page in 0..<Self.pages { rig.memory.advance(page) }
        #expect(rig.evictAll() == Self.pages, "copies must not fill the file")
        #expect(rig.counters.writeErrors.value == 0)
        #expect(rig.mismatches() == 0)
        rig.live.pager.settings.setMode(.drain)
        rig.live.settingsChanged()
        let deadline = monotonicNow() + 60_000_000_000
        while rig.counters.keptCopies.value > 0, monotonicNow() < deadline {
            Kernel.sleep(nanoseconds: 10_000_000)
        }
        guard case .log(let log) = rig.live.pager.store.tiers[0].backing else { return }
        #expect(log.segments.liveSectors == 0)
    }
}
