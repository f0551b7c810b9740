import Kernel

/// Picks the pages of one huge page that leave by a plan. Pages of equal age leave cheapest
/// first: those whose copy the store still has, since nothing is written for them, same-filled ones
/// among them; and those that leave together with all of their huge page, which goes in one move.
public struct EvictionChoice: Sendable {
    public let plan: EvictionPlan
    /// How many pages of the plan's partial stamp may still leave.
    public private(set) var quota: Int
    /// Of the partial stamp, only what is cheap.
    public var cheapOnly: Bool

    /// `copies`: of so many pages the store has kept them. To look for what is cheap costs a look at
    /// all ages: only where there may be enough of it.
    public init(_ plan: EvictionPlan, copies: Int = .max) {
        self.plan = plan
        quota = plan.quota
        let enough = max(1, quota / Self.worthwhilePart)
        cheapOnly = quota > 0 && (copies >= enough || quota >= Self.pagesPerHugePage)
    }

    /// Of the quota: a quarter.
    private static var worthwhilePart: Int { 4 }

    private static var pagesPerHugePage: Int { hugePageSize / pageSize }

    /// All that the plan wants of its partial stamp has been picked.
    public var isQuotaUsed: Bool { plan.quota > 0 && quota == 0 }

    /// Whether a page of this age may leave at all.
    @inline(__always)
    public func mayLeave(_ stamp: UInt8) -> Bool {
        plan.whole.contains(stamp) || quota > 0 && stamp == plan.part
    }

    /// The stamps of pages that may still leave.
    public var leaving: StampSet {
        var stamps = plan.whole
        if quota > 0 { stamps.insert(plan.part) }
        return stamps
    }

    /// Appends those `pages` of one huge page that leave, ascending. `hasCopy`: the store
    /// has kept a copy of the page.
    public mutating func pick(
        _ pages: Range<Int>, stamp: (Int) -> UInt8, hasCopy: (Int) -> Bool, into picked: inout [Int]
    ) {
        let leavesWhole = cheapOnly && leaveWhole(pages, stamp)
        for page in pages {
            let age = stamp(page)
            guard mayLeave(age) else { continue }
            if age == plan.part, !plan.whole.contains(age) {
                guard !cheapOnly || leavesWhole || hasCopy(page) else { continue }
                quota -= 1
            }
            picked.append(page)
        }
    }

    /// Whether pages that leave whole, or not at all, leave. The last ones may be more than the
    /// plan wants.
    public mutating func takesWhole(_ pages: Range<Int>, stamp: (Int) -> UInt8) -> Bool {
        guard pages.allSatisfy({ mayLeave(stamp($0)) }) else { return false }
        quota = max(0, quota - pages.count { !plan.whole.contains(stamp($0)) })
        return true
    }

    /// Whether all of a huge page is there and may leave.
    private func leaveWhole(_ pages: Range<Int>, _ stamp: (Int) -> UInt8) -> Bool {
        pages.count == Self.pagesPerHugePage && quota >= pages.count
            && pages.allSatisfy { mayLeave(stamp($0)) }
    }
}
