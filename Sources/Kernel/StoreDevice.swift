/// Who waits for a transfer: each has a queue of its own, used and reaped by its own thread.
public enum TransferQueue: Sendable {
    /// The fault thread's.
    case fetch
    /// The worker thread's.
    case evict
}

extension TransferQueue {
    /// Transfers that a queue of any device takes at once. Whoever starts more gets EBUSY.
    public static let depth = 64
}

/// One read or write between memory and a device.
public struct Transfer: Sendable {
    /// Address, aligned to the device's blocks, as length and offset are.
    public var memory: UInt64
    /// Bytes.
    public var length: Int
    public var offset: UInt64
    /// Comes back with the completion. Below `TransferQueue.depth`, and of no other transfer that
    /// is under way in the same queue, where bytes in flight are to be right.
    public var token: UInt64

    public init(memory: UInt64, length: Int, offset: UInt64, token: UInt64) {
        self.memory = memory
        self.length = length
        self.offset = offset
        self.token = token
    }
}

public struct TransferCompletion: Sendable {
    public var token: UInt64
    /// Bytes transferred, or a negated errno.
    public var result: Int32

    public init(token: UInt64, result: Int32) {
        self.token = token
        self.result = result
    }
}

/// Something outside RAM that keeps blocks of bytes: a local file, a block device, a remote
/// export. It has two queues, each for one thread; transfers of the same queue may overtake
/// each other. Nothing blocks but `reap` with `wait`, `discard` and `allocate`.
public protocol StoreDevice: AnyObject, Sendable {
    /// Bytes.
    var size: UInt64 { get }
    /// What memory, offset and length of every transfer are multiples of: 512 to 4096 bytes.
    var blockSize: Int { get }
    /// Every transfer ends, after a time-out at the latest; else, when the device pleases.
    var givesUp: Bool { get }
    /// Answers come from a program, on this machine or another, and not from a disk.
    var isRemote: Bool { get }

    /// Tells where in memory most transfers of a queue begin and end, for the device to have the
    /// kernel keep hold of it: with the first transfer, until `letGo`, when it may be
    /// released. One range a queue; an empty one takes the offer back. While none is under way.
    func offer(_ queue: TransferQueue, memory: UInt64, length: Int)
    /// Lets go of what was offered, until the next transfer. While none is under way.
    func letGo(_ queue: TransferQueue)

    /// Takes in a read on behalf of the fault thread, to be begun by `startReads` at the latest.
    /// EBUSY: the queue is full.
    func read(_ transfer: Transfer) -> Errno?
    /// Begins the reads that were taken in: several at once cost less than one after the other.
    /// False: some could not be begun for now, and wait for the next call. Fault thread only.
    func startReads() -> Bool
    /// Asks whoever else holds the same for reads of the fetch queue that take long. `now`: of
    /// `monotonicNow`. Fault thread only.
    func askOthers(at now: UInt64)
    /// Answers are to come to reads that have ended: `reap` takes them in, and tells nobody. Fault
    /// thread only.
    var owesLateAnswers: Bool { get }
    /// Starts a write on behalf of the worker thread. EBUSY: the queue is full.
    func write(_ transfer: Transfer) -> Errno?
    /// Takes in a read on behalf of the worker thread, to be begun by a `reap` that waits at the
    /// latest. EBUSY: the queue is full.
    func readBack(_ transfer: Transfer) -> Errno?
    /// Gives a range back to whoever provides it; what it holds after that is undefined.
    /// EOPNOTSUPP: the device keeps what it has. EBUSY: it was not asked. Other errors come of
    /// its answer, unless they may take effect later. Worker thread only.
    func discard(offset: UInt64, length: UInt64) -> Errno?
    /// Reads again what a finished read of the queue brought, token and all, from somewhere else:
    /// what it brought is wrong, although the device did not say so. ENODATA: there is nowhere
    /// else, or it was asked already. Other errors: what is there could not be asked for.
    func readElsewhere(_ transfer: Transfer, _ queue: TransferQueue) -> Errno?
    /// Sets space aside for a range that holds nothing and is to be written. EOPNOTSUPP: nothing
    /// is gained by it. Worker thread only.
    func allocate(offset: UInt64, length: UInt64) -> Errno?
    /// Takes finished transfers of a queue. With `wait`, begins those that were only taken in, and
    /// blocks until one has finished.
    func reap(
        _ queue: TransferQueue, into completions: UnsafeMutableBufferPointer<TransferCompletion>,
        wait: Bool
    ) -> Int
}

extension StoreDevice {
    public var givesUp: Bool { false }
    public var isRemote: Bool { false }
    public func startReads() -> Bool { true }
    public func askOthers(at now: UInt64) {}
    public var owesLateAnswers: Bool { false }
    public func readElsewhere(_ transfer: Transfer, _ queue: TransferQueue) -> Errno? { .noData }
    public func offer(_ queue: TransferQueue, memory: UInt64, length: Int) {}
    public func letGo(_ queue: TransferQueue) {}
    public func allocate(offset: UInt64, length: UInt64) -> Errno? { .notSupported }
}
