import Synchronization

/// What has been done over the connections of a device. Any thread reads them.
public final class NBDCounters: Sendable {
    /// Connections that are there at this moment.
    public let connected = Atomic<Int>(0)
    /// Connections that were lost, or given up because nothing came over them any more.
    public let losses = Atomic<UInt64>(0)
    /// Connections that were made in the place of lost ones.
    public let reconnections = Atomic<UInt64>(0)
    /// Attempts to do so that failed.
    public let failedAttempts = Atomic<UInt64>(0)
    /// Of those, attempts that found something else than our export.
    public let refusals = Atomic<UInt64>(0)
    /// Transfers that were sent again after their connection was lost.
    public let resubmissions = Atomic<UInt64>(0)
    /// Transfers that failed because the server was away for too long.
    public let timeouts = Atomic<UInt64>(0)
    /// Transfers that the server answered with an error: reads, and writes and discards.
    public let readErrors = Atomic<UInt64>(0)
    public let writeErrors = Atomic<UInt64>(0)

    public init() {}

    static func count(_ counter: borrowing Atomic<UInt64>, _ amount: Int = 1) {
        counter.add(UInt64(amount), ordering: .relaxed)
    }
}
