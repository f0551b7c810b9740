import CBareLoops
import Engine
import Foundation
import Kernel
import PageCorpus

/// The compressed pool: what it wastes, and what it costs to put pages in and get them out.
struct Pool {
    let bench: Bench

    private static let codecs: [(name: String, compression: Compression)] = [
        ("lz4", .lz4), ("zstd-1", .zstd(level: 1)), ("zstd-3", .zstd(level: 3)),
        ("zstd-9", .zstd(level: 9)), ("zstd-19", .zstd(level: 19)),
    ]
    /// Those with a figure of their own for each step.
    private static let timedCodecs = codecs.prefix(3)

    private func corpus() throws -> PageCorpus {
        try PageCorpus(pagesOfEach: bench.isQuick ? 500 : 2000, heap: true)
    }

    // MARK: Waste

    func runWaste() throws -> [Result] {
        let corpus = try corpus()
        let kinds = corpus.kinds.map { "\($0.pages.count) of \($0.name)" }.joined(separator: ", ")
        print("    pages of the corpus: \(kinds)")
        var results: [Result] = []
        for (name, compression) in Self.timedCodecs {
            let lengths = try lengths(corpus, 0..<corpus.count, compression)
            var pool = try ChurnedPool(lengths, bytes: bench.isQuick ? 32 << 20 : 128 << 20)
            let filled = pool.waste
            pool.turnOver(times: 3)
            let turned = pool.waste
            pool.shrink(toShare: 4)
            let loose = pool.waste
            let moves = pool.compact()
            let suffix = compression == .lz4 ? "" : "/\(name)"
            let what = "what the pool holds beyond the sum of the compressed sizes, of real pages"
            results += [
                Result("pool/waste/filled\(suffix)", filled, "%", floor: nil, what + "; as they came"),
                Result(
                    "pool/waste\(suffix)", turned, "%", floor: nil,
                    what + "; after each was replaced three times by others, at random"),
                Result(
                    "pool/waste/shrunk\(suffix)", pool.waste, "%", floor: nil,
                    what + "; after three quarters were freed at random (\(Int(loose)) % then) and "
                        + "compaction moved \(moves) of the \(pool.count) that were left"),
            ]
        }
        return results
    }

    /// What pages compress to; incompressible ones are left out.
    private func lengths(
        _ corpus: PageCorpus, _ pages: Range<Int>, _ compression: Compression
    ) throws -> [Int] {
        let compressor = try Compressor(compression)
        let scratch = try Mapping(length: pageSize)
        var lengths: [Int] = []
        for page in pages {
            let length = compressor.compress(corpus[page], into: scratch.base, room: SizeClass.largest)
            if length > 0 { lengths.append(length) }
        }
        return lengths
    }

    // MARK: Compaction

    /// Pages of a guest come back at random, and the worker packs what is left.
    func runCompaction() throws -> [Result] {
        let guest = try Guest(pageCount: bench.pageCount)
        let compressed = CompressedPages(of: guest)
        let rig = try PagerRig(guest, compaction: .never)
        defer { rig.close() }
        let pager = rig.live.pager
        let worker = try Worker(pager: pager, compaction: .always)
        let target = try Mapping(length: pageSize)
        var ours: [Double] = []
        var bare: [Double] = []
        for _ in 0..<max(3, bench.rounds / 8) {
            guest.bringBack(0..<guest.pageCount)
            rig.evict(0..<guest.pageCount)
            // In no order that prefetch could follow.
            for page in (0..<guest.pageCount).shuffled().prefix(guest.pageCount * 3 / 4) {
                guest.touch(page, isWrite: false)
            }
            let left = (0..<guest.pageCount).filter { rig.region.table[$0].state == .stored }
            let before = pager.counters.compactionMoves.value
            let time = cpuTime { worker.tidyUp() }
            let moves = pager.counters.compactionMoves.value - before
            precondition(moves > 0, "nothing was moved")
            ours.append(time / Double(moves) / 1e3)
            let copying = cpuTime { for page in left { compressed.copy(page, to: target.base) } }
            bare.append(copying / Double(left.count) / 1e3)
        }
        return [
            Result(
                "pool/compaction", median(ours), "us", floor: median(bare),
                "copying the object alone; ours finds its owner in the page tables, tells it, and gives "
                    + "memory back; CPU time for each object moved")
        ]
    }

    // MARK: Codecs

    func runCodecs() throws -> [Result] {
        let corpus = try corpus()
        var results: [Result] = []
        for (name, compression) in Self.codecs {
            let isTimed = Self.timedCodecs.contains { $0.name == name }
            let figures = try CodecFigures(
                corpus, compression, rounds: isTimed ? (bench.isQuick ? 3 : 15) : 1)
            if bench.isVerbose { try explain(name, compression, corpus) }
            results.append(
                Result(
                    "pool/ratio/\(name)", figures.ratio, "x", floor: nil,
                    "real pages to their compressed sizes, incompressible ones left out: "
                        + "\(figures.refused) of \(corpus.count)"))
            results += [
                Result(
                    "cpu-per-page/compress-\(name)", figures.put, "us", floor: figures.compress,
                    "the codec alone, into one buffer; ours is the store's put"),
                Result(
                    "cpu-per-page/decompress-\(name)", figures.get, "us", floor: figures.decompress,
                    "the codec alone, from one buffer; ours is the store's get"),
            ]
        }
        return results
    }

    private func explain(_ name: String, _ compression: Compression, _ corpus: PageCorpus) throws {
        let ratios = try corpus.kinds.map { kind in
            let lengths = try lengths(corpus, kind.pages, compression)
            let ratio = Double(lengths.count * pageSize) / Double(lengths.reduce(0, +))
            return "\(kind.name) " + String(format: "%.2f", ratio)
        }
        print("    \(name): \(ratios.joined(separator: ", "))")
    }
}

/// Microseconds of CPU a page, all the corpus's pages in turn.
private struct CodecFigures {
    var ratio = 0.0
    var refused = 0
    var put = 0.0
    var get = 0.0
    var compress = 0.0
    var decompress = 0.0

    init(_ corpus: PageCorpus, _ compression: Compression, rounds: Int) throws {
        let store = try CompressedStore(CompressedStoreOptions(compression: compression))
        let compressor = try Compressor(compression)
        let decompressor = try Decompressor(compression)
        let buffer = try Mapping(length: pageSize)
        let identity = PageIdentity(block: 1, page: 0)
        var pages: [PagePut] = []
        for page in 0..<corpus.count {
            pages.append(
                PagePut(address: UInt64(UInt(bitPattern: corpus[page])), identity: identity))
        }
        var outcomes = [PutOutcome](repeating: .refused(.full), count: pages.count)
        var (puts, gets, compressions, decompressions) = ([Double](), [Double](), [Double](), [Double]())
        // Once more, and not timed: the pool's memory is new then.
        for round in 0...rounds {
            let putTime = cpuTime {
                pages.withUnsafeBufferPointer { pages in
                    outcomes.withUnsafeMutableBufferPointer { store.put(pages, outcomes: $0) }
                }
            }
            let places = outcomes.compactMap { if case .stored(let place) = $0 { place } else { nil } }
            let getTime = cpuTime {
                for place in places {
                    let outcome = store.get(
                        place, identity, into: FetchBuffer(page: buffer.base, raw: buffer.base), token: 0)
                    precondition(outcome == .ready)
                }
            }
            let compressTime = cpuTime {
                for page in 0..<corpus.count {
                    _ = compressor.compress(corpus[page], into: buffer.base, room: SizeClass.largest)
                }
            }
            let decompressTime = cpuTime {
                for place in places {
                    let isPage = decompressor.decompress(
                        UnsafeRawBufferPointer(store.pool.data(place)), into: buffer.base)
                    precondition(isPage)
                }
            }
            if round == 0 {
                refused = corpus.count - places.count
                ratio = Double(places.count * pageSize) / Double(store.pool.payloadBytes)
            } else {
                puts.append(putTime / Double(corpus.count) / 1e3)
                compressions.append(compressTime / Double(corpus.count) / 1e3)
                gets.append(getTime / Double(places.count) / 1e3)
                decompressions.append(decompressTime / Double(places.count) / 1e3)
            }
            for place in places { store.drop(place) }
        }
        (put, get) = (median(puts), median(gets))
        (compress, decompress) = (median(compressions), median(decompressions))
    }
}

/// A pool that objects come to and go from.
private struct ChurnedPool {
    private let pool: CompressedPool
    private let compaction: PoolCompaction
    private let lengths: [Int]
    private var places: [UInt64] = []
    private static let gainShare = CompactionLimits().gainShare

    init(_ lengths: [Int], bytes: Int) throws {
        let store = try CompressedStore()
        pool = store.pool
        compaction = store.compaction
        self.lengths = lengths
        while pool.payloadBytes < bytes { add() }
    }

    var count: Int { places.count }
    var waste: Double { (Double(pool.heldBytes) / Double(pool.payloadBytes) - 1) * 100 }

    private mutating func add() { places.append(pool.take(length: lengths.randomElement()!)!) }

    private mutating func removeAny() {
        places.swapAt(Int.random(in: 0..<places.count), places.count - 1)
        pool.free(places.removeLast())
    }

    /// With a look now and then, as the worker has, whether compaction is worth it.
    mutating func turnOver(times: Int) {
        for _ in 0..<times * 10 {
            for _ in 0..<count / 10 {
                removeAny()
                add()
            }
            _ = compact()
        }
    }

    mutating func shrink(toShare share: Int) {
        let wanted = count / share
        while count > wanted { removeAny() }
        pool.trim()
    }

    /// Until nothing is worth it any more; the objects moved.
    mutating func compact() -> Int {
        var moves = 0
        while compaction.begin(gainMin: pool.heldBytes / Self.gainShare) {
            let before = moves
            for index in places.indices where compaction.concerns(places[index]) {
                guard let better = compaction.copy(places[index]) else { continue }
                pool.free(places[index])
                places[index] = better
                moves += 1
            }
            compaction.end()
            if moves == before { break }
        }
        return moves
    }
}

extension CompactionLimits {
    static var never: CompactionLimits {
        var limits = CompactionLimits()
        limits.gainMin = .max
        return limits
    }

    /// For whatever there is to gain.
    static var always: CompactionLimits {
        var limits = CompactionLimits()
        limits.gainMin = 1
        limits.gainShare = .max
        limits.pagesPerGain = .max
        return limits
    }
}
