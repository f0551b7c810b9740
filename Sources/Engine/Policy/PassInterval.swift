/// How often the tracker looks: often enough that an idle age is known to one eighth,
/// never so often that looking costs more than it saves.
public enum PassInterval {
    private static let shortest: UInt64 = 250_000_000
    private static let longest: UInt64 = 30_000_000_000
    private static let perIdleAge: UInt64 = 8
    /// With a limit and nothing else to go by.
    private static let limitOnly: UInt64 = 500_000_000
    /// Where nothing is to be evicted: only for the working set's sake. Under a stall budget
    /// alone, too, unless that costs too much.
    private static let observing: UInt64 = 1_000_000_000

    /// Nanoseconds between passes. `idleAge` in nanoseconds, 0 when age evicts nothing.
    /// `affordable`: under a stall budget, how far passes must lie apart for what they cost;
    /// an idle age and a limit want them as often as they do.
    public static func nanoseconds(idleAge: UInt64, limited: Bool, affordable: UInt64 = 0) -> UInt64 {
        guard idleAge > 0 else {
            return limited ? limitOnly : min(max(observing, affordable), longest)
        }
        let wanted = min(max(idleAge / perIdleAge, shortest), longest)
        return limited ? min(wanted, limitOnly) : wanted
    }
}

/// What the tracker's passes cost, in nanoseconds a pass, averaged over the last few. Pure.
public struct PassCost: Equatable, Sendable {
    /// CPU time of the worker.
    private var worker = 0.0
    /// vCPU time: the next touch of an armed page is a light fault.
    private var guest = 0.0

    /// Of one CPU, at most.
    private static let workerShare = 0.01
    /// Of the stall budget, at most. What pages that have left may cost is the rest, and more:
    /// light faults are not measured, and do not count against it.
    private static let guestPartOfBudget = 0.5
    /// Light faults that take as long as one that a thread answers.
    private static let lightFaultsPerWait = 20.0
    private static let weight = 0.5

    public init() {}

    /// A pass took `cpu` nanoseconds of the worker and found so many pages touched. `wait`
    /// is what an access to a page that has left waits for as a rule, in nanoseconds.
    public mutating func note(cpu: UInt64, touchedPages: Int, wait: Double) {
        worker += Self.weight * (Double(cpu) - worker)
        guest += Self.weight * (Double(touchedPages) * wait / Self.lightFaultsPerWait - guest)
    }

    /// Nanoseconds from pass to pass at which passes cost what they may. `budget` is a share
    /// of vCPU time, above 0.
    public func affordableInterval(budget: Double, vcpus: Int) -> UInt64 {
        precondition(budget > 0 && vcpus > 0)
        let forGuest = guest / (budget * Self.guestPartOfBudget * Double(vcpus))
        return UInt64(min(max(worker / Self.workerShare, forGuest), 1e18))
    }
}
