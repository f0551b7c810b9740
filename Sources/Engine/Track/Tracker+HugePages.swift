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

    /// Makes huge pages whole again that are worth more so.
    func mendSome() {
        var mends = Self.mendsPerPassMax
        pager.regions.forEach { region in
            guard !region.guard.isShared else { return }
            mendComplete(region, &mends)
            mendDense(region, &mends)
        }
    }

    /// Makes those whole of which all that was awaited is back. True when there may be more of
    /// them. For the holder of the pass lock.
    func mendComplete() -> Bool {
        var mends = Self.mendsPerPassMax
        pager.regions.forEach { mendComplete($0, &mends) }
        return mends == 0
    }

    private func mendComplete(_ region: Region, _ mends: inout Int) {
        let now = pager.kernel.now()
        for index in 0..<region.hugePageCount {
            let awaited = region.looks.awaited(index)
            guard awaited != .nothing, region.looks.mayTry(index, at: now),
                isThere(region, region.pages(ofHugePage: index))
            else { continue }
            guard mends > 0 else { return }
            mends -= 1
            guard collapse(region, index) else { continue }
            if awaited == .all { becameWholeAgain(region, index) } else { becameWhole(region, index) }
        }
    }

    private func becameWholeAgain(_ region: Region, _ index: Int) {
        region.looks.cameBack(index)
        pager.counters.hugePageReturns.increment()
    }

    private func becameWhole(_ region: Region, _ index: Int) {
        region.looks.becameWhole(index)
        pager.counters.hugePageMends.increment()
    }

    /// Those that are in use throughout, in small pages.
    private func mendDense(_ region: Region, _ mends: inout Int) {
        guard let age = splitting.age else { return }
        let now = pager.kernel.now()
        for index in 0..<region.hugePageCount {
            guard let since = region.looks.mendSince(index, at: now, age: age) else { continue }
            // Whoever asked for the rest before asks again when that has had its turn.
            guard mends > 0, region.looks.awaited(index) != .rest || pager.recalls.isEmpty else { continue }
            let pages = region.pages(ofHugePage: index)
            // The block's first and last may be cut: they are not huge pages.
            guard pages.count == hugePageSize / pageSize else { continue }
            let stamps = history.stamps(touchedSince: since)
            let touched = pages.count { stamps.contains(region.ages[$0]) }
            guard touched >= HugePageLooks.touchedMin, !isSwapped(region, pages) else { continue }
            guard region.ages.isFull(pages) else {
                recallRest(region, index)
                continue
            }
            mends -= 1
            if collapse(region, index) { becameWhole(region, index) }
        }
    }

    /// By the kernel's word: a page that arrives while it is looked at has no age before the next look,
    /// which never comes in mode `drain`.
    private func isThere(_ region: Region, _ pages: Range<Int>) -> Bool {
        guard pages.allSatisfy({ region.table[$0].state == .resident }) else { return false }
        var present = 0
        let errno = pager.forEachRun(
            from: region.address(of: pages.lowerBound), to: region.address(of: pages.upperBound),
            tracked: pager.tracking
        ) { run in
            if !run.isSwapped { present += Int(run.end - run.start) / pageSize }
            return !run.isSwapped
        }
        return errno == nil && present == pages.count
    }

    /// The kernel would bring back what it has swapped out, to make a huge page of it.
    private func isSwapped(_ region: Region, _ pages: Range<Int>) -> Bool {
        if region.swapped.intersects(pages) { return true }
        var isSwapped = false
        let errno = pager.forEachRun(
            from: region.address(of: pages.lowerBound), to: region.address(of: pages.upperBound),
            tracked: pager.tracking
        ) { run in
            isSwapped = run.isSwapped
            return !isSwapped
        }
        return isSwapped || errno != nil
    }

    private func collapse(_ region: Region, _ index: Int) -> Bool {
        let start = region.address(of: region.pages(ofHugePage: index).lowerBound)
        if pager.kernel.collapse(start: start) == nil { return true }
        region.looks.staysSmall(index, at: pager.kernel.now())
        return false
    }

    /// All but a few pages are in use, and the store has the others: they come back, to be whole
    /// with them. A hole cannot be filled for the guest, so nothing comes then.
    private func recallRest(_ region: Region, _ index: Int) {
        let pages = region.pages(ofHugePage: index)
        let absent = pages.filter { region.ages[$0] == AgeMap.absent }
        let limit = pager.settings.limit
        guard pager.settings.mode == .active, absent.allSatisfy({ region.table[$0].state == .stored }),
            limit == 0 || pager.cost + absent.count * pageSize <= Int(limit)
        else { return }
        for page in absent {
            let entry = region.table[page]
            guard entry.state == .stored else { continue }
            guard pager.recalls.ask(region, page, of: Locator(payload: entry.payload).tier) else { return }
        }
        region.looks.restIsAsked(index)
    }
}
