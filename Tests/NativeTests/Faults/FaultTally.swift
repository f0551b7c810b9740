import Kernel
import Testing

/// What became of the faults of one kind.
struct FaultTally {
    /// By the injector's own count.
    var injected = 0
    /// By the counters of the pager, or of its device.
    var noticed = 0
    /// Events, and what was logged as an error.
    var told = 0
    /// Pages whose bytes were not what was last written.
    var wrongPages = 0
    /// Nanoseconds that the longest access, or transfer, took.
    var slowest: UInt64 = 0
    /// Nanoseconds after which none may wait any more, by what was configured.
    var bound: UInt64

    init(timeout: UInt64 = NBDOptions.timeoutDefault) { bound = timeout + Self.margin }

    /// What a busy machine may add to a time-out.
    private static let margin: UInt64 = 10_000_000_000
}

/// A way in which what is below guest memory fails.
struct FaultKind: Sendable {
    let name: String
    /// How much of what is wanted is of this kind, beside the others' shares; 0: a few, however
    /// many are wanted, since each takes long.
    let share: Int
    /// Each fault must be seen by the pager; else it is one that the pager may be spared.
    let isFailure: Bool
    /// Why this machine cannot do it.
    let obstacle: String?
    /// Injects at least so many.
    let run: @Sendable (_ wanted: Int, _ seed: UInt64) throws -> FaultTally

    init(
        _ name: String, share: Int, isFailure: Bool = true, obstacle: String? = nil,
        run: @escaping @Sendable (_ wanted: Int, _ seed: UInt64) throws -> FaultTally
    ) {
        self.name = name
        self.share = share
        self.isFailure = isFailure
        self.obstacle = obstacle
        self.run = run
    }
}
