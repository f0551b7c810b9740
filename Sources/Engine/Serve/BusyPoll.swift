/// How long the fault server keeps looking for the next fault before it sleeps.
/// Waking a halted CPU costs more than serving a fault, so it is worth waiting for
/// one that comes soon, and worth nothing when none does. So it is with reads that are under way:
/// those of a quick disk are worth waiting for. A server on this machine needs the CPU itself.
public struct BusyPoll {
    /// Nanoseconds; 0 while polling does not pay.
    public private(set) var window: UInt64 = 0
    public static let windowMax: UInt64 = 50_000
    private static let windowMin: UInt64 = 4_000
    /// What reads have taken of late, on average; 0 before the first. Nanoseconds.
    private var readTime: UInt64 = 0
    /// Slower reads are not waited for: sleeping adds little to them.
    public static let readTimeMax: UInt64 = 200_000

    public init() {}

    /// A fault came after `idle` nanoseconds, of which the first `window` were polled.
    public mutating func faultCame(afterIdle idle: UInt64) {
        if idle <= window { return }
        if idle <= Self.windowMax {
            window = min(max(window * 2, Self.windowMin), Self.windowMax)
        } else {
            window = window / 2 >= Self.windowMin ? window / 2 : 0
        }
    }

    /// How long to keep looking while reads are under way, in nanoseconds.
    public var readWindow: UInt64 {
        max(window, readTime <= Self.readTimeMax ? 2 * readTime : 0)
    }

    /// A page that an access waited for came from a disk after so many nanoseconds.
    public mutating func readTook(_ nanoseconds: UInt64) {
        // One that took very long says nothing of the next.
        let time = min(nanoseconds, 2 * Self.readTimeMax)
        readTime = readTime == 0 ? time : (7 * readTime + time) / 8
    }
}
