import Kernel

/// How a pager is wanted, after the C types are gone.
public struct PagerOptions: Sendable {
    public enum TrackerChoice: Sendable {
        case automatic, readWriteProtection, writeProtection, zapping, none
    }
    public enum GuardChoice: Sendable { case automatic, move, minor, freeze, writeProtect }
    public enum StoreChoice: Sendable {
        case compressed
        /// Size in bytes.
        case file(path: String, size: UInt64)
        /// In this order.
        case tiers([TierOptions])
    }

    public var tracker: TrackerChoice
    /// For blocks of the memory that it can guard; others are refused.
    public var `guard`: GuardChoice
    public var store: StoreChoice
    /// Of store file: each of the tiers has its own, and so has each that is added later.
    public var seal = TierOptions.Seal.automatic
    /// Where the keys of tiers that are sealed come from, of those that are added later, too.
    public var keySource = Sealer.KeySource.random
    /// How the compressed store is wanted, where there is one.
    public var compressed = CompressedStoreOptions()
    public var compaction = CompactionLimits()
    public var readErrorAction: ReadErrorAction
    /// Bytes, 0 for none.
    public var limit: UInt64
    /// Nanoseconds, 0 for never.
    public var idleAge: UInt64
    public var mode = Mode.active
    /// Millionths of vCPU time, 0 for none.
    public var stallBudget: UInt64 = 0
    /// The guest's, above 0.
    public var vcpuCount = 1
    /// How long a file or device may take to answer before the host program is told. Nanoseconds.
    public var answerMax = FaultServer<LinuxKernel>.answerMaxDefault

    public init(
        tracker: TrackerChoice, guard: GuardChoice = .automatic, store: StoreChoice,
        readErrorAction: ReadErrorAction, limit: UInt64, idleAge: UInt64
    ) {
        self.tracker = tracker
        self.guard = `guard`
        self.store = store
        self.readErrorAction = readErrorAction
        self.limit = limit
        self.idleAge = idleAge
    }
}

/// Why a pager, or a block, could not be set up: an errno for the program and a
/// sentence for the operator, with the cause and the cure.
public struct SetupFailure: Error, Equatable, Sendable {
    public let errno: Errno
    public let message: String

    public init(_ errno: Errno, _ message: String) {
        self.errno = errno
        self.message = message
    }
}
