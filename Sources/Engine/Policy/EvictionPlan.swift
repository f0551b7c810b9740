import Kernel

/// What was known when pages were chosen: pure input.
public struct EvictionDemand: Equatable, Sendable {
    /// Resident pages with one stamp.
    public struct Group: Equatable, Sendable {
        public var stamp: UInt8
        public var pages: Int

        public init(stamp: UInt8, pages: Int) {
            self.stamp = stamp
            self.pages = pages
        }
    }

    /// Coldest first.
    public var groups: [Group]
    /// Stamps whose pages leave for their age.
    public var idle: StampSet
    /// Host memory that the guest's RAM costs now, in bytes.
    public var cost: Int
    /// The most it may cost, in bytes; nil for no limit.
    public var limit: Int?
    /// Pages to take beyond that, if there are as many that are not in use.
    public var surplus: Int
    /// Stamps whose pages may leave as surplus.
    public var surplusFrom: StampSet
    /// Host bytes that the eviction of one page frees, on average so far.
    public var bytesFreedPerPage: Int
    /// The most that pages which leave may go on costing in RAM, together; nil for no bound, 0
    /// where they all leave it for a device. Bytes.
    public var costMax: Int?

    public init(
        groups: [Group], idle: StampSet, cost: Int, limit: Int?, surplus: Int = 0,
        surplusFrom: StampSet = StampSet(), bytesFreedPerPage: Int,
        costMax: Int? = nil
    ) {
        precondition(bytesFreedPerPage > 0)
        self.groups = groups
        self.idle = idle
        self.cost = cost
        self.limit = limit
        self.surplus = surplus
        self.surplusFrom = surplusFrom
        self.bytesFreedPerPage = bytesFreedPerPage
        self.costMax = costMax
    }
}

/// Which pages leave: all of some stamps, and a number of those with one more. A pure
/// function of the demand, coldest first.
public struct EvictionPlan: Equatable, Sendable {
    public var whole: StampSet
    /// The stamp of which only some leave.
    public var part: UInt8
    /// How many.
    public var quota: Int

    public static let nothing = EvictionPlan()

    /// Evicting exactly to the limit would make every next fault exceed it again:
    /// go below it by this share of it.
    private static let headroomDivisor = 64

    public init(whole: StampSet = StampSet(), part: UInt8 = AgeMap.absent, quota: Int = 0) {
        self.whole = whole
        self.part = part
        self.quota = quota
    }

    public init(for demand: EvictionDemand) {
        self.init()
        var left = Self.excess(demand)
        var surplus = demand.surplus
        for group in demand.groups {
            if demand.idle.contains(group.stamp) {
                whole.insert(group.stamp)
                left -= group.pages
                surplus -= group.pages
                continue
            }
            let wanted = max(left, demand.surplusFrom.contains(group.stamp) ? surplus : 0)
            if wanted <= 0 || group.pages == 0 { continue }
            if group.pages > wanted {
                (part, quota) = (group.stamp, wanted)
            } else {
                whole.insert(group.stamp)
            }
            left -= min(group.pages, wanted)
            surplus -= min(group.pages, wanted)
        }
    }

    /// Pages that must leave for the limit's sake.
    private static func excess(_ demand: EvictionDemand) -> Int {
        guard let limit = demand.limit, demand.cost > limit else { return 0 }
        let bytes = demand.cost - limit + limit / headroomDivisor
        let pages = (bytes + demand.bytesFreedPerPage - 1) / demand.bytesFreedPerPage
        guard let costMax = demand.costMax, pages * (pageSize - demand.bytesFreedPerPage) > costMax else {
            return pages
        }
        return (bytes + costMax + pageSize - 1) / pageSize
    }

    /// Whether pages with this stamp leave, all or some.
    public func takes(_ stamp: UInt8) -> Bool { whole.contains(stamp) || quota > 0 && stamp == part }

    public var evictsNothing: Bool { whole.isEmpty && quota == 0 }
}
