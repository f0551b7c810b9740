import Kernel

/// The store's file: transfers take their time, overtake each other, and fail.
///
/// A transfer's bytes go over at the start or at the end of its time, by chance: memory
/// or a slot that is reused too early shows as wrong bytes.
@safe public final class SimulatedDisk: @unchecked Sendable {
    private let contents: Mapping
    private var isWritten: [Bool]
    private var pending: [Pending] = []
    private var finishedFetches: [TransferCompletion] = []
    private var finishedEvictions: [TransferCompletion] = []
    /// Reads that failed or ended early so far.
    public private(set) var failedReads = 0

    private struct Pending {
        let transfer: Transfer
        let queue: TransferQueue
        var isDone: Bool
        var result: Int32
    }

    public init(slots: Int) throws(Errno) {
        contents = try Mapping(length: slots * pageSize)
        isWritten = Array(repeating: false, count: slots)
    }

    public var isIdle: Bool {
        pending.isEmpty && finishedFetches.isEmpty && finishedEvictions.isEmpty
    }

    func submit(_ transfer: Transfer, _ queue: TransferQueue, _ kernel: SimulatedKernel) {
        let scheduler = kernel.scheduler
        guard transfer.offset + UInt64(transfer.length) <= UInt64(contents.length) else {
            scheduler.fail("a transfer past the end of the store")
        }
        var job = Pending(transfer: transfer, queue: queue, isDone: false, result: 0)
        job.result = outcome(of: transfer, queue, kernel)
        if scheduler.random.chance(500) { carryOut(&job, kernel) }
        pending.append(job)
    }

    private func outcome(of transfer: Transfer, _ queue: TransferQueue, _ kernel: SimulatedKernel) -> Int32 {
        let part = Int32(kernel.scheduler.random.below(transfer.length) & ~511)
        switch queue {
        case .fetch:
            if kernel.strikes(\.readError) {
                failedReads += 1
                return -Errno.inputOutput.code
            }
            if kernel.strikes(\.shortRead) {
                failedReads += 1
                return part
            }
        case .evict:
            if kernel.strikes(\.writeError) { return -Errno.inputOutput.code }
            if kernel.strikes(\.noSpace) { return -Errno.noSpace.code }
            if kernel.strikes(\.shortWrite) { return part }
        }
        return Int32(transfer.length)
    }

    private func carryOut(_ job: inout Pending, _ kernel: SimulatedKernel) {
        job.isDone = true
        let transfer = job.transfer
        let memory = UnsafeMutableRawPointer(bitPattern: UInt(transfer.memory))!
        let slot = Int(transfer.offset) / pageSize
        // A failed transfer may have moved any part of its bytes.
        let bytes = job.result < 0 ? kernel.scheduler.random.below(transfer.length) : Int(job.result)
        switch job.queue {
        case .fetch:
            if !isWritten[slot] { kernel.scheduler.fail("slot \(slot) was read, but never written") }
            let part = kernel.sabotage == .diskReadsHalf ? bytes / 2 : bytes
            memory.copyMemory(from: contents.base + Int(transfer.offset), byteCount: part)
        case .evict:
            for index in slot..<slot + transfer.length / pageSize { isWritten[index] = true }
            if kernel.sabotage == .diskLosesWrites { return }
            var offset = Int(transfer.offset)
            if kernel.sabotage == .diskMisplacesWrites, offset >= pageSize { offset -= pageSize }
            (contents.base + offset).copyMemory(from: memory, byteCount: bytes)
        }
    }

    /// Finishes some transfer. False when there is none.
    public func progress(_ kernel: SimulatedKernel) -> Bool {
        guard !pending.isEmpty else { return false }
        var job = pending.remove(at: kernel.scheduler.random.below(pending.count))
        if !job.isDone { carryOut(&job, kernel) }
        let completion = TransferCompletion(token: job.transfer.token, result: job.result)
        switch job.queue {
        case .fetch: finishedFetches.append(completion)
        case .evict: finishedEvictions.append(completion)
        }
        return true
    }

    public func hasFinished(_ queue: TransferQueue) -> Bool {
        queue == .fetch ? !finishedFetches.isEmpty : !finishedEvictions.isEmpty
    }

    func reap(
        _ queue: TransferQueue, into completions: UnsafeMutableBufferPointer<TransferCompletion>
    ) -> Int {
        let finished = queue == .fetch ? finishedFetches : finishedEvictions
        let count = min(finished.count, completions.count)
        for index in 0..<count { completions[index] = finished[index] }
        switch queue {
        case .fetch: finishedFetches.removeFirst(count)
        case .evict: finishedEvictions.removeFirst(count)
        }
        return count
    }
}
