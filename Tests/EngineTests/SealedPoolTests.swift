import Engine
import Kernel
import PageCorpus
import SeededRandom
import Testing

@Suite("A sealed compressed store")
struct SealedPoolTests {
    /// Pages of a store, and where they are.
    private final class Rig {
        let store: CompressedStore
        let buffer: Mapping
        private let source: Mapping

        init(_ options: CompressedStoreOptions = CompressedStoreOptions(incompressible: .keepRaw)) throws {
            store = try CompressedStore(options, sealer: try Sealer())
            buffer = try Mapping(length: 3 * pageSize)
            source = try Mapping(length: pageSize)
        }

        func put(_ page: [UInt8], as number: UInt32) -> UInt64? {
            source.base.copyMemory(from: page, byteCount: pageSize)
            let put = PagePut(
                address: UInt64(UInt(bitPattern: source.base)),
                identity: PageIdentity(block: 1, page: number))
            var outcome = [PutOutcome.refused(.full)]
            [put].withUnsafeBufferPointer { puts in
                outcome.withUnsafeMutableBufferPointer { store.put(puts, outcomes: $0) }
            }
            if case .stored(let place) = outcome[0] { return place }
            return nil
        }

        /// Nil, and the reason in `failure`, when it does not open.
        func get(_ place: UInt64, as number: UInt32, block: UInt32 = 1) -> [UInt8]? {
            outcome = store.get(
                place, PageIdentity(block: block, page: number),
                into: FetchBuffer(page: buffer.base, raw: buffer.base + pageSize), token: 0)
            guard outcome == .ready else { return nil }
            return Array(UnsafeRawBufferPointer(start: buffer.base, count: pageSize))
        }
        private(set) var outcome = GetOutcome.pending
    }

    /// As much noise as asked for, and then one byte only.
    private func page(noise: Int, _ seed: UInt64) -> [UInt8] {
        var random = SplitMix(seed: seed)
        return (0..<pageSize).map { $0 < noise ? UInt8(random.below(256)) : UInt8(5) }
    }

    @Test(
        "gives back what it was given, whatever its size",
        arguments: [Compression.lz4, .zstd(level: 3)])
    func roundTrip(compression: Compression) throws {
        let rig = try Rig(CompressedStoreOptions(compression: compression, incompressible: .keepRaw))
        var places: [(place: UInt64, page: [UInt8])] = []
        for noise in stride(from: 0, through: pageSize, by: 37) {
            let page = page(noise: noise, UInt64(noise))
            places.append((try #require(rig.put(page, as: UInt32(places.count))), page))
        }
        #expect(rig.store.pool.rawPageCount > 0)
        for (number, stored) in places.enumerated() {
            #expect(rig.get(stored.place, as: UInt32(number)) == stored.page)
            rig.store.drop(stored.place)
        }
        #expect(rig.store.pool.payloadBytes == 0)
    }

    @Test("keeps nothing in the clear, and a page differently each time")
    func confidential() throws {
        let rig = try Rig()
        let page = page(noise: pageSize, 1)
        let places = try (0..<2).map { _ in try #require(rig.put(page, as: 7)) }
        let objects = places.map { Array(rig.store.pool.data($0)) }
        #expect(objects[0].count == pageSize && objects[1].count == pageSize)
        for object in objects {
            #expect((0..<pageSize - 4).allSatisfy { object[$0..<$0 + 4] != page[$0..<$0 + 4] })
        }
        #expect(objects[0] != objects[1])
    }

    @Test("does not open with any bit of an object or its seal changed", arguments: [60, pageSize])
    func bitFlips(noise: Int) throws {
        let rig = try Rig()
        let page = page(noise: noise, 3)
        let place = try #require(rig.put(page, as: 7))
        let object = rig.store.pool.data(place)
        var opened = 0
        for bytes in [object, rig.store.pool.seal(place)] {
            for bit in 0..<bytes.count * 8 {
                bytes[bit / 8] ^= 1 << UInt8(bit % 8)
                if rig.get(place, as: 7) != nil || rig.outcome != .failed(.badMessage) { opened += 1 }
                bytes[bit / 8] ^= 1 << UInt8(bit % 8)
            }
        }
        #expect(opened == 0)
        #expect(rig.get(place, as: 7) == page)
    }

    @Test("does not open for another page, or from another time")
    func bound() throws {
        let rig = try Rig()
        let places = try (0..<2).map { try #require(rig.put(page(noise: pageSize, $0), as: 7)) }
        let other = try #require(rig.put(page(noise: pageSize, 2), as: 8))
        #expect(rig.get(places[1], as: 7) != nil)
        #expect(rig.get(places[1], as: 8) == nil)
        #expect(rig.get(places[1], as: 7, block: 2) == nil)
        let pool = rig.store.pool
        // What the page was before.
        pool.data(places[1]).copyMemory(from: UnsafeRawBufferPointer(pool.data(places[0])))
        #expect(rig.get(places[1], as: 7) == nil)
        // Another page, with its seal.
        pool.data(places[0]).copyMemory(from: UnsafeRawBufferPointer(pool.data(other)))
        pool.seal(places[0]).copyMemory(from: UnsafeRawBufferPointer(pool.seal(other)))
        #expect(rig.get(places[0], as: 7) == nil)
        #expect(rig.get(places[0], as: 8) != nil)
    }

    @Test("opens what compaction has moved, and keeps its ceiling", arguments: UInt64(1)...3)
    func compaction(seed: UInt64) throws {
        let bytesMax = 16 << 20
        let rig = try Rig(CompressedStoreOptions(incompressible: .keepRaw, bytesMax: bytesMax))
        let pool = rig.store.pool
        var random = SplitMix(seed: seed)
        var pages: [(place: UInt64, number: UInt32, noise: Int)] = []
        var number: UInt32 = 0
        var refusals = 0
        var moves = 0
        for _ in 0..<4 {
            while refusals < 50 {
                // Small ones first: their seals fill pages of their own.
                let noise = random.below(random.below(pageSize) + 1)
                number += 1
                guard let place = rig.put(page(noise: noise, UInt64(number)), as: number) else {
                    refusals += 1
                    continue
                }
                pages.append((place, number, noise))
            }
            #expect(pool.heldBytes + pool.metadataBytes <= bytesMax)
            #expect(pool.residentBytes == pool.heldBytes)
            refusals = 0
            for _ in 0..<pages.count * 2 / 3 {
                pages.swapAt(random.below(pages.count), pages.count - 1)
                pool.free(pages.removeLast().place)
            }
            guard rig.store.compaction.begin(gainMin: 1) else { continue }
            for index in pages.indices where rig.store.compaction.concerns(pages[index].place) {
                guard let better = rig.store.compaction.copy(pages[index].place) else { continue }
                pool.free(pages[index].place)
                pages[index].place = better
                moves += 1
            }
            rig.store.compaction.end()
            #expect(pool.residentBytes == pool.heldBytes)
        }
        #expect(moves > 1000)
        let wrong = pages.count {
            rig.get($0.place, as: $0.number) != page(noise: $0.noise, UInt64($0.number))
        }
        #expect(wrong == 0)
        for page in pages { pool.free(page.place) }
        pool.trim()
        #expect(pool.heldBytes <= 2 * SizeClass.slabSize)
        #expect(pool.residentBytes == pool.heldBytes)
    }

    @Test("wastes little more than one that is not sealed: the seals")
    func waste() throws {
        let corpus = try PageCorpus(pagesOfEach: 500)
        let stores = [
            try CompressedStore(), try CompressedStore(sealer: try Sealer()),
        ]
        var pages: [PagePut] = []
        for page in 0..<corpus.count {
            let identity = PageIdentity(block: 1, page: UInt32(page))
            pages.append(PagePut(address: UInt64(UInt(bitPattern: corpus[page])), identity: identity))
        }
        var outcomes = [PutOutcome](repeating: .refused(.full), count: pages.count)
        for store in stores {
            pages.withUnsafeBufferPointer { pages in
                outcomes.withUnsafeMutableBufferPointer { store.put(pages, outcomes: $0) }
            }
        }
        let (plain, sealed) = (stores[0].pool, stores[1].pool)
        let objects = outcomes.count { if case .stored = $0 { true } else { false } }
        #expect(objects > 1000)
        #expect(plain.payloadBytes == sealed.payloadBytes)
        let more = sealed.heldBytes - plain.heldBytes
        // What is not filled yet may differ from class to class.
        #expect(more < objects * 24 + plain.heldBytes / 10, "\(more) for \(objects)")
    }
}
