import Engine
import Kernel
import Testing

@Suite("The compressed pool")
struct CompressedPoolTests {
    @Test("keeps objects of all sizes apart", arguments: UInt64(1)...5)
    func apart(seed: UInt64) throws {
        var random = Generator(seed)
        let pool = try CompressedPool(capacity: 64 << 20)
        var live: [(place: UInt64, mark: UInt8, length: Int)] = []
        for step in 0..<20_000 {
            if random.below(3) == 0, !live.isEmpty {
                let object = live.remove(at: random.below(live.count))
                let data = pool.data(object.place)
                #expect(data.count == object.length)
                #expect(data.first == object.mark && data.last == object.mark)
                pool.free(object.place)
            } else {
                let length = 1 + random.below(SizeClass.largest)
                let place = try #require(pool.allocate(length: length))
                let mark = UInt8(truncatingIfNeeded: step)
                pool.data(place).initializeMemory(as: UInt8.self, repeating: mark)
                live.append((place, mark, length))
            }
        }
        #expect(pool.payloadBytes == live.reduce(0) { $0 + $1.length })
        for object in live { pool.free(object.place) }
        #expect(pool.payloadBytes == 0)
    }

    @Test("wastes at most 8 % on a mix of sizes")
    func waste() throws {
        var random = Generator(1)
        let pool = try CompressedPool(capacity: 256 << 20)
        for _ in 0..<40_000 {
            // Two draws: most pages of real programs compress to the middle of the range.
            let length = 1 + (random.below(SizeClass.largest) + random.below(SizeClass.largest)) / 2
            _ = try #require(pool.allocate(length: length))
        }
        #expect(Double(pool.heldBytes) <= Double(pool.payloadBytes) * 1.08)
    }

    @Test("gives memory back once its objects are gone, but not at every breath")
    func trim() throws {
        let pool = try CompressedPool(capacity: 64 << 20)
        let places = try (0..<5000).map { _ in try #require(pool.allocate(length: 2000)) }
        let held = pool.heldBytes
        for place in places { pool.free(place) }
        #expect(pool.heldBytes == held)
        pool.trim()
        #expect(pool.heldBytes == 4 * SizeClass.slabSize)
    }

    @Test("needs no memory beside its slabs, but a bit for each slab it gave back")
    func bookkeeping() throws {
        let pool = try CompressedPool(capacity: 64 << 20)
        let places = try (0..<5000).map { _ in try #require(pool.allocate(length: 2000)) }
        #expect(pool.metadataBytes == 0)
        for place in places { pool.free(place) }
        pool.trim()
        #expect(pool.metadataBytes == pageSize)
        #expect(try #require(pool.allocate(length: 2000)) < places.max()!)
    }

    @Test("uses freed memory again, for any size")
    func reuse() throws {
        let pool = try CompressedPool(capacity: 4 * SizeClass.slabSize)
        for length in [64, 1000, SizeClass.largest, 1] {
            var places: [UInt64] = []
            while let place = pool.allocate(length: length) { places.append(place) }
            #expect(places.count == 4 * SizeClass.objectsPerSlab(SizeClass.of(bytes: length)))
            for place in places { pool.free(place) }
            pool.trim()
        }
    }
}

@Suite("Same-filled pages")
struct SameFilledTests {
    @Test("are told from pages that differ in a single word", arguments: [0, 1, 255, 256, 257, 511])
    func oneWord(different: Int) throws {
        let page = try Mapping(length: pageSize)
        fill(page.base, with: 0xfeed_f00d)
        #expect(sameFilledWord(page.base) == 0xfeed_f00d)
        page.base.storeBytes(of: 1, toByteOffset: different * 8, as: UInt64.self)
        #expect(sameFilledWord(page.base) == nil)
    }

    @Test("cost a word each, and zero pages nothing")
    func words() throws {
        let table = try WordTable(capacity: 511)
        let zero = try #require(table.put(0))
        #expect(table.get(zero) == 0 && table.usedBytes == 0)
        let places = try (1...511).map { try #require(table.put(UInt64($0))) }
        #expect(table.put(99) == nil)
        #expect(table.put(0) == zero)
        #expect(table.usedBytes == 511 * 8)
        for (index, place) in places.enumerated() { #expect(table.get(place) == UInt64(index + 1)) }
        table.drop(places[7])
        #expect(table.put(99) == places[7])
        #expect(table.get(places[8]) == 9)
    }
}

/// SplitMix64: a failure names its seed, and the seed repeats it.
struct Generator {
    private var state: UInt64
    init(_ seed: UInt64) { state = seed }

    mutating func below(_ bound: Int) -> Int {
        state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = state
        mixed = (mixed ^ mixed >> 30) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ mixed >> 27) &* 0x94d0_49bb_1331_11eb
        return Int((mixed ^ mixed >> 31) % UInt64(bound))
    }
}
