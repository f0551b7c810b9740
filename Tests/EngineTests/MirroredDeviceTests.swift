import Glibc
import Kernel
import SeededRandom
import Testing

/// Blocks in memory, whose transfers end in any order and fail by chance.
private final class RandomDevice: StoreDevice, @unchecked Sendable {
    private var contents: [UInt8]
    private var random: SplitMix
    private var underWay: [TransferQueue: [TransferCompletion]] = [.fetch: [], .evict: []]
    /// Reads of the fetch queue that were not begun.
    private var held: [TransferCompletion] = []
    /// Thousandths.
    var failures = 0
    /// How transfers fail; nil: with EIO, or short.
    var failure: Errno?
    /// What discards are answered with.
    var discardAnswer: Errno?
    var refusals = 0
    /// Ends every read with one byte wrong.
    var corrupts = false
    /// Takes in the fault thread's reads, and does not do them before `goOn`.
    var hangs = false
    private var hung: [Transfer] = []

    let blockSize = 512
    var size: UInt64 { UInt64(contents.count) }

    init(blocks: Int, seed: UInt64) {
        contents = Array(repeating: 0, count: blocks * 512)
        random = SplitMix(seed: seed)
    }

    func read(_ transfer: Transfer) -> Errno? { start(transfer, .fetch, isWrite: false) }
    func readBack(_ transfer: Transfer) -> Errno? { start(transfer, .evict, isWrite: false) }
    func write(_ transfer: Transfer) -> Errno? { start(transfer, .evict, isWrite: true) }
    func discard(offset: UInt64, length: UInt64) -> Errno? { discardAnswer }

    private func start(_ transfer: Transfer, _ queue: TransferQueue, isWrite: Bool) -> Errno? {
        if random.chance(refusals) { return .busy }
        if hangs, queue == .fetch {
            hung.append(transfer)
            return nil
        }
        end(transfer, queue, isWrite: isWrite)
        return nil
    }

    /// Does what was left undone.
    func goOn() {
        hangs = false
        for transfer in hung { end(transfer, .fetch, isWrite: false) }
        hung.removeAll()
    }

    private func end(_ transfer: Transfer, _ queue: TransferQueue, isWrite: Bool) {
        var result = Int32(transfer.length)
        if random.chance(failures) {
            result = random.chance(500) ? -Errno.inputOutput.code : Int32(transfer.length / 2)
            if let failure { result = -failure.code }
        }
        let memory = unsafe UnsafeMutableRawPointer(bitPattern: UInt(transfer.memory))!
        let offset = Int(transfer.offset)
        for index in 0..<max(0, Int(result)) {
            if isWrite {
                contents[offset + index] = unsafe memory.load(fromByteOffset: index, as: UInt8.self)
            } else {
                let byte = contents[offset + index] ^ (corrupts && index == 7 ? 1 : 0)
                unsafe memory.storeBytes(of: byte, toByteOffset: index, as: UInt8.self)
            }
        }
        let completion = TransferCompletion(token: transfer.token, result: result)
        if queue == .fetch { held.append(completion) } else { underWay[queue]!.append(completion) }
    }

    func startReads() -> Bool {
        underWay[.fetch]! += held
        held.removeAll()
        return true
    }

    func reap(
        _ queue: TransferQueue, into completions: UnsafeMutableBufferPointer<TransferCompletion>,
        wait: Bool
    ) -> Int {
        if wait, queue == .fetch { _ = startReads() }
        var count = 0
        while count < completions.count, let waiting = underWay[queue], !waiting.isEmpty {
            if random.chance(300), !(wait && count == 0) { break }
            unsafe completions[count] = underWay[queue]!.remove(at: random.below(waiting.count))
            count += 1
        }
        return count
    }
}

@Suite("A mirrored device")
final class MirroredDeviceTests {
    private static let blocks = 64
    private let first = RandomDevice(blocks: blocks, seed: 1)
    private let second = RandomDevice(blocks: blocks, seed: 2)
    private let memory: Mapping
    private let traffic = DeviceTraffic()
    private let device: MirroredDevice<RandomDevice>

    init() throws {
        memory = try Mapping(length: 2 * pageSize)
        device = try MirroredDevice(first, second, depth: 8, traffic: traffic)
    }

    private func fill(_ byte: UInt8) {
        unsafe memory.base.initializeMemory(as: UInt8.self, repeating: byte, count: 512)
    }

    private func transfer(_ block: Int, at offset: Int = 0, token: UInt64 = 7) -> Transfer {
        Transfer(
            memory: unsafe UInt64(UInt(bitPattern: memory.base + offset)), length: 512,
            offset: UInt64(block * 512), token: token)
    }

    private func end(_ queue: TransferQueue) -> TransferCompletion {
        unsafe withUnsafeTemporaryAllocation(of: TransferCompletion.self, capacity: 4) { completions in
            var count = 0
            while count == 0 {
                let mayWait = queue == .evict || !(first.hangs || second.hangs)
                if !mayWait {
                    _ = device.startReads()
                    device.askOthers(at: late)
                }
                count = unsafe device.reap(queue, into: completions, wait: mayWait)
            }
            #expect(count == 1)
            return unsafe completions[0]
        }
    }

    private func write(_ block: Int, _ byte: UInt8) -> Int32? {
        fill(byte)
        return device.write(transfer(block)) == nil ? end(.evict).result : nil
    }

    /// The byte that the block is full of; nil when it cannot be read.
    private func read(_ block: Int, back: Bool = false) -> UInt8? {
        let named = transfer(block, at: pageSize)
        guard (back ? device.readBack(named) : device.read(named)) == nil else { return nil }
        let completion = end(back ? .evict : .fetch)
        #expect(completion.token == 7)
        guard completion.result == 512 else { return nil }
        let bytes = unsafe UnsafeRawBufferPointer(start: memory.base + pageSize, count: 512)
        let byte = unsafe bytes[0]
        #expect(unsafe bytes.allSatisfy { $0 == byte } || first.corrupts)
        return byte
    }

    @Test("answers reads as long as one side does", arguments: [true, false])
    func oneSideFails(isFirst: Bool) {
        #expect(write(3, 0xa5) == 512)
        (isFirst ? first : second).failures = 1000
        #expect(read(3) == 0xa5)
        #expect(read(3, back: true) == 0xa5)
        (isFirst ? second : first).failures = 1000
        #expect(read(3) == nil)
    }

    @Test("begins reads when told, and by itself where the other side failed")
    func begins() {
        func reapOften() -> TransferCompletion? {
            unsafe withUnsafeTemporaryAllocation(of: TransferCompletion.self, capacity: 4) { completions in
                for _ in 0..<100 {
                    let count = unsafe device.reap(.fetch, into: completions, wait: false)
                    if count > 0 { return unsafe completions[0] }
                }
                return nil
            }
        }
        #expect(write(3, 0xa5) == 512)
        first.failures = 1000
        #expect(device.read(transfer(3, at: pageSize)) == nil)
        #expect(reapOften() == nil)
        #expect(device.startReads())
        #expect(reapOften()?.result == 512)
    }

    /// When what was asked just now has taken long.
    private var late: UInt64 { monotonicNow() + MirroredDevice<RandomDevice>.patience }

    /// What ends without a wait, given some tries.
    private func endedFetches() -> [TransferCompletion] {
        unsafe withUnsafeTemporaryAllocation(of: TransferCompletion.self, capacity: 8) { completions in
            var all: [TransferCompletion] = []
            for _ in 0..<100 {
                let count = unsafe device.reap(.fetch, into: completions, wait: false)
                for index in 0..<count { all.append(unsafe completions[index]) }
            }
            return all
        }
    }

    @Test("asks the other side when one takes long, and has no use for what comes too late")
    func oneSideHangs() {
        #expect(write(3, 0xa5) == 512)
        first.hangs = true
        #expect(device.read(transfer(3, at: pageSize)) == nil)
        #expect(device.startReads())
        device.askOthers(at: monotonicNow())
        #expect(endedFetches().isEmpty, "it has not been long")
        device.askOthers(at: late)
        device.askOthers(at: late)
        #expect(endedFetches().map(\.result) == [512])
        #expect(traffic.secondReads.load(ordering: .relaxed) == 1)
        #expect(traffic.inFlight.load(ordering: .relaxed) == 1, "the first still owes an answer")
        let bytes = unsafe UnsafeMutableRawBufferPointer(start: memory.base + pageSize, count: 512)
        #expect(unsafe bytes.allSatisfy { $0 == 0xa5 })
        #expect(read(3) == 0xa5, "the next read begins with the side that answers")

        unsafe bytes.initializeMemory(as: UInt8.self, repeating: 0x11)
        first.goOn()
        #expect(device.startReads())
        #expect(endedFetches().isEmpty)
        #expect(unsafe bytes.allSatisfy { $0 == 0x11 }, "the memory is another's by now")
        #expect(traffic.inFlight.load(ordering: .relaxed) == 0)
    }

    @Test("waits for the one that takes long when the other fails")
    func theOtherFails() {
        #expect(write(3, 0xa5) == 512)
        first.hangs = true
        second.failures = 1000
        #expect(device.read(transfer(3, at: pageSize)) == nil)
        #expect(device.startReads())
        device.askOthers(at: late)
        #expect(endedFetches().isEmpty)
        first.goOn()
        #expect(device.startReads())
        #expect(endedFetches().map(\.result) == [512])
        #expect(traffic.inFlight.load(ordering: .relaxed) == 0)
    }

    @Test("asks the one that took long again when what the other gave is wrong")
    func theOtherIsWrong() {
        #expect(write(3, 0xa5) == 512)
        first.hangs = true
        second.corrupts = true
        let named = transfer(3, at: pageSize)
        #expect(device.read(named) == nil)
        #expect(device.startReads())
        device.askOthers(at: late)
        #expect(endedFetches().map(\.result) == [512])
        first.goOn()
        #expect(device.readElsewhere(named, .fetch) == nil)
        #expect(device.startReads())
        #expect(endedFetches().map(\.result) == [512])
        let bytes = unsafe UnsafeRawBufferPointer(start: memory.base + pageSize, count: 512)
        #expect(unsafe bytes.allSatisfy { $0 == 0xa5 })
    }

    @Test("asks the other side at once when one owes all that it takes")
    func oneSideOwesAll() {
        #expect(write(3, 0xa5) == 512)
        first.hangs = true
        for token in 0..<UInt64(8) {
            #expect(device.read(transfer(3, at: pageSize, token: token)) == nil)
        }
        #expect(device.startReads())
        device.askOthers(at: late)
        #expect(endedFetches().count { $0.result == 512 } == 8)
        // The second fails once, so that the first is asked first.
        second.failures = 1000
        #expect(device.read(transfer(3, at: pageSize)) == nil)
        #expect(device.startReads())
        #expect(endedFetches().allSatisfy { $0.result < 512 })
        second.failures = 0
        #expect(read(3) == 0xa5)
        first.goOn()
        #expect(device.startReads())
        #expect(endedFetches().isEmpty)
        #expect(traffic.inFlight.load(ordering: .relaxed) == 0)
    }

    @Test("asks the other side at once when one takes no more")
    func oneSideIsFull() {
        #expect(write(3, 0xa5) == 512)
        first.refusals = 1000
        #expect(read(3) == 0xa5)
    }

    @Test("fails a write that one side did not take whole", arguments: [true, false])
    func writeFails(isFirst: Bool) throws {
        (isFirst ? first : second).failures = 1000
        for block in 0..<20 { #expect(try #require(write(block, 1)) < 512) }
        (isFirst ? first : second).failures = 0
        (isFirst ? first : second).refusals = 1000
        #expect(write(0, 1) != 512)
    }

    @Test(
        "fails a write with what says that it may take effect later, whatever the other side says",
        arguments: [ETIMEDOUT, ENOLINK], [EIO, ENOSPC, EILSEQ, EREMOTEIO, ETIMEDOUT])
    func doubtedWrite(doubt: Int32, other: Int32) throws {
        for (a, b) in [(doubt, other), (other, doubt)] {
            (first.failures, first.failure) = (1000, Errno(a))
            (second.failures, second.failure) = (1000, Errno(b))
            // The sides answer in any order.
            for block in 0..<20 {
                let result = try #require(write(block, 1))
                #expect(result < 0 && Errno(-result).mayTakeEffectLater, "\(a), \(b): \(result)")
            }
        }
        (second.failures, second.failure) = (1000, nil)
        first.failure = Errno(doubt)
        for block in 0..<20 { #expect(write(block, 1) == -doubt, "or when it ends early") }
    }

    @Test(
        "discards when one side can, and says what is to be known of both",
        arguments: [
            (nil, nil, nil), (EOPNOTSUPP, nil, nil), (EOPNOTSUPP, EOPNOTSUPP, EOPNOTSUPP),
            (EOPNOTSUPP, EIO, EIO), (EOPNOTSUPP, EBUSY, EBUSY), (EBUSY, nil, EBUSY), (EIO, nil, EIO),
            (EIO, ETIMEDOUT, ETIMEDOUT), (EOPNOTSUPP, ENOLINK, ENOLINK),
        ] as [(Int32?, Int32?, Int32?)])
    func discards(one: Int32?, other: Int32?, both: Int32?) {
        for (a, b) in [(one, other), (other, one)] {
            (first.discardAnswer, second.discardAnswer) = (a.map { Errno($0) }, b.map { Errno($0) })
            #expect(device.discard(offset: 0, length: 4096) == both.map { Errno($0) })
        }
    }

    @Test("asks the side that took no more of the worker's reads, when what the other gave is wrong")
    func doubtOfTheSecondAsked() {
        #expect(write(3, 0xa5) == 512)
        first.refusals = 1000
        second.corrupts = true
        let named = transfer(3, at: pageSize)
        #expect(device.readBack(named) == nil)
        _ = end(.evict)
        #expect(device.readElsewhere(named, .evict) == .busy)
        first.refusals = 0
        #expect(device.readElsewhere(named, .evict) == nil)
        _ = end(.evict)
        let bytes = unsafe UnsafeRawBufferPointer(start: memory.base + pageSize, count: 512)
        #expect(unsafe bytes.allSatisfy { $0 == 0xa5 })
    }

    @Test("reads from the other side once the answers are doubted")
    func doubt() {
        #expect(write(3, 0xa5) == 512)
        first.corrupts = true
        let named = transfer(3, at: pageSize)
        func isRight() -> Bool {
            unsafe UnsafeRawBufferPointer(start: memory.base + pageSize, count: 512)
                .allSatisfy { $0 == 0xa5 }
        }
        #expect(device.read(named) == nil)
        _ = end(.fetch)
        #expect(!isRight())
        #expect(device.readElsewhere(named, .fetch) == nil)
        _ = end(.fetch)
        #expect(isRight())
        #expect(device.readElsewhere(named, .fetch) == .noData, "there are two sides")

        #expect(device.read(named) == nil)
        _ = end(.fetch)
        #expect(isRight(), "the next read begins with the side that was right")
    }

    @Test(
        "gives back what was written last, whatever fails, and answers everything",
        arguments: [UInt64(1), 2, 3])
    func random(seed: UInt64) {
        var random = SplitMix(seed: seed)
        var known = [UInt8?](repeating: nil, count: Self.blocks)
        var verified = 0
        for step in 0..<20_000 {
            if step % 500 == 0 {
                first.failures = random.pick([0, 0, 100, 1000])
                second.failures = first.failures == 1000 ? 0 : random.pick([0, 100, 1000])
                first.refusals = random.pick([0, 50])
                second.refusals = random.pick([0, 50])
            }
            if step % 50 == 0 {
                first.goOn()
                second.goOn()
                if random.chance(300) {
                    first.hangs = second.failures == 0 && second.refusals == 0
                    second.hangs = !first.hangs && first.failures == 0 && first.refusals == 0
                }
            }
            let block = random.below(Self.blocks)
            if random.chance(500) {
                let byte = UInt8(random.below(256))
                known[block] = write(block, byte) == 512 ? byte : nil
            } else if let byte = known[block], let found = read(block, back: random.chance(300)) {
                #expect(found == byte)
                verified += 1
            }
        }
        #expect(verified > 1000)
    }
}
