import Engine
import Kernel
import SeededRandom
import Testing

/// What a device sees of a guest, and what becomes of it when the device changes it.
@Suite("A sealed store", .serialized)
struct SealedStoreTests {
    private static let pages = (24 << 20) / pageSize

    private final class Rig {
        let live: LivePager
        let memory: VersionedMemory
        let region: Region
        let file: StolenFile

        init(_ name: String, _ seal: TierOptions.Seal, _ keySource: Sealer.KeySource = .random) throws {
            let path = temporaryPath(name)
            var options = PagerOptions(
                tracker: .none, store: .file(path: path, size: 64 << 20),
                readErrorAction: .machineCheck, limit: 0, idleAge: 0)
            options.seal = seal
            options.keySource = keySource
            live = try LivePager(options, host: HostLog().host)
            file = StolenFile(path: path)
            memory = try VersionedMemory(pageCount: pages)
            region = try live.attach(name: "ram", start: memory.start, length: memory.length)
            let evictor = Evictor(pager: live.pager)
            for page in 0..<pages { memory.advance(page) }
            for index in 0..<region.hugePageCount {
                let candidates = Array(region.pages(ofHugePage: index))
                let evicted = evictor.evict(region, candidates[...])
                #expect(evicted == candidates.count)
            }
        }

        func close() {
            live.pager.detach(region)
            live.stop()
        }
    }

    /// Words of the guest's that can be told from noise: each names its page and version.
    private func wordsInTheClear(_ contents: [UInt8]) -> Int {
        contents.withUnsafeBytes { bytes in
            // LZ4 moves them off their boundaries.
            stride(from: 0, to: bytes.count - 8, by: 1).count { offset in
                let word = bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
                return word & 0xffff_ffff == 1 && word >> 32 > 0 && word >> 32 < UInt64(Self.pages)
            }
        }
    }

    @Test("shows nothing of the guest; one that is not sealed does")
    func confidential() throws {
        let given = try Array("sixteen bytes or more".utf8).withUnsafeBytes { try SealSecret($0) }
        let choices: [(String, TierOptions.Seal, Sealer.KeySource)] = [
            ("sealed", .automatic, .random), ("secret", .automatic, .derived(given)),
            ("clear", .off, .random),
        ]
        for (name, choice, keySource) in choices {
            let rig = try Rig(name, choice, keySource)
            defer { rig.close() }
            let contents = rig.file.takeAway()
            rig.file.giveBack(contents)
            if choice == .off {
                #expect(wordsInTheClear(contents) > Self.pages / 2)
            } else {
                #expect(wordsInTheClear(contents) == 0)
            }
            #expect((0..<Self.pages).count { !rig.memory.verify($0) } == 0)
        }
    }

    @Test("is the tier that is added to one in the clear, unless that is to be in the clear, too")
    func addedTiers() throws {
        var options = PagerOptions(
            tracker: .none, store: .file(path: temporaryPath("clear"), size: 64 << 20),
            readErrorAction: .stop, limit: 0, idleAge: 0)
        options.seal = .off
        let live = try LivePager(options, host: HostLog().host)
        defer { live.stop() }
        #expect(live.sealName == nil)
        func add(_ name: String, _ seal: TierOptions.Seal) throws -> Bool {
            var tier = TierOptions(.file(path: temporaryPath(name)), maxBytes: 64 << 20)
            tier.seal = seal
            let index = TierIndex(try live.addTier(tier) + 1)
            guard case .log(let log)? = live.pager.store.tier(index)?.backing else { return false }
            return log.cipher != nil
        }
        #expect(try add("sealed", .automatic))
        #expect(try !add("clear-too", .off))
    }

    @Test("gives right bytes or an error, whatever bits of it are changed")
    func damage() throws {
        let rig = try Rig("damaged", .automatic)
        defer { rig.close() }
        var contents = rig.file.takeAway()
        let seed = seedForThisRun()
        print("seed \(seed)")
        var random = SplitMix(seed: seed)
        for offset in stride(from: 0, to: contents.count, by: 4096) {
            contents[offset + Int(random.next() % 4096)] ^= 1 << UInt8(random.next() % 8)
        }
        rig.file.giveBack(contents)
        var wrong = 0
        var lost = 0
        for page in 0..<Self.pages {
            if readBySystemCall(rig.region.address(of: page)) != 0 {
                lost += 1
            } else if !rig.memory.verify(page) {
                wrong += 1
            }
        }
        #expect(wrong == 0)
        #expect(lost > Self.pages / 10 && lost < Self.pages)
        #expect(rig.live.pager.counters.poisonedPages.value == UInt64(lost))
        #expect(rig.live.pager.counters.readErrors.value >= UInt64(lost))
    }
}

/// Compressed memory that is sealed, and what becomes of the guest when bits of it change.
@Suite("Sealed memory", .serialized)
struct SealedMemoryTests {
    private static let pages = (24 << 20) / pageSize

    @Test("gives right bytes or an error, whatever bits of it are changed")
    func damage() throws {
        let seed = seedForThisRun()
        print("seed \(seed)")
        var random = SplitMix(seed: seed)
        var tier = TierOptions(.compressed)
        tier.seal = .on
        tier.incompressible = .keepRaw
        let live = try LivePager(
            PagerOptions(
                tracker: .none, store: .tiers([tier]), readErrorAction: .machineCheck, limit: 0, idleAge: 0),
            host: HostLog().host)
        let memory = try VersionedMemory(pageCount: Self.pages)
        let region = try live.attach(name: "ram", start: memory.start, length: memory.length)
        let evictor = Evictor(pager: live.pager)
        for page in 0..<Self.pages { memory.advance(page) }
        for index in 0..<region.hugePageCount {
            let candidates = Array(region.pages(ofHugePage: index))
            #expect(evictor.evict(region, candidates[...]) == candidates.count)
        }
        guard case .compressed(let store) = live.pager.store.tier(TierIndex(1))?.backing else {
            Issue.record("no compressed memory")
            return
        }
        #expect(store.cipher == .best)
        var damaged: Set<Int> = []
        for page in 0..<Self.pages where random.next() % 3 == 0 {
            let place = Locator(payload: region.table[page].payload)
            guard place.tier == TierIndex(1) else { continue }
            let object = store.pool.data(place.place)
            object[Int(random.next() % UInt64(object.count))] ^= 1 << UInt8(random.next() % 8)
            damaged.insert(page)
        }
        #expect(damaged.count > Self.pages / 10)
        var wrong = 0
        var lost: Set<Int> = []
        for page in 0..<Self.pages {
            if readBySystemCall(region.address(of: page)) != 0 {
                lost.insert(page)
            } else if !memory.verify(page) {
                wrong += 1
            }
        }
        #expect(wrong == 0)
        #expect(lost == damaged)
        #expect(live.pager.counters.poisonedPages.value == UInt64(damaged.count))
        #expect(live.pager.store.tier(TierIndex(1))!.readErrors.value >= UInt64(damaged.count))
        live.pager.detach(region)
        live.stop()
    }
}
