import Engine
import Kernel
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

        init(_ name: String, _ seal: PagerOptions.SealChoice) throws {
            let path = temporaryPath(name)
            var options = PagerOptions(
                tracker: .none, store: .file(path: path, size: 64 << 20),
                readErrorAction: .machineCheck, limit: 0, idleAge: 0)
            options.seal = seal
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
        let secret = PagerOptions.SealChoice.automatic(.derived(given))
        for (name, choice) in [("sealed", .automatic(.random)), ("secret", secret), ("clear", .off)] {
            let rig = try Rig(name, choice)
            defer { rig.close() }
            let contents = rig.file.takeAway()
            rig.file.giveBack(contents)
            if case .off = choice {
                #expect(wordsInTheClear(contents) > Self.pages / 2)
            } else {
                #expect(wordsInTheClear(contents) == 0)
            }
            #expect((0..<Self.pages).count { !rig.memory.verify($0) } == 0)
        }
    }

    @Test("gives right bytes or an error, whatever bits of it are changed")
    func damage() throws {
        let rig = try Rig("damaged", .automatic(.random))
        defer { rig.close() }
        var contents = rig.file.takeAway()
        let seed = seedForThisRun()
        print("seed \(seed)")
        var random = Noise(seed)
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

/// SplitMix64, so that a failure can be repeated.
private struct Noise {
    private var state: UInt64
    init(_ seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = state
        mixed = (mixed ^ mixed >> 30) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ mixed >> 27) &* 0x94d0_49bb_1331_11eb
        return mixed ^ mixed >> 31
    }
}
