/// A bound on how much may be done in a second, as a token bucket: what was not used in the
/// last second may be used at once. What is asked for may begin while anything is left, and is
/// then paid for in full: so the bound is kept on average, and no single step is too large for it.
public struct RateLimit: Equatable, Sendable {
    /// Units a second; 0 for no bound.
    public let rate: UInt64
    /// The moment up to which all that could be used has been. Nanoseconds.
    private var usedUp: UInt64 = 0

    /// What may be used at once after a rest: as much as comes in this time. Nanoseconds.
    public static let burst: UInt64 = 1_000_000_000

    public init(rate: UInt64) { self.rate = rate }

    /// How long to wait before the next step, in nanoseconds; 0: not at all. `reserve`: as much
    /// must be left over, in nanoseconds of what comes in, for those who are more urgent.
    public func delay(at now: UInt64, reserve: UInt64 = 0) -> UInt64 {
        guard rate > 0 else { return 0 }
        let ready = usedUp + reserve
        return ready > now ? ready - now : 0
    }

    /// How much may be done at once without going below `reserve`, when there is no delay; nil
    /// for no bound.
    public func room(at now: UInt64, reserve: UInt64 = 0) -> UInt64? {
        guard rate > 0 else { return nil }
        let ready = max(usedUp, now - min(now, Self.burst)) + reserve
        guard now > ready else { return 0 }
        return UInt64(1_000_000_000).dividingFullWidth(rate.multipliedFullWidth(by: now - ready)).quotient
    }

    /// Pays for a step.
    public mutating func use(_ amount: UInt64, at now: UInt64) {
        guard rate > 0, amount > 0 else { return }
        let nanoseconds = rate.dividingFullWidth(amount.multipliedFullWidth(by: 1_000_000_000)).quotient
        usedUp = max(usedUp, now - min(now, Self.burst)) + nanoseconds
    }
}

/// Who wants to read from a device, the most urgent first.
public enum ReadPurpose: Sendable {
    /// A guest access waits.
    case fault
    /// A page comes early.
    case prefetch
    /// Without it, no page can leave.
    case room
    /// Pages move between tiers.
    case background

    /// What must be left to those who are more urgent, in nanoseconds of what comes in.
    public var reserve: UInt64 {
        switch self {
        case .fault: 0
        case .prefetch: RateLimit.burst / 2
        case .room: RateLimit.burst / 4
        case .background: RateLimit.burst / 4 * 3
        }
    }
}

/// Bounds on what is done to a device; 0 for none.
public struct RateLimits: Equatable, Sendable {
    /// Transfers a second.
    public var transfers: UInt64
    /// Bytes a second.
    public var bytes: UInt64

    public init(transfers: UInt64 = 0, bytes: UInt64 = 0) {
        self.transfers = transfers
        self.bytes = bytes
    }

    public var isNone: Bool { transfers == 0 && bytes == 0 }
}
