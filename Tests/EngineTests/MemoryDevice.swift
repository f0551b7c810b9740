import Engine
import Kernel

/// A device of plain memory, for one thread: transfers are done at once, and damage is done
/// by hand.
final class MemoryDevice: StoreDevice, @unchecked Sendable {
    let memory: Mapping
    let blockSize: Int
    /// Writes of so many to come fail, or end early.
    var failingWrites = 0
    /// So many writes, and so many discards, to come are answered with ETIMEDOUT.
    var lostWrites = 0
    var lostDiscards = 0
    var isBusy = false
    /// It does not take in reads.
    var isAway = false
    /// Why there is nowhere else to read from.
    var elsewhere = Errno.noData
    var allocated: [Range<UInt64>] = []
    var writes: [Range<UInt64>] = []
    var discarded: [Range<UInt64>] = []
    private var finished: [TransferQueue: [TransferCompletion]] = [:]

    init(size: Int, blockSize: Int) throws {
        memory = try Mapping(length: size)
        self.blockSize = blockSize
    }

    var size: UInt64 { UInt64(memory.length) }

    private func isAligned(_ transfer: Transfer) -> Bool {
        let block = UInt64(blockSize)
        return transfer.memory % block == 0 && transfer.offset % block == 0
            && transfer.length % blockSize == 0 && transfer.offset + UInt64(transfer.length) <= size
    }

    private func finish(_ transfer: Transfer, _ queue: TransferQueue, _ result: Int32) -> Errno? {
        precondition(isAligned(transfer))
        finished[queue, default: []].append(TransferCompletion(token: transfer.token, result: result))
        return nil
    }

    func read(_ transfer: Transfer) -> Errno? { read(transfer, .fetch) }
    func readBack(_ transfer: Transfer) -> Errno? { read(transfer, .evict) }

    private func read(_ transfer: Transfer, _ queue: TransferQueue) -> Errno? {
        if isAway { return .timedOut }
        let target = UnsafeMutableRawPointer(bitPattern: UInt(transfer.memory))!
        target.copyMemory(from: memory.base + Int(transfer.offset), byteCount: transfer.length)
        return finish(transfer, queue, Int32(transfer.length))
    }

    func write(_ transfer: Transfer) -> Errno? {
        writes.append(transfer.offset..<transfer.offset + UInt64(transfer.length))
        if failingWrites > 0 {
            failingWrites -= 1
            let part = failingWrites % 2 == 0 ? -Errno.inputOutput.code : Int32(transfer.length / 2)
            return finish(transfer, .evict, part)
        }
        if lostWrites > 0 {
            lostWrites -= 1
            return finish(transfer, .evict, -Errno.timedOut.code)
        }
        let source = UnsafeRawPointer(bitPattern: UInt(transfer.memory))!
        (memory.base + Int(transfer.offset)).copyMemory(from: source, byteCount: transfer.length)
        return finish(transfer, .evict, Int32(transfer.length))
    }

    func readElsewhere(_ transfer: Transfer, _ queue: TransferQueue) -> Errno? { elsewhere }

    func discard(offset: UInt64, length: UInt64) -> Errno? {
        if isBusy { return .busy }
        discarded.append(offset..<offset + length)
        if lostDiscards > 0 {
            lostDiscards -= 1
            return .timedOut
        }
        (memory.base + Int(offset)).initializeMemory(as: UInt8.self, repeating: 0xdb, count: Int(length))
        return nil
    }

    func allocate(offset: UInt64, length: UInt64) -> Errno? {
        allocated.append(offset..<offset + length)
        return nil
    }

    func reap(
        _ queue: TransferQueue, into completions: UnsafeMutableBufferPointer<TransferCompletion>,
        wait: Bool
    ) -> Int {
        let all = finished[queue] ?? []
        let count = min(all.count, completions.count)
        precondition(!wait || count > 0, "a wait for nothing")
        for index in 0..<count { completions[index] = all[index] }
        finished[queue] = Array(all.dropFirst(count))
        return count
    }
}
