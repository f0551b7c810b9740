import Kernel

/// What the pager tells the host program. Called on the pager's own threads: an
/// implementation must not block or touch guest memory.
public enum HostEvent: Sendable {
    /// The page, when it is about one.
    case writeFailed(Errno, TierIndex, region: Region?, page: Int)
    case writeRecovered(TierIndex)
    /// The tier, when it is one that could not be read.
    case readFailed(Errno, TierIndex?, region: Region, page: Int, poisoned: Bool)
    case readRecovered
    /// Reads failed that nobody waits for, or waits for any more: the guest goes on.
    case unawaitedReadFailed(Errno, TierIndex)
}

public enum LogLevel: UInt32, Sendable {
    case error = 0
    case warning = 1
    case info = 2
}

/// The host program, as the pager sees it.
public struct Host: Sendable {
    public let report: @Sendable (HostEvent) -> Void
    public let log: @Sendable (LogLevel, String) -> Void

    public init(
        report: @escaping @Sendable (HostEvent) -> Void,
        log: @escaping @Sendable (LogLevel, String) -> Void
    ) {
        self.report = report
        self.log = log
    }
}
