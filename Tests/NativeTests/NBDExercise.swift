import Kernel
import SeededRandom
import Testing

/// Drives a device as a pager does: one thread reads pages over the fetch queue, another writes
/// over the evict queue and reads some of it back. Every page says which place and version it is,
/// and all of it is compared.
final class NBDExercise: @unchecked Sendable {
    struct Outcome: Equatable {
        var reads = 0
        var writes = 0
        var readErrors: [Int32: Int] = [:]
        var writeErrors: [Int32: Int] = [:]
        var wrongPages = 0
        /// Nanoseconds that the slowest transfer took.
        var slowest: UInt64 = 0

        var errors: Int { readErrors.values.reduce(0, +) + writeErrors.values.reduce(0, +) }

        static func + (a: Outcome, b: Outcome) -> Outcome {
            Outcome(
                reads: a.reads + b.reads, writes: a.writes + b.writes,
                readErrors: a.readErrors.merging(b.readErrors, uniquingKeysWith: +),
                writeErrors: a.writeErrors.merging(b.writeErrors, uniquingKeysWith: +),
                wrongPages: a.wrongPages + b.wrongPages, slowest: max(a.slowest, b.slowest))
        }
    }

    private let device: NBDDevice
    /// Pages that stay as they were written first; behind them those that are written again.
    private let stable: Int
    private let moving: Int
    private let memory: Mapping
    /// What a place holds for sure; nil after a write that failed. Evict thread only.
    private var versions: [UInt32?]
    private var lastVersion: UInt32 = 0

    /// The most pages of one write: 1 MiB.
    private static let pagesPerWrite = 256
    private static let depth = 64

    init(_ device: NBDDevice, stable: Int = 2048, moving: Int = 2048) throws {
        precondition(UInt64((stable + moving) * pageSize) <= device.size)
        self.device = device
        self.stable = stable
        self.moving = moving
        // A page for each read, a page for each place to be written from, and room to read back.
        memory = try Mapping(length: (Self.depth + stable + moving + Self.depth) * pageSize)
        versions = Array(repeating: nil, count: stable + moving)
    }

    // MARK: Contents

    private static func word(_ place: Int, _ version: UInt32, _ index: Int) -> UInt64 {
        var mixed = (UInt64(place) << 32 | UInt64(version)) &+ UInt64(index) &* 0x9e37_79b9_7f4a_7c15
        mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
        return mixed ^ (mixed >> 27)
    }

    private func words(_ page: Int) -> UnsafeMutablePointer<UInt64> {
        (memory.base + page * pageSize).assumingMemoryBound(to: UInt64.self)
    }

    private func fill(_ page: Int, _ place: Int, _ version: UInt32) {
        let words = words(page)
        for index in 0..<pageSize / 8 { words[index] = Self.word(place, version, index) }
    }

    private func isRight(_ page: Int, _ place: Int, _ version: UInt32) -> Bool {
        let words = words(page)
        return (0..<pageSize / 8).allSatisfy { words[$0] == Self.word(place, version, $0) }
    }

    private func address(_ page: Int) -> UInt64 { UInt64(UInt(bitPattern: memory.base + page * pageSize)) }

    // MARK: The evict queue

    /// Writes all stable pages; none may fail.
    func prepare() {
        let outcome = write(0..<stable, lengths: { Self.pagesPerWrite })
        #expect(outcome.errors == 0)
    }

    /// Writes each of the moving places so often, in transfers of all sizes, and reads back what
    /// was written. Most are of a few pages.
    func evict(rounds: Int, seed: UInt64, largest: Int = pagesPerWrite) -> Outcome {
        var random = SplitMix(seed: seed)
        var outcome = Outcome()
        for _ in 0..<rounds {
            outcome =
                outcome
                + write(stable..<stable + moving) {
                    random.below(4) == 0 ? 1 + random.below(largest) : 1 + random.below(min(largest, 9))
                }
            outcome = outcome + readBack()
        }
        return outcome
    }

    private func write(_ places: Range<Int>, lengths: () -> Int) -> Outcome {
        var outcome = Outcome()
        lastVersion += 1
        var next = places.lowerBound
        var underWay: [UInt64: (places: Range<Int>, since: UInt64)] = [:]
        while next < places.upperBound || !underWay.isEmpty {
            while next < places.upperBound, underWay.count < Self.depth {
                let run = next..<min(next + lengths(), places.upperBound)
                for place in run {
                    versions[place] = nil
                    fill(Self.depth + place, place, lastVersion)
                }
                let errno = device.write(
                    Transfer(
                        memory: address(Self.depth + run.lowerBound), length: run.count * pageSize,
                        offset: UInt64(run.lowerBound * pageSize), token: UInt64(run.lowerBound)))
                outcome.writes += 1
                if let errno {
                    outcome.writeErrors[errno.code, default: 0] += 1
                } else {
                    underWay[UInt64(run.lowerBound)] = (run, monotonicNow())
                }
                next = run.upperBound
            }
            if underWay.isEmpty { continue }
            for completion in reap(.evict) {
                let (run, since) = underWay.removeValue(forKey: completion.token)!
                outcome.slowest = max(outcome.slowest, monotonicNow() - since)
                if completion.result == run.count * pageSize {
                    for place in run { versions[place] = lastVersion }
                } else {
                    outcome.writeErrors[-completion.result, default: 0] += 1
                }
            }
        }
        return outcome
    }

    /// Reads every moving place whose contents are sure, over the evict queue.
    private func readBack() -> Outcome {
        let first = Self.depth + stable + moving
        let places = (stable..<stable + moving).filter { versions[$0] != nil }
        return read(places, .evict, buffers: first..<first + Self.depth) { versions[$0]! }
    }

    // MARK: The fetch queue

    /// Reads stable pages in a random order, `depth` at once.
    func fetch(_ count: Int, seed: UInt64, depth: Int = depth) -> Outcome {
        var random = SplitMix(seed: seed)
        let places = (0..<count).map { _ in random.below(stable) }
        return read(places, .fetch, buffers: 0..<depth) { _ in 1 }
    }

    private func read(
        _ places: [Int], _ queue: TransferQueue, buffers: Range<Int>, version: (Int) -> UInt32
    ) -> Outcome {
        var outcome = Outcome()
        var free = Array(buffers)
        var underWay: [UInt64: (place: Int, buffer: Int, since: UInt64)] = [:]
        var next = 0
        while next < places.count || !underWay.isEmpty {
            while next < places.count, let buffer = free.popLast() {
                let transfer = Transfer(
                    memory: address(buffer), length: pageSize, offset: UInt64(places[next] * pageSize),
                    token: UInt64(next))
                fill(buffer, .max, 0)
                let errno = queue == .fetch ? device.read(transfer) : device.readBack(transfer)
                outcome.reads += 1
                if let errno {
                    outcome.readErrors[errno.code, default: 0] += 1
                    free.append(buffer)
                } else {
                    underWay[UInt64(next)] = (places[next], buffer, monotonicNow())
                }
                next += 1
            }
            if underWay.isEmpty { continue }
            for completion in reap(queue) {
                let (place, buffer, since) = underWay.removeValue(forKey: completion.token)!
                outcome.slowest = max(outcome.slowest, monotonicNow() - since)
                free.append(buffer)
                if completion.result != pageSize {
                    outcome.readErrors[-completion.result, default: 0] += 1
                } else if !isRight(buffer, place, version(place)) {
                    outcome.wrongPages += 1
                }
            }
        }
        return outcome
    }

    private func reap(_ queue: TransferQueue) -> [TransferCompletion] {
        withUnsafeTemporaryAllocation(of: TransferCompletion.self, capacity: Self.depth) { buffer in
            Array(buffer[..<device.reap(queue, into: buffer, wait: true)])
        }
    }

    // MARK: Both at once

    /// Fetches until the evictions are done, each on a thread of its own.
    func run(
        evictRounds: Int, fetches: Int, seed: UInt64, largest: Int = pagesPerWrite
    ) throws -> Outcome {
        let total = Total()
        let reader = try Kernel.Thread(name: "reader") { [self] in total.add(fetch(fetches, seed: seed)) }
        total.add(evict(rounds: evictRounds, seed: seed &+ 1, largest: largest))
        reader.join()
        return total.value
    }

    /// Fetches and evicts until `body` returns.
    func run(seed: UInt64, while body: () throws -> Void) throws -> Outcome {
        let total = Total()
        let reader = try Kernel.Thread(name: "reader") { [self] in
            var seed = seed
            while !total.isDone {
                total.add(fetch(500, seed: seed))
                seed &+= 1
            }
        }
        let writer = try Kernel.Thread(name: "writer") { [self] in
            var seed = ~seed
            while !total.isDone {
                total.add(evict(rounds: 1, seed: seed))
                seed &+= 1
            }
        }
        let result = Result { try body() }
        total.finish()
        reader.join()
        writer.join()
        try result.get()
        return total.value
    }

    private final class Total: Sendable {
        private let state = Lock((outcome: Outcome(), isDone: false))

        var value: Outcome { state.withLock { $0.outcome } }
        var isDone: Bool { state.withLock { $0.isDone } }
        func add(_ outcome: Outcome) { state.withLock { $0.outcome = $0.outcome + outcome } }
        func finish() { state.withLock { $0.isDone = true } }
    }
}

/// What a device told its host program.
final class NBDLog: Sendable {
    private let notices = Lock<[NBDNotice]>([])

    var all: [NBDNotice] { notices.withLock { $0 } }
    var add: @Sendable (NBDNotice) -> Void { { [self] notice in notices.withLock { $0.append(notice) } } }

    func waitFor(_ condition: ([NBDNotice]) -> Bool) -> Bool {
        let deadline = monotonicNow() + 30_000_000_000
        while !condition(all) {
            if monotonicNow() > deadline { return false }
            Kernel.sleep(nanoseconds: 10_000_000)
        }
        return true
    }
}
