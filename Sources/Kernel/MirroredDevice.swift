/// Two devices that hold the same: every write goes to both and succeeds only when both
/// have it; a read that one fails is asked of the other, and one that an access waits for is when
/// it takes long (`MirroredFetches`).
///
/// A write that one side refuses fails as a whole: a page of which two copies were asked
/// for must not have one only. What the other side has written of it is never read.
public final class MirroredDevice<Side: StoreDevice>: StoreDevice, @unchecked Sendable {
    /// Each used by its queue's thread only.
    private let fetches: MirroredFetches<Side>
    private var evictions: MirroredQueue<Side>

    /// Nanoseconds after which a read that an access waits for is asked of the other side as well:
    /// longer than a disk with much to do takes, as a rule.
    public static var patience: UInt64 { 500_000_000 }

    let sides: [Side]
    /// The smaller side's, in bytes.
    public let size: UInt64
    public let blockSize: Int
    /// The time-out of a server must not be cut short for the sake of a disk.
    public var givesUp: Bool { sides.contains { $0.givesUp } }

    /// `depth`: transfers that a queue of either side takes at once. `traffic`: where reads are
    /// counted that a second side is asked for.
    public init(
        _ first: Side, _ second: Side, depth: Int = TransferQueue.depth,
        traffic: DeviceTraffic = DeviceTraffic()
    ) throws(Errno) {
        sides = [first, second]
        size = min(first.size, second.size)
        blockSize = max(first.blockSize, second.blockSize)
        fetches = try MirroredFetches(sides: sides, depth: depth, traffic)
        evictions = MirroredQueue(sides: sides, depth: depth, traffic)
    }

    /// `transfer.token` is below `depth`.
    public func read(_ transfer: Transfer) -> Errno? { fetches.begin(transfer) }
    public func readBack(_ transfer: Transfer) -> Errno? { evictions.begin(transfer, .read) }
    public func startReads() -> Bool { fetches.startReads() }
    public func askOthers(at now: UInt64) { fetches.askOthers(at: now) }
    public var owesLateAnswers: Bool { fetches.late > 0 }

    /// Reads are asked of the other side first from then on. Tokens are below `depth`.
    public func readElsewhere(_ transfer: Transfer, _ queue: TransferQueue) -> Errno? {
        switch queue {
        case .fetch: fetches.readElsewhere(transfer)
        case .evict: evictions.readElsewhere(transfer)
        }
    }

    public func write(_ transfer: Transfer) -> Errno? { evictions.begin(transfer, .write) }

    public func discard(offset: UInt64, length: UInt64) -> Errno? {
        let failures = sides.map { $0.discard(offset: offset, length: length) }
        let later = failures.first { $0?.mayTakeEffectLater ?? false }
        return later ?? Self.answer(of: failures)
    }

    public func offer(_ queue: TransferQueue, memory: UInt64, length: Int) {
        // To take back what an answer is owed in would wait for it, before Linux 6.13
        // (io_rsrc_ref_quiesce); the ring's end lets go of it.
        if queue == .fetch, length == 0, fetches.late > 0 { return }
        for index in sides.indices {
            // The fault thread's reads end in memory of the sides' own.
            let own = queue == .fetch && length > 0 ? fetches.landing(of: index) : (memory, length)
            sides[index].offer(queue, memory: own.0, length: own.1)
        }
    }

    public func letGo(_ queue: TransferQueue) {
        for side in sides { side.letGo(queue) }
    }

    public func allocate(offset: UInt64, length: UInt64) -> Errno? {
        Self.answer(of: sides.map { $0.allocate(offset: offset, length: length) })
    }

    /// EOPNOTSUPP only where neither side can, or gains by it.
    private static func answer(of failures: [Errno?]) -> Errno? {
        if let failure = failures.first(where: { $0 != nil && $0 != .notSupported }) { return failure }
        return failures.contains(nil) ? nil : .notSupported
    }

    public func reap(
        _ queue: TransferQueue, into completions: UnsafeMutableBufferPointer<TransferCompletion>,
        wait: Bool
    ) -> Int {
        switch queue {
        case .fetch: unsafe fetches.reap(into: completions, wait: wait)
        case .evict: unsafe evictions.reap(into: completions, wait: wait)
        }
    }
}

/// The worker's queue of a mirrored device: which side still owes an answer to which transfer.
struct MirroredQueue<Side: StoreDevice> {
    enum Kind { case read, write }

    private struct Pending {
        var transfer: Transfer
        var kind: Kind
        /// Answers to come.
        var awaited: Int
        /// Bytes, or a negated errno: the worse of the sides' answers.
        var result: Int32
        /// The side that a read has not been asked of.
        var untried: Int?
    }

    let sides: [Side]
    private let traffic: DeviceTraffic
    /// The side that reads are asked of first.
    private var preferred = 0
    /// By token: the side that the last read was not asked of.
    private var untried: [Int?]
    private var pending: [Pending?]
    private var free: [Int]
    /// Transfers under way at each side.
    private var underWay = [0, 0]
    /// Whole transfers that ended while others were started or waited for.
    private var ended: [TransferCompletion] = []

    init(sides: [Side], depth: Int, _ traffic: DeviceTraffic) {
        self.sides = sides
        self.traffic = traffic
        pending = Array(repeating: nil, count: depth)
        free = Array((0..<depth).reversed())
        untried = Array(repeating: nil, count: depth)
        ended.reserveCapacity(depth)
    }

    /// EBUSY: the queue, or that of a side, is full.
    mutating func begin(_ transfer: Transfer, _ kind: Kind) -> Errno? {
        guard let slot = free.popLast() else { return .busy }
        var entry = Pending(
            transfer: transfer, kind: kind, awaited: 0, result: Int32(transfer.length), untried: nil)
        var failure: Errno?
        switch kind {
        case .read:
            entry.awaited = 1
            entry.untried = 1 - preferred
            if start(slot, transfer, kind, side: preferred) != nil {
                // It may take the read later.
                entry.untried = preferred
                failure = start(slot, transfer, kind, side: 1 - preferred)
                if failure == nil { noteSecondRead() }
            }
        case .write:
            failure = start(slot, transfer, kind, side: 0)
            guard failure == nil else { break }
            entry.awaited = 1
            if let refused = start(slot, transfer, kind, side: 1) {
                // Not even sent: nothing of it takes effect later.
                entry.result = -(refused.mayTakeEffectLater ? .inputOutput : refused).code
            } else {
                entry.awaited = 2
            }
        }
        if let failure {
            free.append(slot)
            return failure
        }
        pending[slot] = entry
        return nil
    }

    mutating func readElsewhere(_ transfer: Transfer) -> Errno? {
        guard let side = untried[Int(transfer.token)] else { return .noData }
        guard let slot = free.popLast() else { return .busy }
        if let failure = start(slot, transfer, .read, side: side) {
            free.append(slot)
            return failure
        }
        pending[slot] = Pending(
            transfer: transfer, kind: .read, awaited: 1, result: Int32(transfer.length), untried: nil)
        preferred = side
        noteSecondRead()
        return nil
    }

    private func noteSecondRead() { traffic.secondReads.add(1, ordering: .relaxed) }

    private mutating func start(
        _ slot: Int, _ transfer: Transfer, _ kind: Kind, side: Int
    ) -> Errno? {
        var named = transfer
        named.token = UInt64(slot)
        let errno: Errno? =
            switch kind {
            case .write: sides[side].write(named)
            case .read: sides[side].readBack(named)
            }
        if errno == nil { underWay[side] += 1 }
        return errno
    }

    mutating func reap(
        into completions: UnsafeMutableBufferPointer<TransferCompletion>, wait: Bool
    ) -> Int {
        for side in sides.indices { unsafe collect(side, completions, wait: false) }
        while wait, ended.isEmpty, let side = underWay.firstIndex(where: { $0 > 0 }) {
            unsafe collect(side, completions, wait: true)
        }
        let count = min(ended.count, completions.count)
        for index in 0..<count { unsafe completions[index] = ended[index] }
        ended.removeFirst(count)
        return count
    }

    /// Takes a side's answers; `scratch` is overwritten.
    private mutating func collect(
        _ side: Int, _ scratch: UnsafeMutableBufferPointer<TransferCompletion>, wait: Bool
    ) {
        guard underWay[side] > 0 else { return }
        let count = unsafe sides[side].reap(.evict, into: scratch, wait: wait)
        underWay[side] -= count
        for index in 0..<count { unsafe note(scratch[index], from: side) }
    }

    private mutating func note(_ answer: TransferCompletion, from side: Int) {
        let slot = Int(answer.token)
        guard var entry = pending[slot] else { preconditionFailure("a transfer ended twice") }
        entry.awaited -= 1
        let failed = answer.result != Int32(entry.transfer.length)
        if failed, entry.kind == .read, let other = entry.untried {
            entry.untried = nil
            preferred = other
            if start(slot, entry.transfer, .read, side: other) == nil {
                noteSecondRead()
                entry.awaited += 1
                pending[slot] = entry
                return
            }
        }
        if failed { entry.result = Self.worse(entry.result, answer.result) }
        if entry.awaited > 0 {
            pending[slot] = entry
            return
        }
        pending[slot] = nil
        free.append(slot)
        if entry.kind == .read { untried[Int(entry.transfer.token)] = entry.untried }
        ended.append(TransferCompletion(token: entry.transfer.token, result: entry.result))
    }

    /// Whatever else went wrong: that a side may yet do what it was asked to must be known.
    private static func worse(_ one: Int32, _ other: Int32) -> Int32 {
        if one < 0, Errno(-one).mayTakeEffectLater { return one }
        if other < 0, Errno(-other).mayTakeEffectLater { return other }
        return min(one, other)
    }
}
