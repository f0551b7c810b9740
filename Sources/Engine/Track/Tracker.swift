import Kernel

/// Looks at guest memory: which pages are present, or swapped out by the host, and which
/// were touched since the last look. Touched pages are stamped and armed again; cold ones
/// stay armed and keep their stamp, so a look costs what the working set costs. For the
/// holder of the pager's pass lock: the worker, or a control call.
@safe public final class Tracker<Port: KernelPort>: @unchecked Sendable {
    let pager: Pager<Port>
    let runs: UnsafeMutableBufferPointer<ScanRun>
    public internal(set) var history: IdleHistory
    /// Resident pages by stamp, of all blocks, as of the last pass or recount.
    public private(set) var pagesByStamp = [Int](repeating: 0, count: AgeMap.stampCount)
    /// Counts the times that stamps got another meaning than by the passing of time: what was
    /// planned by them before is void.
    var era = 0
    /// When the last pass began to look, in nanoseconds: nothing is known of later touches.
    public private(set) var lookedAt: UInt64
    private var touchedPages = 0
    private var lightFaults = 0
    /// Touched pages, mapped one by one, of the huge page that is looked at.
    private var small = (index: -1, touched: 0)
    /// Pages that were found touched, by the stamp they had before. Of the block looked at.
    private var returned = [Int](repeating: 0, count: AgeMap.stampCount)
    private var hasWarned = false
    var splits = SplitAllowance()
    /// What the pass that is under way does with huge pages that stay warm.
    var splitting = Splitting.never
    /// When huge pages that were asked about are to be looked at again, on the kernel's clock.
    public internal(set) var glanceAt: UInt64?

    /// From 512 on the kernel takes whole pages for its own copy of them (`do_pagemap_scan`),
    /// which costs more than the look at a quiet huge page.
    private static var runsPerScan: Int { 256 }
    /// Touched runs closer together than this are armed in one call: arming what is
    /// armed already is cheaper than a call of its own.
    private static var armGapMax: UInt64 { 64 * UInt64(pageSize) }

    public init(pager: Pager<Port>) {
        self.pager = pager
        lookedAt = pager.kernel.now()
        history = IdleHistory(at: lookedAt)
        unsafe runs = .allocate(capacity: Self.runsPerScan)
        unsafe runs.initialize(repeating: ScanRun(start: 0, end: 0, touched: false))
    }

    deinit { unsafe runs.deallocate() }

    /// Looks at what is due of every attached block, and ends a span of the history.
    public func pass(_ splitting: Splitting) {
        self.splitting = splitting
        let now = pager.kernel.now()
        splits.beginPass(elapsed: now &- lookedAt)
        lookedAt = now
        touchedPages = 0
        lightFaults = 0
        pager.regions.forEach { region in
            noteReturned(region) { visitDue(region) }
        }
        mendSome()
        // A touch between the scan of a page and its arming is not noted: the span it
        // falls into ends only here, so that no page looks idle for longer than it was.
        endSpan()
        pager.counters.touchedPages.store(touchedPages, ordering: .relaxed)
        pager.counters.lightFaults.store(lightFaults, ordering: .relaxed)
        pager.counters.passes.increment()
    }

    /// Looks at one huge page between two passes: before it is evicted from, when the
    /// last pass left it out.
    func visit(_ region: Region, hugePage index: Int) {
        visit(region, hugePages: index..<index + 1)
    }

    /// Looks at the whole of a block, whatever is due. False when the kernel did not let us.
    func visitAll(_ region: Region) -> Bool {
        var isComplete = false
        noteReturned(region) { isComplete = visit(region, hugePages: 0..<region.hugePageCount) }
        return isComplete
    }

    private func noteReturned(_ region: Region, _ look: () -> Void) {
        let now = pager.kernel.now()
        for stamp in returned.indices { returned[stamp] = 0 }
        look()
        region.workingSet.note(returned: returned, history, at: now)
    }

    private func endSpan() {
        let now = pager.kernel.now()
        let relabel = history.endSpan(at: now, idleAge: pager.settings.idleAge)
        count(relabel: relabel)
        pager.currentStamp.store(history.current, ordering: .relaxed)
        pager.counters.residentPages.store(pagesByStamp.reduce(0, +), ordering: .relaxed)
    }

    /// Counts the ages anew without looking at the kernel: pages came and went since.
    func recount() { count(relabel: nil) }

    private func count(relabel: Relabel?) {
        let now = pager.kernel.now()
        var swapped = 0
        var merged = 0
        for stamp in pagesByStamp.indices { pagesByStamp[stamp] = 0 }
        pager.regions.forEach { region in
            var counts = [Int](repeating: 0, count: AgeMap.stampCount)
            region.ages.sweep(relabel, except: region.swapped, into: &counts)
            region.residentPages = counts.reduce(0, +)
            for stamp in counts.indices { pagesByStamp[stamp] += counts[stamp] }
            swapped += region.swapped.count
            merged += region.merged.count
            region.workingSet.update(history, counts, at: now)
        }
        pager.counters.swappedPages.store(swapped, ordering: .relaxed)
        pager.counters.mergedPages.store(merged, ordering: .relaxed)
    }

    private func visitDue(_ region: Region) {
        region.visits.beginPass()
        visit(region) { region.visits.isDue($0) }
        guard region.visits.endPass(residentPages: region.residentPages) else { return }
        visit(region) { region.visits.isResting($0) }
    }

    /// Looks at those huge pages that are wanted.
    private func visit(_ region: Region, where isWanted: (Int) -> Bool) {
        var first: Int?
        for index in 0..<region.hugePageCount {
            if isWanted(index) {
                first = first ?? index
            } else if let begin = first {
                visit(region, hugePages: begin..<index)
                first = nil
            }
        }
        if let first { visit(region, hugePages: first..<region.hugePageCount) }
    }

    /// Looks at neighbouring huge pages, which are one range for the kernel. False when the
    /// look ended before they did.
    @discardableResult
    private func visit(_ region: Region, hugePages: Range<Int>) -> Bool {
        let pages = region.pages(ofHugePages: hugePages)
        let end = region.address(of: pages.upperBound)
        var next = pages.lowerBound
        var toArm: Range<UInt64>?
        var address = region.address(of: pages.lowerBound)
        var quietFrom = hugePages.lowerBound
        while address < end {
            let result = unsafe pager.kernel.scan(
                start: address, end: end, tracked: pager.tracking, into: runs)
            guard case .runs(let count, let walkedTo) = result, walkedTo > address else {
                warnOnce("cannot scan \(region.name)")
                endSmall(region)
                return false
            }
            for index in 0..<count {
                let run = unsafe runs[index]
                let found = region.page(at: run.start)..<region.page(at: run.end - 1) + 1
                if run.isSwapped, !pager.followsSwapped(region, found) { continue }
                pager.noteUnmapped(region, next..<found.lowerBound, stamp: history.current)
                next = found.upperBound
                if run.isSwapped { region.swapped.insert(found) } else { region.swapped.remove(found) }
                guard run.touched || pager.isZapped(region) else {
                    region.ages.stampUnknown(found, history.current)
                    continue
                }
                noteTouched(region, found, isHuge: run.isHuge)
                rest(region, quietFrom..<max(quietFrom, region.hugePage(of: found.lowerBound)))
                quietFrom = region.hugePage(of: found.upperBound - 1) + 1
                arm(region, run.start..<run.end, after: &toArm)
            }
            address = walkedTo
        }
        pager.noteUnmapped(region, next..<pages.upperBound, stamp: history.current)
        rest(region, quietFrom..<hugePages.upperBound)
        if let toArm { arm(region, toArm) }
        endSmall(region)
        return true
    }

    private func noteTouched(_ region: Region, _ pages: Range<Int>, isHuge: Bool) {
        region.merged.remove(pages)
        touchedPages += pages.count
        for index in region.hugePage(of: pages.lowerBound)...region.hugePage(of: pages.upperBound - 1) {
            let part = pages.clamped(to: region.pages(ofHugePage: index))
            let arrived = returned[Int(AgeMap.absent)]
            region.ages.stamp(part, history.current, returned: &returned)
            // What has come since was not armed.
            let old = part.count - (returned[Int(AgeMap.absent)] - arrived)
            region.visits.wasTouched(index, pages: old)
            // The first access to a huge page makes all of it accessible.
            lightFaults += isHuge ? min(old, 1) : old
            if !isHuge { countSmall(region, index, part.count) }
        }
        guard isHuge, !region.guard.isShared else { return }
        splitSome(region, region.address(of: pages.lowerBound)..<region.address(of: pages.upperBound))
    }

    private func countSmall(_ region: Region, _ index: Int, _ touched: Int) {
        if small.index != index { endSmall(region) }
        small = (index, small.touched + touched)
    }

    private func endSmall(_ region: Region) {
        if small.index >= 0 { region.looks.foundSmall(small.index, touched: small.touched, at: lookedAt) }
        small = (-1, 0)
    }

    /// Nothing was touched in these huge pages. Where the kernel may fill holes without
    /// telling us, that means little: the block's cost would go unnoticed.
    private func rest(_ region: Region, _ hugePages: Range<Int>) {
        guard !hugePages.isEmpty else { return }
        for index in hugePages {
            let pages = region.pages(ofHugePage: index)
            let tells = region.chunks.isWatched(region.chunk(of: pages.lowerBound))
            if tells || region.ages.isFull(pages) {
                region.visits.wasQuiet(index)
            } else {
                region.visits.wasTouched(index, pages: 0)
            }
        }
    }

    private func arm(_ region: Region, _ range: Range<UInt64>, after pending: inout Range<UInt64>?) {
        if let before = pending, range.lowerBound - before.upperBound <= Self.armGapMax {
            pending = before.lowerBound..<range.upperBound
            return
        }
        if let before = pending { arm(region, before) }
        pending = range
    }

    func arm(_ region: Region, _ range: Range<UInt64>) {
        guard pager.tracking else { return }
        let errno = pager.arm(
            region, start: range.lowerBound, length: range.upperBound - range.lowerBound)
        // Not armed means counted as touched: safe, only less is evicted.
        if let errno { warnOnce("cannot arm guest memory: \(errno.text)") }
    }

    func warnOnce(_ message: String) {
        if !hasWarned { pager.host.log(.warning, message) }
        hasWarned = true
    }
}
