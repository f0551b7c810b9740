import Kernel
import SeededRandom

/// A device of the simulated machine: transfers take their time, overtake each other, and fail.
///
/// A transfer's bytes go over at the start or at the end of its time, by chance: memory
/// or a slot that is reused too early shows as wrong bytes.
@safe public final class SimulatedDisk: @unchecked Sendable {
    private unowned let kernel: SimulatedKernel
    private let contents: Mapping
    /// Sectors that a write reached, or could have.
    private var isWritten: [Bool]
    public let blockSize: Int
    /// What each sector held before it was last written.
    private let previous: Mapping
    /// What is read tells whether it is what was written last.
    private let detectsDamage: Bool
    private var pending: [Pending] = []
    /// Reads of the fault thread that were taken in and not begun.
    private var held: [Pending] = []
    private var late: [Late] = []
    private var finishedFetches: [TransferCompletion] = []
    private var finishedEvictions: [TransferCompletion] = []
    /// Reads that failed or ended early so far.
    public private(set) var failedReads = 0
    public let traffic = DeviceTraffic()

    private struct Pending {
        let transfer: Transfer
        let queue: TransferQueue
        let isWrite: Bool
        var isDone: Bool
        var result: Int32
    }

    /// What was answered with ETIMEDOUT, and is carried out all the same.
    private struct Late {
        let offset: Int
        let length: Int
        /// Nil: a discard.
        let bytes: [UInt8]?
        let deadline: UInt64
    }

    private static let sectorSize = 512
    /// It is over then. Nanoseconds.
    public static let lateMax: UInt64 = 1_000_000_000

    /// `slots`: pages. `detectsDamage`: what is read may be damaged or stale, since that is noticed.
    public init(
        slots: Int, blockSize: Int, detectsDamage: Bool, kernel: SimulatedKernel
    ) throws(Errno) {
        self.kernel = kernel
        self.blockSize = blockSize
        self.detectsDamage = detectsDamage
        contents = try Mapping(length: slots * pageSize)
        previous = try Mapping(length: slots * pageSize)
        isWritten = Array(repeating: false, count: contents.length / Self.sectorSize)
    }

    public var isIdle: Bool {
        pending.isEmpty && held.isEmpty && finishedFetches.isEmpty && finishedEvictions.isEmpty
    }

    private func submit(_ transfer: Transfer, _ queue: TransferQueue, isWrite: Bool) -> Errno? {
        let scheduler = kernel.scheduler
        scheduler.step()
        if kernel.strikes(\.submitError) { return .busy }
        if isWrite {
            traffic.noteWrite(bytes: transfer.length)
        } else {
            traffic.noteRead(bytes: transfer.length)
        }
        kernel.checkOwnRead(transfer.memory, transfer.length)
        kernel.note("submit", Int(transfer.offset) / Self.sectorSize, transfer.length / Self.sectorSize)
        for number in [transfer.memory, transfer.offset, UInt64(transfer.length)]
        where number % UInt64(blockSize) != 0 || transfer.length == 0 {
            scheduler.fail("a transfer is not aligned")
        }
        guard transfer.offset + UInt64(transfer.length) <= UInt64(contents.length) else {
            scheduler.fail("a transfer past the end of the store")
        }
        carryOutLate()
        var job = Pending(transfer: transfer, queue: queue, isWrite: isWrite, isDone: false, result: 0)
        job.result = outcome(of: transfer, isWrite: isWrite)
        if isWrite, kernel.strikes(\.lateEffect) {
            postpone(transfer)
            job.result = -Errno.timedOut.code
            job.isDone = true
        } else if scheduler.random.chance(500) {
            carryOut(&job)
        }
        if queue == .fetch { held.append(job) } else { pending.append(job) }
        return nil
    }

    private func outcome(of transfer: Transfer, isWrite: Bool) -> Int32 {
        let part = Int32(kernel.scheduler.random.below(transfer.length) & ~511)
        guard isWrite else {
            if kernel.strikes(\.readError) {
                failedReads += 1
                return -Errno.inputOutput.code
            }
            if kernel.strikes(\.shortRead) {
                failedReads += 1
                return part
            }
            return Int32(transfer.length)
        }
        if kernel.strikes(\.writeError) { return -Errno.inputOutput.code }
        if kernel.strikes(\.noSpace) { return -Errno.noSpace.code }
        if kernel.strikes(\.shortWrite) { return part }
        return Int32(transfer.length)
    }

    private func carryOut(_ job: inout Pending) {
        job.isDone = true
        let transfer = job.transfer
        let memory = UnsafeMutableRawPointer(bitPattern: UInt(transfer.memory))!
        let first = Int(transfer.offset) / Self.sectorSize
        let sectors = first..<first + transfer.length / Self.sectorSize
        // A failed transfer may have moved any part of its bytes.
        let bytes = job.result < 0 ? kernel.scheduler.random.below(transfer.length) : Int(job.result)
        guard job.isWrite else {
            if let sector = sectors.first(where: { !isWritten[$0] }) {
                kernel.scheduler.fail("sector \(sector) was read, but never written")
            }
            let part = kernel.sabotage == .diskReadsHalf ? bytes / 2 : bytes
            memory.copyMemory(from: contents.base + Int(transfer.offset), byteCount: part)
            if part > 0, detectsDamage { damage(memory, part, transfer.offset) }
            return
        }
        for sector in sectors { isWritten[sector] = true }
        if kernel.sabotage == .diskLosesWrites { return }
        var offset = Int(transfer.offset)
        if kernel.sabotage == .diskMisplacesWrites, offset >= blockSize { offset -= blockSize }
        (previous.base + offset).copyMemory(from: contents.base + offset, byteCount: bytes)
        (contents.base + offset).copyMemory(from: memory, byteCount: bytes)
    }

    // MARK: Late effects

    private var isVeryLate: Bool { kernel.sabotage == .doubtedSegmentsAreUsed }

    /// A write's bytes are what they are now.
    private func postpone(_ transfer: Transfer) {
        let memory = UnsafeRawPointer(bitPattern: UInt(transfer.memory))!
        let bytes = [UInt8](UnsafeRawBufferPointer(start: memory, count: transfer.length))
        postpone(Int(transfer.offset), transfer.length, bytes)
    }

    private func postpone(_ offset: Int, _ length: Int, _ bytes: [UInt8]?) {
        let deadline = kernel.scheduler.now + Self.lateMax * (isVeryLate ? 100 : 1)
        late.append(Late(offset: offset, length: length, bytes: bytes, deadline: deadline))
    }

    /// What is due, and by chance more.
    private func carryOutLate() {
        for index in late.indices.reversed()
        where late[index].deadline <= kernel.scheduler.now
            || kernel.scheduler.random.chance(isVeryLate ? 1 : 20)
        {
            let effect = late.remove(at: index)
            guard let bytes = effect.bytes else {
                erase(effect.offset..<effect.offset + effect.length)
                continue
            }
            kernel.note("late write", effect.offset / Self.sectorSize, effect.length / Self.sectorSize)
            for sector in 0..<effect.length / Self.sectorSize {
                isWritten[effect.offset / Self.sectorSize + sector] = true
            }
            bytes.withUnsafeBytes {
                (contents.base + effect.offset).copyMemory(from: $0.baseAddress!, byteCount: $0.count)
            }
        }
    }

    private func erase(_ range: Range<Int>) {
        kernel.note("erase", range.lowerBound / Self.sectorSize, range.count / Self.sectorSize)
        (contents.base + range.lowerBound).initializeMemory(
            as: UInt8.self, repeating: 0xdb, count: range.count)
        for sector in range.lowerBound / Self.sectorSize..<range.upperBound / Self.sectorSize {
            isWritten[sector] = false
        }
    }

    // MARK: Damage

    private func damage(_ memory: UnsafeMutableRawPointer, _ count: Int, _ offset: UInt64) {
        if kernel.strikes(\.bitFlip) { flip(memory, count) }
        guard kernel.strikes(\.staleRead) else { return }
        failedReads += 1
        memory.copyMemory(from: previous.base + Int(offset), byteCount: count)
    }

    private func flip(_ memory: UnsafeMutableRawPointer, _ count: Int) {
        failedReads += 1
        let offset = kernel.scheduler.random.below(count)
        let byte = memory.load(fromByteOffset: offset, as: UInt8.self)
        let flipped = byte ^ 1 << UInt8(kernel.scheduler.random.below(8))
        memory.storeBytes(of: flipped, toByteOffset: offset, as: UInt8.self)
    }

    /// Finishes some transfer. False when there is none.
    public func progress() -> Bool {
        carryOutLate()
        guard !pending.isEmpty else { return false }
        var job = pending.remove(at: kernel.scheduler.random.below(pending.count))
        if !job.isDone { carryOut(&job) }
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

    private func take(
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

extension SimulatedDisk: CountedDevice {
    public var size: UInt64 { UInt64(contents.length) }

    public func read(_ transfer: Transfer) -> Errno? { submit(transfer, .fetch, isWrite: false) }
    /// Now and then only some of them.
    public func startReads() -> Bool {
        kernel.scheduler.step()
        let count = kernel.strikes(\.submitError) ? kernel.scheduler.random.below(held.count + 1) : held.count
        pending += held[..<count]
        held.removeFirst(count)
        return held.isEmpty
    }

    public func write(_ transfer: Transfer) -> Errno? { submit(transfer, .evict, isWrite: true) }
    public func readBack(_ transfer: Transfer) -> Errno? { submit(transfer, .evict, isWrite: false) }

    public func discard(offset: UInt64, length: UInt64) -> Errno? {
        kernel.scheduler.step()
        if kernel.strikes(\.discardFailure) { return .inputOutput }
        let reach = kernel.sabotage == .diskDiscardsTooMuch ? length + UInt64(pageSize) : length
        if kernel.strikes(\.lateEffect) {
            postpone(Int(offset), Int(length), nil)
            return .timedOut
        }
        erase(Int(offset)..<min(Int(offset + reach), contents.length))
        return nil
    }

    public func reap(
        _ queue: TransferQueue, into completions: UnsafeMutableBufferPointer<TransferCompletion>,
        wait: Bool
    ) -> Int {
        kernel.scheduler.step()
        if wait { kernel.scheduler.block { self.hasFinished(queue) } }
        let count = take(queue, into: completions)
        if count > 0 { kernel.note("reap", count) }
        return count
    }
}
