/// How many pages to evict beyond limit and idle age while the guest hardly notices: a
/// feedback controller on the share of vCPU time that is spent waiting for pages.
///
/// The share is measured twice. One measure is over a window in which the budget is worth
/// many waits of the usual length, so that a single slow one says little. The other is over
/// a fifth of that, so that a real rise is noticed within seconds. The higher counts.
///
/// Below the budget the controller takes pages at its pace, less the nearer the budget is;
/// below half of it, it quickens the pace. Above the budget it takes nothing, and slows down
/// to, in the end, twice what the budget brings back: there what leaves and what returns
/// balance at two thirds of the budget. It never takes more than `paceMax` of what is
/// resident for each second, so that what a wrong guess can cost is bounded, and however long
/// guests waited, it goes on within a window and a half. What it takes, it takes in batches.
///
/// It is the rule of Linux' PSI-driven reclaimers (Senpai) with the pager's own fault times
/// in the place of PSI. Pure.
public struct StallController: Equatable, Sendable {
    /// What was measured since the last round.
    public struct Reading: Equatable, Sendable {
        /// Time that accesses spent waiting, of all vCPUs together; nanoseconds.
        public var stall: UInt64
        /// How many accesses waited.
        public var waits: UInt64
        /// Nanoseconds since the last round.
        public var elapsed: UInt64
        public var vcpus: Int
        public var residentPages: Int

        public init(stall: UInt64, waits: UInt64, elapsed: UInt64, vcpus: Int, residentPages: Int) {
            precondition(vcpus > 0)
            self.stall = stall
            self.waits = waits
            self.elapsed = elapsed
            self.vcpus = vcpus
            self.residentPages = residentPages
        }
    }

    /// Share of vCPU time lost over the window, and over its last fifth.
    private var mean = 0.0
    private var recent = 0.0
    /// What an access waits as a rule, in nanoseconds. One that waits for much longer hardly
    /// changes it.
    public private(set) var usualWait = 20_000.0
    /// Pages to take in a second; nil before the first round.
    private(set) var pace: Double?
    /// What the last rounds left over: parts of pages, and batches too small to be worth a look.
    private var rest = 0.0
    /// Seconds since pages were taken.
    private var sinceTaken = Double.infinity
    /// Seconds since the pace was slowed down.
    private var sinceSlowed = Double.infinity

    /// Parts of the resident pages in a second: the quickest pace, and the first one.
    public static let paceMax = 0.05
    public static let paceFirst = 0.001
    /// How much quicker in a second, below half of the budget.
    private static let quickening = 0.1
    /// Usual waits that the budget pays for in a window.
    private static let waitsPerWindow = 16.0
    /// Seconds.
    public static let windowMin = 10.0
    public static let windowMax = 60.0
    private static let recentPart = 0.2
    /// What is remembered of a stall, in budgets: it must wear off in bounded time.
    private static let shareMax = 4.0
    /// A round counts no wait as longer than so many usual ones when it learns what is usual.
    private static let outlier = 4.0
    private static let waitsToLearn = 32.0
    /// Taking a few pages costs a look at all ages, and the guest its TLB, as taking many does: so
    /// many at least, but for what has waited for so many seconds.
    public static let batchMin = 128.0
    public static let batchSecondsMax = 8.0
    /// A round after a long sleep takes no more than one after this many seconds.
    private static let elapsedSecondsMax = 5.0

    public init() {}

    /// Share of vCPU time lost, as the controller sees it.
    public var share: Double { max(mean, recent) }

    /// Pages to take now. `budget` is a share of vCPU time, above 0.
    public mutating func round(_ reading: Reading, budget: Double) -> Int {
        precondition(budget > 0)
        guard reading.elapsed > 0 else { return 0 }
        let window = note(reading, budget: budget)
        let resident = Double(reading.residentPages)
        let quickest = resident * Self.paceMax
        let first = resident * Self.paceFirst
        // What comes back in a second when the budget is used up.
        let returning = budget * Double(reading.vcpus) * 1e9 / usualWait
        let slowest = min(2 * returning, first)
        let now = min(max(pace ?? first, slowest), quickest)
        let seconds = min(Double(reading.elapsed) / 1e9, Self.elapsedSecondsMax)
        sinceSlowed += seconds
        sinceTaken += seconds
        let headroom = 1 - share / budget
        guard headroom > 0 else {
            // Once for each rise: it takes as long to wear off.
            let isNew = sinceSlowed >= window * Self.recentPart
            if isNew { sinceSlowed = 0 }
            rest = 0
            pace = isNew ? max(now / 2, slowest) : now
            return 0
        }
        let isCalm = share < budget / 2
        pace = isCalm ? min(now * (1 + Self.quickening * seconds), quickest) : now
        let owed = now * seconds * headroom + rest
        guard owed >= Self.batchMin || sinceTaken >= Self.batchSecondsMax else {
            rest = owed
            return 0
        }
        sinceTaken = 0
        rest = owed - owed.rounded(.down)
        return Int(owed)
    }

    /// So many accesses waited for so long together, in nanoseconds. For when there is no budget:
    /// `round` does the same.
    public mutating func learn(stall: UInt64, waits: UInt64) {
        guard waits > 0 else { return }
        let wait = min(Double(stall) / Double(waits), usualWait * Self.outlier)
        let weight = Double(waits) / (Double(waits) + Self.waitsToLearn)
        usualWait = max(1, usualWait + weight * (wait - usualWait))
    }

    /// Takes a reading in. Returns the seconds of the window.
    private mutating func note(_ reading: Reading, budget: Double) -> Double {
        learn(stall: reading.stall, waits: reading.waits)
        let vcpus = Double(reading.vcpus)
        let window = min(
            max(Self.waitsPerWindow * usualWait / 1e9 / (budget * vcpus), Self.windowMin),
            Self.windowMax)
        let lost = Double(reading.stall) / (Double(reading.elapsed) * vcpus)
        let seconds = Double(reading.elapsed) / 1e9
        func smoothed(_ share: Double, over window: Double) -> Double {
            let weight = seconds / (seconds + window)
            return min(share + weight * (lost - share), budget * Self.shareMax)
        }
        mean = smoothed(mean, over: window)
        recent = smoothed(recent, over: window * Self.recentPart)
        return window
    }

    /// Pages that leave in a second as long as the share stays as it is.
    public func rate(budget: Double) -> Double { (pace ?? 0) * max(0, 1 - share / budget) }

    /// Guests wait for longer than they may: nothing leaves for its age either.
    public func isOver(budget: Double) -> Bool { share > budget }
}
