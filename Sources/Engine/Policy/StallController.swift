/// How many pages to evict beyond limit and idle age while the guest hardly notices: a
/// feedback controller on the share of vCPU time that is spent waiting for pages.
///
/// Below the budget it takes a small part of what is resident, less the nearer the budget
/// is, and slowly quickens its pace. Above the budget it takes nothing at once, halves its
/// pace, and waits until the stall has worn off. One round takes at most `paceMax` of the
/// resident pages for each second since the last, so that what a wrong guess can cost is
/// bounded. It is the rule of Linux' PSI-driven reclaimers (Senpai) with the pager's own
/// fault times in the place of PSI.
public struct StallController: Equatable, Sendable {
    /// What was measured since the last round.
    public struct Reading: Equatable, Sendable {
        /// Time that accesses spent waiting, of all vCPUs together; nanoseconds.
        public var stall: UInt64
        /// Nanoseconds since the last round.
        public var elapsed: UInt64
        public var vcpus: Int
        public var residentPages: Int

        public init(stall: UInt64, elapsed: UInt64, vcpus: Int, residentPages: Int) {
            precondition(vcpus > 0)
            self.stall = stall
            self.elapsed = elapsed
            self.vcpus = vcpus
            self.residentPages = residentPages
        }
    }

    /// Share of vCPU time lost, smoothed over about ten seconds. A rise counts at once.
    public private(set) var share = 0.0
    /// Part of the resident pages to take in a second.
    private(set) var pace = StallController.paceMin

    public static let paceMin = 0.001
    public static let paceMax = 0.05
    private static let quickening = 1.1
    private static let smoothingSeconds = 10.0
    /// A round after a long sleep takes no more than one after this many seconds.
    private static let elapsedSecondsMax = 5.0

    public init() {}

    /// Pages to take now. `budget` is a share of vCPU time, above 0.
    public mutating func round(_ reading: Reading, budget: Double) -> Int {
        precondition(budget > 0)
        let seconds = min(Double(reading.elapsed) / 1e9, Self.elapsedSecondsMax)
        guard seconds > 0 else { return 0 }
        note(reading)
        let headroom = 1 - share / budget
        guard headroom > 0 else {
            pace = max(pace / 2, Self.paceMin)
            return 0
        }
        defer { pace = min(pace * Self.quickening, Self.paceMax) }
        return Int(Double(reading.residentPages) * pace * seconds * headroom)
    }

    private mutating func note(_ reading: Reading) {
        let now = Double(reading.stall) / (Double(reading.elapsed) * Double(reading.vcpus))
        let weight = min(1, Double(reading.elapsed) / 1e9 / Self.smoothingSeconds)
        share = max(now, share + weight * (now - share))
    }

    /// Guests wait for longer than they may: nothing leaves for its age either.
    public func isOver(budget: Double) -> Bool { share > budget }
}
