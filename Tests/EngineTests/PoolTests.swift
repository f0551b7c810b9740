import Engine
import Kernel
import PageCorpus
import SeededRandom
import Testing

/// Objects in a pool, each filled with bytes that tell it, and their owner, who can be told
/// that they have moved.
private struct Objects {
    let pool: CompressedPool
    let compaction: PoolCompaction
    var random: SplitMix
    private(set) var places: [(place: UInt64, length: Int, mark: UInt8)] = []
    /// Most that the pool has held, bookkeeping included.
    private(set) var heldMax = 0

    init(_ options: CompressedStoreOptions = CompressedStoreOptions(), seed: UInt64) throws {
        let store = try CompressedStore(options)
        pool = store.pool
        compaction = store.compaction
        random = SplitMix(seed: seed)
    }

    /// False when the pool is full.
    mutating func add(_ length: Int) -> Bool {
        let place = pool.take(length: length)
        heldMax = max(heldMax, pool.heldBytes + pool.metadataBytes)
        guard let place else { return false }
        let mark = UInt8(truncatingIfNeeded: random.below(256))
        pool.data(place).initializeMemory(as: UInt8.self, repeating: mark)
        places.append((place, length, mark))
        return true
    }

    mutating func addSurely(_ length: Int) {
        let isAdded = add(length)
        #expect(isAdded)
    }

    mutating func removeAny() {
        places.swapAt(random.below(places.count), places.count - 1)
        let object = places.removeLast()
        check(object)
        pool.free(object.place)
    }

    mutating func removeAll() {
        while !places.isEmpty { removeAny() }
    }

    func check(_ object: (place: UInt64, length: Int, mark: UInt8)) {
        let data = pool.data(object.place)
        #expect(data.count == object.length)
        #expect(data.allSatisfy { $0 == object.mark })
    }

    /// One whole compaction; returns how many objects were moved.
    mutating func compact(gainMin: Int = 1) -> Int {
        guard compaction.begin(gainMin: gainMin) else { return 0 }
        var moves = 0
        for index in places.indices where compaction.concerns(places[index].place) {
            guard let better = compaction.copy(places[index].place) else { continue }
            // Now and then the owner has changed its mind.
            if random.below(20) == 0 {
                pool.free(better)
            } else {
                pool.free(places[index].place)
                places[index].place = better
                moves += 1
            }
        }
        heldMax = max(heldMax, pool.heldBytes + pool.metadataBytes)
        compaction.end()
        return moves
    }

    /// What the pool holds beyond the sum of its objects, as a share of that.
    var waste: Double { Double(pool.heldBytes) / Double(pool.payloadBytes) - 1 }
}

private let corpus = Result { try PageCorpus(pagesOfEach: 1000) }

/// Lengths that pages really compress to: of programs, of text and of what lies between.
private func realLengths(_ compression: Compression) throws -> [Int] {
    let pages = try corpus.get()
    let compressor = try Compressor(compression)
    let scratch = try Mapping(length: pageSize)
    var lengths: [Int] = []
    for page in 0..<pages.count {
        let length = compressor.compress(pages[page], into: scratch.base, room: SizeClass.largest)
        if length > 0 { lengths.append(length) }
    }
    return lengths
}

@Suite("The compressed pool")
struct CompressedPoolTests {
    @Test("keeps objects of all sizes apart, and knows what it holds", arguments: UInt64(1)...5)
    func apart(seed: UInt64) throws {
        var objects = try Objects(seed: seed)
        for _ in 0..<20_000 {
            if objects.random.below(3) == 0, !objects.places.isEmpty {
                objects.removeAny()
            } else {
                objects.addSurely(1 + objects.random.below(pageSize))
            }
        }
        let pool = objects.pool
        #expect(pool.payloadBytes == objects.places.reduce(0) { $0 + $1.length })
        #expect(pool.rawPageCount == objects.places.count { $0.length == pageSize })
        #expect(pool.heldBytes == pool.residentBytes)
        objects.removeAll()
        #expect(pool.payloadBytes == 0 && pool.rawPageCount == 0)
        pool.trim()
        #expect(pool.heldBytes == pool.residentBytes)
    }

    @Test(
        "wastes at most 8 % on real pages, full, after turnover, and when most are gone",
        arguments: [Compression.lz4, .zstd(level: 1)])
    func waste(compression: Compression) throws {
        let lengths = try realLengths(compression)
        var objects = try Objects(seed: 1)
        func next() -> Int { lengths[objects.random.below(lengths.count)] }
        while objects.pool.payloadBytes < 48 << 20 { objects.addSurely(next()) }
        #expect(objects.waste <= 0.08)
        // As the pager asks for it: when there is a thirty-second to be gained.
        for _ in 0..<3 {
            for _ in objects.places.indices {
                objects.removeAny()
                objects.addSurely(next())
            }
            _ = objects.compact(gainMin: objects.pool.heldBytes / 32)
            #expect(objects.waste <= 0.08)
        }
        let before = objects.places.count
        while objects.places.count > before / 4 { objects.removeAny() }
        objects.pool.trim()
        #expect(objects.waste > 0.08, "otherwise this shows nothing of compaction")
        var moves = objects.compact()
        // At most so many slabs of a class are emptied at a time.
        for _ in 0..<5 { moves += objects.compact(gainMin: objects.pool.heldBytes / 32) }
        #expect(objects.waste <= 0.08)
        #expect(moves < objects.places.count)
        #expect(objects.pool.heldBytes == objects.pool.residentBytes)
        for object in objects.places { objects.check(object) }
    }

    @Test("takes, frees and moves in any order", arguments: UInt64(1)...10)
    func compaction(seed: UInt64) throws {
        var objects = try Objects(CompressedStoreOptions(bytesMax: 16 << 20), seed: seed)
        for _ in 0..<30 {
            let shrinks = objects.random.below(2) == 0
            for _ in 0..<500 {
                if shrinks, !objects.places.isEmpty {
                    objects.removeAny()
                } else {
                    _ = objects.add(1 + objects.random.below(objects.random.below(pageSize) + 1))
                }
            }
            _ = objects.compact()
            objects.pool.trim()
            #expect(objects.pool.heldBytes == objects.pool.residentBytes)
        }
        for object in objects.places { objects.check(object) }
        objects.removeAll()
        #expect(objects.compact() == 0)
        #expect(objects.pool.payloadBytes == 0)
    }

    @Test("takes and frees while a compaction is under way", arguments: UInt64(1)...10)
    func interleaved(seed: UInt64) throws {
        var objects = try Objects(CompressedStoreOptions(bytesMax: 4 << 20), seed: seed)
        while objects.add(1 + objects.random.below(SizeClass.largest)) {}
        for _ in 0..<10 {
            for _ in 0..<objects.places.count / 2 { objects.removeAny() }
            let isUnderWay = objects.compaction.begin(gainMin: 1)
            #expect(isUnderWay)
            // Into slabs that are being emptied too, before it is said that there is no room.
            while objects.add(1 + objects.random.below(SizeClass.largest)) {}
            for _ in 0..<objects.places.count / 3 { objects.removeAny() }
            objects.compaction.end()
        }
        for object in objects.places { objects.check(object) }
    }

    @Test("never holds more than it may, whatever comes", arguments: UInt64(1)...5)
    func ceiling(seed: UInt64) throws {
        let bytesMax = 8 << 20
        var objects = try Objects(CompressedStoreOptions(bytesMax: bytesMax), seed: seed)
        var refusals = 0
        for _ in 0..<20 {
            // A storm of one kind of size, and some of it goes again.
            let longest = 1 + objects.random.below(pageSize)
            for _ in 0..<4000 {
                if objects.random.below(10) == 0, !objects.places.isEmpty { objects.removeAny() }
                if !objects.add(1 + objects.random.below(longest)) { refusals += 1 }
            }
            for _ in 0..<objects.random.below(objects.places.count) { objects.removeAny() }
            if objects.random.below(2) == 0 { _ = objects.compact() }
        }
        #expect(refusals > 1000)
        #expect(objects.heldMax <= bytesMax)
        #expect(objects.heldMax > bytesMax - (64 << 10))
        #expect(objects.pool.residentBytes <= bytesMax)
        objects.removeAll()
        objects.pool.trim()
        #expect(objects.pool.heldBytes <= 2 * SizeClass.slabSize)
    }

    @Test("uses freed memory again, for any size")
    func reuse() throws {
        var objects = try Objects(CompressedStoreOptions(bytesMax: 4 << 20), seed: 1)
        for length in [64, 1000, SizeClass.largest, pageSize, 1] {
            while objects.add(length) {}
            let held = Double(objects.pool.heldBytes)
            #expect(held > Double(4 << 20) * 0.97)
            if length >= 64 { #expect(Double(objects.pool.payloadBytes) > held * 0.95) }
            objects.removeAll()
        }
    }

    @Test("gives memory back once its objects are gone, but not at every breath")
    func trim() throws {
        var objects = try Objects(seed: 1)
        for _ in 0..<5000 { objects.addSurely(2000) }
        let held = objects.pool.heldBytes
        objects.removeAll()
        #expect(objects.pool.heldBytes == held)
        objects.pool.trim()
        #expect(objects.pool.heldBytes == 2 * SizeClass.slabSize)
    }

    @Test("needs no memory beside its slabs, but a bit for each slab it gave back")
    func bookkeeping() throws {
        var objects = try Objects(seed: 1)
        for _ in 0..<5000 { objects.addSurely(2000) }
        #expect(objects.pool.metadataBytes == 0)
        let last = objects.places.map(\.place).max()!
        objects.removeAll()
        objects.pool.trim()
        #expect(objects.pool.metadataBytes == pageSize)
        #expect(try #require(objects.pool.take(length: 2000)) < last)
    }
}

@Suite("The compressed store")
struct CompressedStoreTests {
    @Test(
        "gives back what it was given, whatever the codec",
        arguments: [Compression.lz4] + Compression.zstdLevels.map { .zstd(level: $0) })
    func roundTrip(compression: Compression) throws {
        let store = try CompressedStore(CompressedStoreOptions(compression: compression))
        let pages = try corpus.get()
        let buffer = try Mapping(length: pageSize)
        var stored = 0
        for page in stride(from: 0, to: pages.count, by: 61) {
            guard case .stored(let place) = store.put(pages[page]) else { continue }
            stored += 1
            #expect(store.get(place, into: buffer) == .ready)
            #expect(isEqual(buffer.base, pages[page]))
            store.drop(place)
        }
        #expect(stored > 40)
        #expect(store.pool.payloadBytes == 0)
    }

    @Test("compresses text better with zstd than with LZ4, and best with its highest level")
    func ratios() throws {
        let pages = try corpus.get()
        func bytes(_ compression: Compression) throws -> Int {
            let compressor = try Compressor(compression)
            let scratch = try Mapping(length: pageSize)
            var bytes = 0
            for page in pages.pages(of: "text") {
                bytes += compressor.compress(pages[page], into: scratch.base, room: pageSize)
            }
            return bytes
        }
        let (quick, better, best) = try (bytes(.lz4), bytes(.zstd(level: 1)), bytes(.zstd(level: 19)))
        #expect(better < quick && best < better)
    }

    @Test("notices data that no page was compressed to", arguments: [Compression.lz4, .zstd(level: 3)])
    func damage(compression: Compression) throws {
        let decompressor = try Decompressor(compression)
        let page = try Mapping(length: pageSize)
        let noise = (0..<500).map { UInt8(truncatingIfNeeded: $0 &* 167 &+ 13) }
        let isPage = noise.withUnsafeBytes { decompressor.decompress($0, into: page.base) }
        #expect(!isPage)
    }

    @Test(
        "refuses incompressible pages, or keeps them as they are",
        arguments: [Compression.lz4, .zstd(level: 3)])
    func incompressible(compression: Compression) throws {
        var random = SplitMix(seed: 3)
        let noise = try Mapping(length: pageSize)
        for word in 0..<pageSize / 8 {
            noise.base.storeBytes(of: random.next(), toByteOffset: word * 8, as: UInt64.self)
        }
        let refusing = try CompressedStore(CompressedStoreOptions(compression: compression))
        #expect(refusing.put(noise.base) == .refused(.incompressible))
        #expect(refusing.pool.payloadBytes == 0)
        let keeping = try CompressedStore(
            CompressedStoreOptions(compression: compression, incompressible: .keepRaw))
        guard case .stored(let place) = keeping.put(noise.base) else {
            Issue.record("a page was not kept")
            return
        }
        #expect(keeping.pool.rawPageCount == 1 && keeping.pool.payloadBytes == pageSize)
        let buffer = try Mapping(length: pageSize)
        #expect(keeping.get(place, into: buffer) == .ready)
        #expect(isEqual(buffer.base, noise.base))
        keeping.drop(place)
        #expect(keeping.pool.rawPageCount == 0)
    }

    @Test("wastes little on pages kept as they are")
    func rawWaste() throws {
        var objects = try Objects(seed: 1)
        for _ in 0..<2000 { objects.addSurely(pageSize) }
        #expect(objects.waste < 0.04)
    }
}

private func isEqual(_ first: UnsafeRawPointer, _ second: UnsafeRawPointer) -> Bool {
    UnsafeRawBufferPointer(start: first, count: pageSize)
        .elementsEqual(UnsafeRawBufferPointer(start: second, count: pageSize))
}

extension CompressedStore {
    fileprivate func put(_ page: UnsafeRawPointer) -> PutOutcome {
        var outcome = PutOutcome.refused(.full)
        withUnsafeMutablePointer(to: &outcome) { outcome in
            let page = PagePut(
                address: UInt64(UInt(bitPattern: page)), identity: PageIdentity(block: 1, page: 0))
            [page].withUnsafeBufferPointer {
                put($0, outcomes: UnsafeMutableBufferPointer(start: outcome, count: 1))
            }
        }
        return outcome
    }

    fileprivate func get(_ place: UInt64, into buffer: borrowing Mapping) -> GetOutcome {
        get(
            place, PageIdentity(block: 1, page: 0),
            into: FetchBuffer(page: buffer.base, raw: buffer.base), token: 0)
    }
}
