import Kernel

/// What a pass knew when it chose: pure input.
public struct EvictionDemand: Equatable, Sendable {
    /// Resident pages by age in passes; index 0 is not used (absent pages).
    public var pagesByAge: [Int]
    /// Host memory that the guest's RAM costs now, in bytes.
    public var cost: Int
    /// The most it may cost, in bytes; nil for no limit.
    public var limit: Int?
    /// Passes a page must have been untouched to be evicted for its age; nil for never.
    public var idlePasses: Int?
    /// Host bytes that the eviction of one page frees, on average so far.
    public var bytesFreedPerPage: Int

    public init(
        pagesByAge: [Int], cost: Int, limit: Int?, idlePasses: Int?, bytesFreedPerPage: Int
    ) {
        precondition(pagesByAge.count == Int(AgeMap.oldest) + 1)
        precondition(bytesFreedPerPage > 0)
        self.pagesByAge = pagesByAge
        self.cost = cost
        self.limit = limit
        self.idlePasses = idlePasses
        self.bytesFreedPerPage = bytesFreedPerPage
    }
}

/// Which pages leave: all of some age or older, and a number of those one pass
/// younger. A pure function of the demand, coldest first.
public struct EvictionPlan: Equatable, Sendable {
    /// Pages of this age and older leave; above `AgeMap.oldest` means none do.
    public var ageMin: Int
    /// Pages of age `ageMin - 1` that leave too.
    public var quotaBelow: Int

    public static let nothing = EvictionPlan(ageMin: Int(AgeMap.oldest) + 1, quotaBelow: 0)

    /// Evicting exactly to the limit would make every next fault exceed it again:
    /// go below it by this share of it.
    private static let headroomDivisor = 64

    public init(ageMin: Int, quotaBelow: Int) {
        self.ageMin = ageMin
        self.quotaBelow = quotaBelow
    }

    public init(for demand: EvictionDemand) {
        self = .nothing
        if let idlePasses = demand.idlePasses {
            // Age 1 is "touched since the last pass": idle for no full pass yet.
            ageMin = min(ageMin, idlePasses + Int(AgeMap.touched))
        }
        guard let limit = demand.limit, demand.cost > limit else { return }
        let excess = demand.cost - limit + limit / Self.headroomDivisor
        var wanted = (excess + demand.bytesFreedPerPage - 1) / demand.bytesFreedPerPage
        for age in stride(from: Int(AgeMap.oldest), through: Int(AgeMap.touched), by: -1) {
            if age >= ageMin {
                wanted -= demand.pagesByAge[age]
                continue
            }
            if wanted <= 0 { return }
            if demand.pagesByAge[age] <= wanted {
                wanted -= demand.pagesByAge[age]
                ageMin = age
            } else {
                quotaBelow = wanted
                return
            }
        }
    }

    public var evictsNothing: Bool { ageMin > Int(AgeMap.oldest) && quotaBelow == 0 }
}
