import Synchronization

/// The time in which the guest runs: what its vCPUs wait is a share of it, and what looking costs
/// them. (How long a page has been idle is not: that goes on while the VM stands still.)
/// Nanoseconds, which begin as those of the kernel's clock and fall behind it by the time that the
/// VM stands still.
public final class GuestClock: Sendable {
    /// One word, so that a reader never sees half a change: while the guest runs, how far this clock
    /// is behind the kernel's; while it stands still, its time, marked.
    private let state = Atomic<UInt64>(0)
    /// The latest time that was read: who read the kernel's clock just before the VM was
    /// stopped could otherwise see a later time than who reads it afterwards.
    private let latest = Atomic<UInt64>(0)

    /// No clock that counts from the machine's start gets that far.
    private static let standsStill: UInt64 = 1 << 63

    public init() {}

    public var isRunning: Bool { state.load(ordering: .relaxed) & Self.standsStill == 0 }

    /// `kernelTime`: the kernel's clock, read now. Any thread; it never goes back.
    public func now(_ kernelTime: UInt64) -> UInt64 {
        latest.max(Self.time(state.load(ordering: .acquiring), kernelTime), ordering: .relaxed).newValue
    }

    /// How far it is behind the kernel's clock: the time that the guest has stood still. Any thread.
    public func behind(_ kernelTime: UInt64) -> UInt64 {
        let state = state.load(ordering: .acquiring)
        return state & Self.standsStill == 0 ? state : kernelTime &- (state & ~Self.standsStill)
    }

    /// Stops it, or lets it go on. Control thread.
    public func setRunning(_ isRunning: Bool, at kernelTime: UInt64) {
        guard isRunning != self.isRunning else { return }
        let time = Self.time(state.load(ordering: .relaxed), kernelTime)
        state.store(isRunning ? kernelTime &- time : time | Self.standsStill, ordering: .releasing)
    }

    private static func time(_ state: UInt64, _ kernelTime: UInt64) -> UInt64 {
        state & standsStill == 0 ? kernelTime &- state : state & ~standsStill
    }
}
