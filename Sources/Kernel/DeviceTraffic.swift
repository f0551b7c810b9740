import Synchronization

/// What was done to a device since it was opened. Any thread.
public final class DeviceTraffic: Sendable {
    public let reads = Atomic<UInt64>(0)
    public let readBytes = Atomic<UInt64>(0)
    public let writes = Atomic<UInt64>(0)
    public let writtenBytes = Atomic<UInt64>(0)
    /// Reads that one of a mirrored device's two places failed, answered wrong, or did not answer in
    /// time, and that the other was asked for then.
    public let secondReads = Atomic<UInt64>(0)
    /// Since when the worker thread waits for one answer of the device, on the kernel's clock in
    /// nanoseconds; 0 while it does not.
    public let workerWaitsSince = Atomic<UInt64>(0)
    /// Transfers that the device took and has not ended, or nobody has reaped yet; and their bytes.
    public let inFlight = Atomic<Int>(0)
    public let inFlightBytes = Atomic<Int>(0)
    /// Bytes of each, by queue and token; each queue's by its thread only.
    private let lengths = InlineArray<128, Atomic<Int>> { _ in Atomic<Int>(0) }

    public init() {}

    /// A device took a transfer, or refused to.
    func begin(_ transfer: Transfer, _ queue: TransferQueue, _ answer: Errno?) -> Errno? {
        guard answer == nil else { return answer }
        lengths[Self.slot(transfer.token, queue)].store(transfer.length, ordering: .relaxed)
        inFlight.add(1, ordering: .relaxed)
        inFlightBytes.add(transfer.length, ordering: .relaxed)
        return nil
    }

    /// A transfer was reaped.
    func end(_ token: UInt64, _ queue: TransferQueue) {
        let bytes = lengths[Self.slot(token, queue)].load(ordering: .relaxed)
        inFlight.subtract(1, ordering: .relaxed)
        inFlightBytes.subtract(bytes, ordering: .relaxed)
    }

    private static func slot(_ token: UInt64, _ queue: TransferQueue) -> Int {
        let slot = Int(token) % TransferQueue.depth
        return queue == .fetch ? slot : TransferQueue.depth + slot
    }

    public func noteRead(bytes: Int) {
        reads.add(1, ordering: .relaxed)
        readBytes.add(UInt64(bytes), ordering: .relaxed)
    }

    /// Runs what the worker thread waits in.
    @inline(__always)
    func whileWorkerWaits<Result>(_ body: () -> Result) -> Result {
        workerWaitsSince.store(monotonicNow(), ordering: .relaxed)
        defer { workerWaitsSince.store(0, ordering: .relaxed) }
        return body()
    }

    public func noteWrite(bytes: Int) {
        writes.add(1, ordering: .relaxed)
        writtenBytes.add(UInt64(bytes), ordering: .relaxed)
    }
}

/// A device that counts what is done to it.
public protocol CountedDevice: StoreDevice {
    /// All transfers, those that fail included.
    var traffic: DeviceTraffic { get }
}
