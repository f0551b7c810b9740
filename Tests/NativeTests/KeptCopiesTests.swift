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

        convenience init(fileSize: UInt64) throws {
            try self.init(.file(path: temporaryPath("copies"), size: fileSize))
        }

        init(_ store: PagerOptions.StoreChoice) throws {
            live = try LivePager(
                PagerOptions(
                    tracker: .none, store: store,
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

    @Test("is a word for a page that it fills, wherever others go")
    func sameFilled() throws {
        let rig = try Rig(.compressed)
        defer { rig.close() }
        let filled = (0..<Self.pages).filter { $0 % 2 == 0 }
        func address(_ page: Int) -> UnsafeMutableRawPointer {
            UnsafeMutableRawPointer(bitPattern: UInt(rig.region.address(of: page)))!
        }
        for page in filled { fill(address(page), with: UInt64(page % 3)) }
        #expect(rig.evictAll() == Self.pages)
        for page in 0..<Self.pages {
            #expect(
                page % 2 == 0
                    ? address(page).load(as: UInt64.self) == UInt64(page % 3) : rig.memory.verify(page))
        }
        for page in 0..<Self.pages { while rig.region.table[page].state != .resident { yieldThread() } }
        #expect(rig.counters.keptCopies.value == filled.count, "memory keeps no copies of others")
        #expect(filled.allSatisfy { rig.region.table[$0].namesCopy }, "what leaves first, among equals")

        let written = filled.filter { $0 % 3 != 2 && $0 % 5 == 0 }
        for page in written { address(page).storeBytes(of: 7, toByteOffset: 8, as: UInt64.self) }
        #expect(rig.evictAll() == Self.pages)
        #expect(rig.counters.cleanEvictions.value == UInt64(filled.count - written.count))
        #expect(rig.counters.keptCopies.value == 0)
        for page in filled {
            let isWritten = page % 3 != 2 && page % 5 == 0
            #expect(address(page).load(as: UInt64.self) == UInt64(page % 3))
            #expect(
                address(page).load(fromByteOffset: 8, as: UInt64.self) == (isWritten ? 7 : UInt64(page % 3)))
        }
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
