/// How often the tracker looks: often enough that an idle age is known to one eighth,
/// never so often that looking costs more than it saves.
public enum PassInterval {
    private static let shortest: UInt64 = 250_000_000
    private static let longest: UInt64 = 30_000_000_000
    /// What leaves between two passes is looked at first, so that late passes make no page leave that
    /// is in use; but they find memory that has turned cold as late.
    private static let longestAffordable: UInt64 = 300_000_000_000
    private static let perIdleAge: UInt64 = 8
    /// With a limit and nothing else to go by, unless that costs too much; ages are to tell what
    /// is in use from what is not within some seconds all the same.
    private static let limitOnly: UInt64 = 500_000_000
    private static let longestUnderLimit: UInt64 = 4_000_000_000
    /// Where nothing is to be evicted: only for the working set's sake. Under a stall budget
    /// alone, too, unless that costs too much.
    private static let observing: UInt64 = 1_000_000_000

    /// Nanoseconds between passes. `idleAge` in nanoseconds, 0 when age evicts nothing.
    /// `affordable`: how far passes must lie apart for what they cost; an idle age wants them as
    /// often as it does.
    public static func nanoseconds(idleAge: UInt64, limited: Bool, affordable: UInt64 = 0) -> UInt64 {
        guard idleAge > 0 else {
            return limited
                ? min(max(limitOnly, affordable), longestUnderLimit)
                : min(max(observing, affordable), longestAffordable)
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
    /// From a look to the answer of an access that waited for nothing else, on average.
    private var answering = 0.0

    /// Accesses that the fault thread has answered to pages that were there, where looking unmaps
    /// pages or has writes to them wait; and the time from the last look to the answers, in
    /// nanoseconds, summed.
    public struct Answers: Equatable, Sendable {
        public var count: UInt64
        public var time: UInt64

        public init(count: UInt64 = 0, time: UInt64 = 0) { (self.count, self.time) = (count, time) }

        static func - (later: Answers, earlier: Answers) -> Answers {
            Answers(count: later.count &- earlier.count, time: later.time &- earlier.time)
        }
    }

    /// Of one CPU, at most, under a stall budget.
    private static let workerShare = 0.01
    /// Of one CPU, and of the vCPUs, where a limit presses: a guest that only
    /// answers for being looked at does not go on.
    private static let shareUnderLimit = 0.1
    /// Of the stall budget, at most. What pages that have left may cost is the rest, and more:
    /// light faults are not measured, and do not count against it.
    private static let guestPartOfBudget = 0.5
    /// Light faults that take as long as one that a thread answers. Both begin and end with leaving
    /// the guest and coming back, which is most of a light fault, and not in the wait as measured.
    private static let lightFaultsPerWait = 6.0
    /// Where a limit presses, intervals are at least so many times as long as the guest takes, on
    /// average, to touch again what a look has made it wait for. Answers that keep coming until
    /// the next look take half the interval: then a vCPU that needs more pages than it gets
    /// back from one look to the next does not get on, and the interval doubles.
    private static let intervalPerAnswering = 4.0
    /// Fewer say nothing.
    private static let answersMin: UInt64 = 8
    private static let weight = 0.5

    public init() {}

    /// A pass took `cpu` nanoseconds of the worker, and what it found touched had cost the guest
    /// so many light faults, beside the `answers` since the last pass. `wait` is what an access
    /// that is answered waits for as a rule, in nanoseconds.
    public mutating func note(
        cpu: UInt64, lightFaults: Int, answers: Answers = Answers(), wait: Double
    ) {
        worker += Self.weight * (Double(cpu) - worker)
        let waits = Double(lightFaults) / Self.lightFaultsPerWait + Double(answers.count)
        guest += Self.weight * (waits * wait - guest)
        let mean = answers.count < Self.answersMin ? 0 : Double(answers.time) / Double(answers.count)
        answering += Self.weight * (mean - answering)
    }

    /// Nanoseconds from pass to pass at which passes cost what they may. `budget` is a share
    /// of vCPU time, above 0; nil: a limit presses, which comes first.
    public func affordableInterval(budget: Double?, vcpus: Int) -> UInt64 {
        precondition(vcpus > 0)
        let forWorker = worker / (budget == nil ? Self.shareUnderLimit : Self.workerShare)
        let guestShare = budget.map { $0 * Self.guestPartOfBudget } ?? Self.shareUnderLimit
        precondition(guestShare > 0)
        let forAnswers = budget == nil ? answering * Self.intervalPerAnswering : 0
        return UInt64(min(max(forWorker, guest / (guestShare * Double(vcpus)), forAnswers), 1e18))
    }
}
