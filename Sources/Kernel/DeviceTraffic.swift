import Synchronization

/// What was done to a device since it was opened. Any thread.
public final class DeviceTraffic: Sendable {
    public let reads = Atomic<UInt64>(0)
    public let readBytes = Atomic<UInt64>(0)
    public let writes = Atomic<UInt64>(0)
    public let writtenBytes = Atomic<UInt64>(0)

    public init() {}

    public func noteRead(bytes: Int) {
        reads.add(1, ordering: .relaxed)
        readBytes.add(UInt64(bytes), ordering: .relaxed)
    }

    public func noteWrite(bytes: Int) {
        writes.add(1, ordering: .relaxed)
        writtenBytes.add(UInt64(bytes), ordering: .relaxed)
    }
}
