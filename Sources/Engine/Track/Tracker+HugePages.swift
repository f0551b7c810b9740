import Kernel

/// When a pass splits huge pages that stay warm.
public enum Splitting: Equatable, Sendable {
    /// Nothing is to be evicted.
    case never
    /// Once they have been warm for so many nanoseconds.
    case after(UInt64)
    /// Then, too, but not those that are in use all the time.
    case sparingBusy(after: UInt64)

    var age: UInt64? {
        switch self {
        case .never: nil
        case .after(let age), .sparingBusy(let age): age
        }
    }
}

/// Huge pages are split, to learn which of their pages are in use, and made whole again.
extension Tracker {
    /// Splits those touched huge pages whose time has come.
    func splitSome(_ region: Region, _ range: Range<UInt64>) {
        guard let age = splitting.age else { return }
        let now = pager.kernel.now()
        for start in stride(from: range.lowerBound, to: range.upperBound, by: hugePageSize) {
            let index = region.hugePage(at: start)
            splits.sawTouched()
            guard region.looks.isDue(index, at: now, age: age), splits.take() else { continue }
            guard case .sparingBusy = splitting else {
                split(region, index, at: now)
                continue
            }
            region.looks.ask(index, at: now)
            glanceAt = now + Self.glanceAfter
        }
    }

    /// Arming a part of a huge mapping splits the mapping, also when the whole is armed; then all
    /// its pages stay so. Otherwise who calls this arms the whole.
    private func split(_ region: Region, _ index: Int, at now: UInt64) {
        region.looks.wasSplit(index, at: now)
        pager.counters.hugePageSplits.increment()
        let start = region.address(of: region.pages(ofHugePage: index).lowerBound)
        arm(region, start..<start + UInt64(pageSize))
    }

    /// Looks again at the huge pages that the last pass armed and asked about: those that nobody
    /// has used since are split. Costs no light fault. For the holder of the pass lock.
    public func glance() {
        glanceAt = nil
        let now = pager.kernel.now()
        pager.regions.forEach { region in
            for index in region.looks.asked(since: now &- Self.glanceBefore) {
                switch look(at: index, of: region) {
                case .untouched: split(region, index, at: now)
                case .touched: region.looks.wasInUse(index, at: now)
                case .gone: break
                }
            }
        }
    }

    private enum Glance { case untouched, touched, gone }

    /// Whether a huge page is still there, mapped as one, and has been touched.
    private func look(at index: Int, of region: Region) -> Glance {
        let pages = region.pages(ofHugePage: index)
        let start = region.address(of: pages.lowerBound)
        let end = region.address(of: pages.upperBound)
        let result = unsafe pager.kernel.scan(start: start, end: end, tracked: pager.tracking, into: runs)
        guard case .runs(1, _) = result else { return .gone }
        let run = unsafe runs[0]
        guard run.isHuge, !run.isSwapped, run.start == start, run.end == end else { return .gone }
        return run.touched ? .touched : .untouched
    }

    /// Nanoseconds from arming to that look. A huge page that is used more seldom than that costs
    /// the guest next to nothing in small pages: tens of nanoseconds a use, for a miss of the TLB.
    private static var glanceAfter: UInt64 { 20_000_000 }
    /// A look later than that says nothing: anything is in use once in a while.
    private static var glanceBefore: UInt64 { 4 * glanceAfter }
    /// Each copies 2 MiB, and accesses wait for it.
    private static var mendsPerPassMax: Int { 16 }

    /// Makes those huge pages whole again that are in use throughout, in small pages.
    func mendDense(_ region: Region) {
        guard let age = splitting.age else { return }
        let now = pager.kernel.now()
        var mends = 0
        for index in 0..<region.hugePageCount {
            guard let since = region.looks.mendSince(index, at: now, age: age) else { continue }
            guard mends < Self.mendsPerPassMax else { continue }
            let pages = region.pages(ofHugePage: index)
            // The block's first and last may be cut: they are not huge pages.
            guard pages.count == hugePageSize / pageSize, region.ages.isFull(pages) else { continue }
            // The kernel would bring them back to make a huge page of them.
            if region.swapped.intersects(pages) { continue }
            let stamps = history.stamps(touchedSince: since)
            let touched = pages.count { stamps.contains(region.ages[$0]) }
            guard touched >= HugePageLooks.touchedMin else { continue }
            mends += 1
            if pager.kernel.collapse(start: region.address(of: pages.lowerBound)) == nil {
                region.looks.becameWhole(index)
                pager.counters.hugePageMends.increment()
            }
        }
    }
}
