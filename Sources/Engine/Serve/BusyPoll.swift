/// How long the fault server keeps looking for the next fault before it sleeps.
/// Waking a halted CPU costs more than serving a fault, so it is worth waiting for
/// one that comes soon, and worth nothing when none does.
public struct BusyPoll {
    /// Nanoseconds; 0 while polling does not pay.
    public private(set) var window: UInt64 = 0
    public static let windowMax: UInt64 = 50_000
    private static let windowMin: UInt64 = 4_000

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
}
