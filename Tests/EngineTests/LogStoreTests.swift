import Engine
import Kernel
import SeededRandom
import Testing

/// A clock that tests set.
private final class TestClock: Sendable {
    let now = Lock<UInt64>(0)
}

@Suite("The log on a device")
struct LogStoreTests {
    /// A log on memory, and pages whose contents are functions of a number.
    private final class Rig {
        let device: MemoryDevice
        let log: LogStore<MemoryDevice>
        private let pages: Mapping
        private let buffer: Mapping
        private let clock = TestClock()
        /// Nanoseconds.
        var now: UInt64 {
            get { clock.now.withLock { $0 } }
            set { clock.now.withLock { $0 = newValue } }
        }
        static let batchMax = 1024

        init(
            size: Int = 1 << 20, segmentSize: Int = 16 << 10, blockSize: Int = 512, isSealed: Bool = true,
            helpers: Int = 0, writesTakeTime: Bool = false
        ) throws {
            let device = try MemoryDevice(size: size, blockSize: blockSize)
            self.device = device
            log = try LogStore(
                device: device, size: UInt64(size), tier: TierIndex(1),
                sealer: isSealed ? try Sealer() : nil, segmentSize: segmentSize, helpers: helpers,
                times: LogTimes(spare: 10, doubt: 1000),
                clock: { [clock] in
                    clock.now.withLock { $0 } + (writesTakeTime ? UInt64(device.writes.count) : 0)
                })
            pages = try Mapping(length: Self.batchMax * pageSize)
            buffer = try Mapping(length: 3 * pageSize)
        }

        /// Pages of all sizes once they are compressed, the incompressible ones included.
        func write(_ number: Int, to page: UnsafeMutableRawPointer) {
            var random = SplitMix(seed: UInt64(number))
            let noise = number % 9 * 512
            for index in 0..<pageSize {
                let byte = index < noise ? UInt8(random.below(256)) : UInt8(truncatingIfNeeded: number)
                page.storeBytes(of: byte, toByteOffset: index, as: UInt8.self)
            }
        }

        func identity(_ number: Int) -> PageIdentity { PageIdentity(block: 1, page: UInt32(number)) }

        /// Pages with these contents, the first at the `first` place.
        func prepare(_ numbers: [Int], at first: Int = 0) -> [PagePut] {
            numbers.enumerated().map { index, number in
                let page = pages.base + (first + index) * pageSize
                write(number, to: page)
                return PagePut(address: UInt64(UInt(bitPattern: page)), identity: identity(number))
            }
        }

        func begin(_ puts: [PagePut]) -> [PutOutcome] {
            var outcomes = [PutOutcome](repeating: .refused(.full), count: puts.count)
            puts.withUnsafeBufferPointer { puts in
                outcomes.withUnsafeMutableBufferPointer { log.beginPut(puts, $0) }
            }
            return outcomes
        }

        func end(_ outcomes: inout [PutOutcome]) {
            outcomes.withUnsafeMutableBufferPointer { log.endPut($0) }
        }

        func expect(_ puts: [PagePut]) { puts.withUnsafeBufferPointer { log.expect($0) } }

        func put(_ numbers: [Int]) -> [PutOutcome] {
            let puts = prepare(numbers)
            var outcomes = begin(puts)
            end(&outcomes)
            return outcomes
        }

        /// Nil: the page is there and right.
        func failure(_ place: UInt64, _ number: Int) -> Errno? {
            let target = FetchBuffer(page: buffer.base, raw: buffer.base + pageSize)
            guard log.get(place, identity(number), into: target, token: 1) == .pending else {
                return .invalid
            }
            return withUnsafeTemporaryAllocation(of: TransferCompletion.self, capacity: 1) { completions in
                precondition(device.reap(.fetch, into: completions, wait: true) == 1)
                switch log.finish(place, identity(number), completions[0], target) {
                case .failed(let errno): return errno
                case .pending: return .busy
                case .ready: break
                }
                write(number, to: pages.base)
                let isRight =
                    UnsafeRawBufferPointer(start: pages.base, count: pageSize)
                    .elementsEqual(UnsafeRawBufferPointer(start: buffer.base, count: pageSize))
                #expect(isRight, "wrong bytes for page \(number)")
                return nil
            }
        }
    }

    @Test("gives back what it was given", arguments: [512, 4096], [true, false])
    func roundTrip(blockSize: Int, isSealed: Bool) throws {
        let rig = try Rig(blockSize: blockSize, isSealed: isSealed)
        var places: [(place: UInt64, number: Int)] = []
        for batch in 0..<3 {
            let numbers = (0..<40).map { batch * 40 + $0 }
            for (number, outcome) in zip(numbers, rig.put(numbers)) {
                guard case .stored(let place) = outcome else {
                    Issue.record("page \(number) was refused")
                    continue
                }
                places.append((place, number))
            }
        }
        for (place, number) in places { #expect(rig.failure(place, number) == nil) }
        for (place, _) in places { rig.log.drop(place) }
        #expect(rig.log.segments.liveSectors == 0)
    }

    @Test("lays out the same with threads that compress beside it, in order", arguments: [1, 3])
    func helpers(count: Int) throws {
        let alone = try Rig(size: 4 << 20, segmentSize: 256 << 10)
        let helped = try Rig(size: 4 << 20, segmentSize: 256 << 10, helpers: count)
        // A batch that is more than one job, the least one, and one that nobody is woken for.
        for size in [900, 32, 300, 31, 1, 257, 33] {
            let outcomes = helped.put(Array(0..<size))
            #expect(outcomes == alone.put(Array(0..<size)))
            for (number, outcome) in outcomes.enumerated() {
                guard case .stored(let place) = outcome else {
                    Issue.record("page \(number) was refused")
                    continue
                }
                #expect(helped.failure(place, number) == nil)
                helped.log.drop(place)
                alone.log.drop(place)
            }
            helped.log.trim()
            alone.log.trim()
        }
    }

    @Test("has the helpers done with every page when there is no room")
    func helpersWithoutRoom() throws {
        let rig = try Rig(size: 256 << 10, helpers: 2)
        for _ in 0..<20 {
            let outcomes = rig.put(Array(0..<400))
            #expect(outcomes.contains(.refused(.full)))
            for case .stored(let place) in outcomes { rig.log.drop(place) }
        }
    }

    @Test("puts what it was told to expect, or what comes instead", arguments: [true, false])
    func expected(comes: Bool) throws {
        let rig = try Rig(size: 8 << 20, segmentSize: 256 << 10, helpers: 2)
        for _ in 0..<10 {
            let expected = rig.prepare(Array(0..<400))
            let others = rig.prepare(Array(500..<900), at: 400)
            rig.expect(expected)
            var outcomes = rig.begin(comes ? expected : others)
            // Whoever reads a page still would store these.
            _ = rig.prepare(Array(repeating: 3, count: 800))
            rig.end(&outcomes)
            for (index, outcome) in outcomes.enumerated() {
                guard case .stored(let place) = outcome else {
                    Issue.record("page \(index) was refused")
                    continue
                }
                #expect(rig.failure(place, comes ? index : 500 + index) == nil)
                rig.log.drop(place)
            }
        }
    }

    @Test("reads no page any more that was expected and does not come")
    func abandoned() throws {
        let rig = try Rig(helpers: 2)
        for _ in 0..<200 {
            let memory = try Mapping(length: 400 * pageSize)
            rig.expect(
                (0..<400).map {
                    PagePut(
                        address: UInt64(UInt(bitPattern: memory.base + $0 * pageSize)),
                        identity: rig.identity($0))
                })
            rig.log.abandonExpected()
            // Until here it is mapped, and no longer.
            withExtendedLifetime(memory.length) {}
        }
    }

    @Test("remembers what failed of a put that has not ended, whatever else is put or moved meanwhile")
    func overlappingPuts() throws {
        let rig = try Rig()
        rig.device.failingWrites = 8
        var failed = rig.begin(rig.prepare(Array(0..<40)))
        rig.device.failingWrites = 0
        let outcomes = rig.put(Array(100..<140))
        var relocations: [Relocation] = []
        rig.log.relocate(&relocations)
        rig.end(&failed)
        for outcome in failed {
            guard case .refused(.failed) = outcome else {
                Issue.record("stored, though it was not written")
                continue
            }
        }
        for (number, outcome) in zip(100..., outcomes) {
            guard case .stored(let place) = outcome else {
                Issue.record("page \(number) was refused")
                continue
            }
            #expect(rig.failure(place, number) == nil)
        }
    }

    @Test("writes forward, in few writes, and never twice to the same sectors of a segment")
    func sequential() throws {
        let rig = try Rig(size: 8 << 20, segmentSize: 1 << 20)
        for batch in 0..<3 { _ = rig.put((0..<60).map { batch * 60 + $0 }) }
        #expect(rig.device.writes.count <= 6)
        for (earlier, later) in zip(rig.device.writes, rig.device.writes.dropFirst()) {
            #expect(later.lowerBound >= earlier.upperBound)
        }
        #expect(rig.log.writtenBytes.value == rig.device.writes.reduce(0) { $0 + UInt64($1.count) })
    }

    @Test("refuses exactly the pages that were not written, and goes on behind them")
    func writeErrors() throws {
        let rig = try Rig()
        for failing in 1...8 {
            rig.device.failingWrites = failing
            let outcomes = rig.put(Array(0..<64))
            rig.device.failingWrites = 0
            var stored = 0
            for (number, outcome) in outcomes.enumerated() {
                switch outcome {
                case .stored(let place):
                    #expect(rig.failure(place, number) == nil)
                    rig.log.drop(place)
                    stored += 1
                case .refused(let refusal):
                    #expect(refusal == .failed(.inputOutput) || refusal == .failed(.noSpace))
                }
            }
            #expect(stored < 64 && (failing == 8 || stored > 0))
            #expect(rig.log.segments.liveSectors == 0)
            rig.log.trim()
        }
    }

    @Test("says that a damaged object is not what was written", arguments: [512, 4096])
    func damage(blockSize: Int) throws {
        let rig = try Rig(blockSize: blockSize)
        let outcomes = rig.put(Array(0..<18))
        for (number, outcome) in outcomes.enumerated() {
            guard case .stored(let place) = outcome else { continue }
            let object = LogPlace(place)
            for offset in [0, 20, object.sectors * 512 - 1] {
                let byte = rig.device.memory.base + Int(object.sector) * 512 + offset
                let old = byte.load(as: UInt8.self)
                byte.storeBytes(of: old ^ 4, as: UInt8.self)
                #expect(rig.failure(place, number) == .badMessage)
                byte.storeBytes(of: old, as: UInt8.self)
            }
            #expect(rig.failure(place, number) == nil)
            #expect(rig.failure(place, number + 1) == .badMessage, "it is another page's")
        }
    }

    @Test("does not call damaged what could not be asked for where the other copy is")
    func damageHere() throws {
        let rig = try Rig()
        guard case .stored(let place) = rig.put([3])[0] else {
            Issue.record("not stored")
            return
        }
        let byte = rig.device.memory.base + Int(LogPlace(place).sector) * 512 + 20
        byte.storeBytes(of: byte.load(as: UInt8.self) ^ 4, as: UInt8.self)
        rig.device.elsewhere = .busy
        #expect(rig.failure(place, 3) == .again)
        var relocations = [Relocation(place: place, identity: rig.identity(3))]
        rig.log.relocate(&relocations)
        #expect(relocations[0].outcome == .refused(.notNow))
        rig.device.elsewhere = .noData
        #expect(rig.failure(place, 3) == .badMessage)
    }

    @Test("takes neither a swapped object nor the one that was there before")
    func swappedAndStale() throws {
        // Two segments for pages: what is written next but one lies where the first was.
        let rig = try Rig(size: 64 << 10)
        func place(_ number: Int) throws -> UInt64 {
            guard case .stored(let place) = rig.put([number])[0] else { throw Errno.noSpace }
            return place
        }
        // Alike in size.
        let first = try place(8)
        let second = try place(17)
        let length = LogPlace(first).sectors * 512
        let base = rig.device.memory.base
        let one = base + Int(LogPlace(first).sector) * 512
        let two = base + Int(LogPlace(second).sector) * 512
        let old = try Mapping(length: 2 * pageSize)
        old.base.copyMemory(from: one, byteCount: length)
        one.copyMemory(from: two, byteCount: length)
        #expect(rig.failure(first, 8) == .badMessage)
        #expect(rig.failure(first, 17) == .badMessage)
        one.copyMemory(from: old.base, byteCount: length)
        #expect(rig.failure(first, 8) == nil)

        rig.log.drop(first)
        rig.log.drop(second)
        var again = first &+ 1
        var tries = 0
        while LogPlace(again) != LogPlace(first), tries < 20 {
            again = try place(8)
            if LogPlace(again) != LogPlace(first) { rig.log.drop(again) }
            tries += 1
        }
        #expect(LogPlace(again) == LogPlace(first), "the segment was not used again")
        #expect(rig.failure(again, 8) == nil)
        // The same page, at the same place, as it was before: from another time.
        one.copyMemory(from: old.base, byteCount: length)
        #expect(rig.failure(again, 8) == .badMessage)
    }

    @Test("is full before the segments that emptying needs are used, and takes pages again")
    func full() throws {
        let rig = try Rig(size: 128 << 10)
        var places: [UInt64] = []
        var refused = 0
        for batch in 0..<4 {
            for outcome in rig.put((0..<20).map { batch * 20 + $0 }) {
                switch outcome {
                case .stored(let place): places.append(place)
                case .refused(let refusal):
                    #expect(refusal == .full)
                    refused += 1
                }
            }
        }
        #expect(refused > 0 && rig.log.segments.freeCount == 2)
        for place in places { rig.log.drop(place) }
        rig.log.trim()
        #expect(rig.log.segments.freeCount >= 7)
        #expect(rig.device.discarded.isEmpty, "what may be wanted soon is discarded")
        rig.now = 10
        rig.log.trim()
        #expect(!rig.device.discarded.isEmpty)
        #expect(rig.put(Array(0..<10)).allSatisfy { if case .stored = $0 { true } else { false } })
    }

    @Test("does not use a segment again soon that a lost discard may reach yet")
    func lostDiscard() throws {
        let rig = try Rig(size: 256 << 10)
        try fillAndEmpty(rig)
        rig.log.trim()
        rig.device.lostDiscards = 1
        rig.now = 10
        rig.log.trim()
        #expect(rig.device.discarded.count == 1, "the others would be lost as well")
        let lost = try #require(rig.device.discarded.first)
        #expect(rig.log.segments.freeCount == rig.log.segments.count - 2)
        try expectRest(of: lost, rig)
    }

    /// The place is not written for ten minutes, while all else is, and then it is.
    private func expectRest(of lost: Range<UInt64>, _ rig: Rig) throws {
        rig.device.writes = []
        for second in 1...12 {
            rig.now = UInt64(10 + second * 50)
            try fillAndEmpty(rig)
            rig.log.trim()
        }
        #expect(rig.device.writes.count > 50 && !rig.device.writes.contains { $0.overlaps(lost) })
        rig.now = 3000
        rig.log.trim()
        fill(rig)
        #expect(rig.device.writes.contains { $0.overlaps(lost) }, "its segment is lost for good")
    }

    @Test("does not use a segment again soon that a lost write may reach yet")
    func lostWrite() throws {
        let rig = try Rig(size: 256 << 10)
        rig.device.lostWrites = 1
        for outcome in rig.put(Array(0..<8)) where outcome != .refused(.failed(.timedOut)) {
            guard case .stored(let place) = outcome else {
                Issue.record("\(outcome)")
                continue
            }
            rig.log.drop(place)
        }
        let lost = try #require(rig.device.writes.first)
        try expectRest(of: lost, rig)
    }

    @Test("says of an object that the device did not even take in a read for that it was not asked")
    func readNotTakenIn() throws {
        let rig = try Rig()
        guard case .stored(let place) = rig.put([3])[0] else {
            Issue.record("not stored")
            return
        }
        var relocations = [Relocation(place: place, identity: rig.identity(3))]
        rig.device.isAway = true
        rig.log.relocate(&relocations)
        #expect(relocations[0].outcome == .refused(.notNow), "neither unreadable nor a failed write")
        rig.device.isAway = false
        rig.log.relocate(&relocations)
        guard case .stored(let new) = relocations[0].outcome else {
            Issue.record("\(relocations[0].outcome)")
            return
        }
        #expect(new != place)
    }

    @Test("keeps what it could not ask the device to discard")
    func busyDiscard() throws {
        let rig = try Rig(size: 256 << 10)
        try fillAndEmpty(rig)
        rig.log.trim()
        rig.device.isBusy = true
        rig.now = 10
        rig.log.trim()
        #expect(rig.device.discarded.isEmpty && rig.log.segments.freeCount >= rig.log.segments.count - 1)
        rig.device.isBusy = false
        rig.now = 20
        rig.log.trim()
        #expect(!rig.device.discarded.isEmpty)
    }

    /// Writes to all segments that are free but the spared.
    private func fill(_ rig: Rig) {
        while case .stored = rig.put([8])[0] {}
    }

    /// Writes to most of the log's segments, and drops it all.
    private func fillAndEmpty(_ rig: Rig) throws {
        for _ in 0..<4 {
            for outcome in rig.put(Array(0..<40)) {
                guard case .stored(let place) = outcome else {
                    Issue.record("\(outcome)")
                    return
                }
                rig.log.drop(place)
            }
        }
    }

    @Test("writes whole pages of the device while more is to come, and sets their space aside")
    func aligned() throws {
        let rig = try Rig(size: 8 << 20, segmentSize: 1 << 20)
        for batch in 0..<12 { _ = rig.put((0..<60).map { batch * 60 + $0 }) }
        #expect(rig.device.writes.count > 12)
        for write in rig.device.writes {
            #expect(write.lowerBound % UInt64(pageSize) == 0 && write.upperBound % UInt64(pageSize) == 0)
            let isAllocated = rig.device.allocated.contains {
                $0.lowerBound <= write.lowerBound && write.upperBound <= $0.upperBound
            }
            #expect(isAllocated)
        }
        // A page alone is not worth it.
        _ = rig.put([0])
        #expect(rig.device.writes.last!.count % pageSize != 0)
    }

    @Test("needs memory for its segments only as they are used")
    func metadata() throws {
        let map = try SegmentMap(segments: 1 << 20, sectorsPerSegment: 2048)
        #expect(map.residentBytes == 0)
        for _ in 0..<100 { _ = map.open() }
        #expect(map.residentBytes <= 3 * pageSize)
    }

    @Test("compresses every page again as soon as there is no hurry")
    func endOfHurry() throws {
        let rig = try Rig(size: 64 << 20, writesTakeTime: true)
        let compressible = (0..<Rig.batchMax).map { $0 * 9 + $0 % 4 }
        func lengths(_ outcomes: [PutOutcome]) -> [Int] {
            outcomes.compactMap { if case .stored(let place) = $0 { LogPlace(place).sectors } else { nil } }
        }
        rig.log.isHurried = true
        // The device waits for nothing but us.
        for _ in 0..<8 { _ = rig.put(compressible) }
        let few = Array(compressible.prefix(64))
        #expect(lengths(rig.put(few)) == Array(repeating: 9, count: 64), "in a hurry they leave as they are")
        rig.log.isHurried = false
        let after = lengths(rig.put(few))
        #expect(after.count == 64 && after.allSatisfy { $0 < 9 })
    }
}
