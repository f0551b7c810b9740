import Synchronization

/// What the pager does at all.
public enum Mode: UInt8, Sendable, CaseIterable {
    /// Looks and evicts.
    case active = 0
    /// Looks, and evicts nothing: what would be saved?
    case observe = 1
    /// Neither; what is out comes back when it is touched.
    case off = 2
    /// Brings everything back, then as `off`.
    case drain = 3
}

/// What may be changed while the pager runs. Any thread reads; the control thread writes.
public final class Settings: Sendable {
    private let modeValue = Atomic<UInt8>(Mode.active.rawValue)
    private let limitBytes: Atomic<UInt64>
    private let idleAgeNanoseconds: Atomic<UInt64>
    private let stallBudgetMillionths = Atomic<UInt64>(0)
    private let vcpus = Atomic<Int>(1)

    /// Below this, staging and a working pool would not fit. Bytes.
    public static let limitMin: UInt64 = 32 << 20
    /// Nanoseconds.
    public static let idleAgeMin: UInt64 = 1_000_000_000
    public static let idleAgeMax: UInt64 = 86_400_000_000_000
    /// Millionths of vCPU time.
    public static let stallBudgetMax: UInt64 = 500_000

    public struct OutOfRange: Error, Equatable {
        public let reason: String
    }

    public init(limit: UInt64, idleAge: UInt64) throws(OutOfRange) {
        limitBytes = Atomic(limit)
        idleAgeNanoseconds = Atomic(idleAge)
        try Self.checkLimit(limit)
        try Self.checkIdleAge(idleAge)
    }

    /// For simulations, whose memory is smaller than the smallest sensible limit.
    public init(unchecked limit: UInt64, idleAge: UInt64) {
        limitBytes = Atomic(limit)
        idleAgeNanoseconds = Atomic(idleAge)
    }

    public var mode: Mode {
        guard let mode = Mode(rawValue: modeValue.load(ordering: .relaxed)) else {
            preconditionFailure("only modes are stored")
        }
        return mode
    }
    public func setMode(_ mode: Mode) { modeValue.store(mode.rawValue, ordering: .relaxed) }

    /// Bytes; 0 for none.
    public var limit: UInt64 { limitBytes.value }
    /// Nanoseconds; 0 for never.
    public var idleAge: UInt64 { idleAgeNanoseconds.value }

    /// Share of vCPU time that may be spent waiting for pages; 0 for no budget.
    public var stallBudget: Double { Double(stallBudgetMillionths.value) / 1e6 }

    public func setStallBudget(millionths: UInt64) throws(OutOfRange) {
        guard millionths <= Self.stallBudgetMax else {
            throw OutOfRange(
                reason: "stall budget is \(millionths) millionths of vCPU time; it must be 0 (none) "
                    + "to \(Self.stallBudgetMax) (50 %); 5000 (0.5 %) is a good start")
        }
        stallBudgetMillionths.store(millionths, ordering: .relaxed)
    }

    /// vCPUs of the guest, whose time the stall budget is a share of.
    public var vcpuCount: Int { vcpus.load(ordering: .relaxed) }

    public func setVCPUCount(_ count: UInt64) throws(OutOfRange) {
        guard let count = Int32(exactly: count), count > 0 else {
            throw OutOfRange(reason: "the number of vCPUs is \(count); it must be at least 1")
        }
        vcpus.store(Int(count), ordering: .relaxed)
    }

    public func setLimit(_ bytes: UInt64) throws(OutOfRange) {
        try Self.checkLimit(bytes)
        limitBytes.store(bytes, ordering: .relaxed)
    }

    public func setIdleAge(_ nanoseconds: UInt64) throws(OutOfRange) {
        try Self.checkIdleAge(nanoseconds)
        idleAgeNanoseconds.store(nanoseconds, ordering: .relaxed)
    }

    private static func checkLimit(_ bytes: UInt64) throws(OutOfRange) {
        guard bytes == 0 || bytes >= limitMin else {
            throw OutOfRange(
                reason: "limit is \(bytes) bytes; it must be 0 (no limit) or at least "
                    + "\(limitMin) (32 MiB): raise it, or leave it out")
        }
    }

    private static func checkIdleAge(_ nanoseconds: UInt64) throws(OutOfRange) {
        guard nanoseconds == 0 || (idleAgeMin...idleAgeMax).contains(nanoseconds) else {
            throw OutOfRange(
                reason: "idle age is \(nanoseconds) ns; it must be 0 (age evicts nothing) or "
                    + "from 1 second to 1 day (86400 seconds)")
        }
    }
}
