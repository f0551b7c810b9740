import Kernel

/// One look at guest memory: which pages are present, which were touched since the
/// last look. Touched pages are armed again; cold ones stay armed, so arming costs
/// what the working set costs. Worker thread only.
@safe public final class Tracker<Port: KernelPort>: @unchecked Sendable {
    private let pager: Pager<Port>
    private let runs: UnsafeMutableBufferPointer<ScanRun>
    /// Resident pages by age, filled by `pass`.
    public private(set) var pagesByAge = [Int](repeating: 0, count: Int(AgeMap.oldest) + 1)
    private var touchedPages = 0
    private var idlePasses = 0
    private var armingFailed = false
    /// Huge pages that may still be split in this pass. Until one is whole again its
    /// pages are touched one fault each, so only a small share is looked into at a time.
    private var splitsLeft = 0
    private var touchedHugePages = 0
    private static var splitsPerPassMin: Int { 2 }
    private static var splitShareDivisor: Int { 64 }

    private static var runsPerScan: Int { 1024 }
    /// Touched runs closer together than this are armed in one call: arming what is
    /// armed already is cheaper than a call of its own.
    private static var armGapMax: UInt64 { 64 * UInt64(pageSize) }

    public init(pager: Pager<Port>) {
        self.pager = pager
        unsafe runs = .allocate(capacity: Self.runsPerScan)
        unsafe runs.initialize(repeating: ScanRun(start: 0, end: 0, touched: false))
    }

    deinit { unsafe runs.deallocate() }

    /// Looks at every attached block. `idlePasses`: how long a huge page stays warm
    /// before it is looked into; nil when nothing is to be evicted.
    public func pass(idlePasses: Int?) {
        splitsLeft =
            idlePasses == nil
            ? 0 : max(Self.splitsPerPassMin, touchedHugePages / Self.splitShareDivisor)
        touchedHugePages = 0
        self.idlePasses = idlePasses ?? 0
        for age in pagesByAge.indices { pagesByAge[age] = 0 }
        touchedPages = 0
        pager.regions.forEach(look)
        let resident = pagesByAge.reduce(0, +) - pagesByAge[Int(AgeMap.absent)]
        pager.counters.residentPages.store(resident, ordering: .relaxed)
        pager.counters.touchedPages.store(touchedPages, ordering: .relaxed)
        pager.counters.passes.increment()
    }

    /// Counts the ages anew without looking at the kernel: pages came and went since.
    func recount() {
        for age in pagesByAge.indices { pagesByAge[age] = 0 }
        pager.regions.forEach { region in
            for page in 0..<region.pageCount { pagesByAge[Int(region.ages[page])] += 1 }
        }
    }

    private func look(at region: Region) {
        var next = 0
        var toArm: Range<UInt64>?
        var address = region.start
        while address < region.end {
            let result = unsafe pager.kernel.scan(
                start: address, end: region.end, tracked: pager.tracking, into: runs)
            guard case .runs(let count, let walkedTo) = result, walkedTo > address else {
                warnOnce("cannot scan \(region.name)")
                return
            }
            for index in 0..<count {
                let run = unsafe runs[index]
                let pages = region.page(at: run.start)..<region.page(at: run.end - 1) + 1
                region.ages.forget(next..<pages.lowerBound)
                note(region, pages, touched: run.touched)
                next = pages.upperBound
                if run.touched, run.isHuge { splitSome(region, run.start..<run.end) }
                if run.touched { arm(run.start..<run.end, after: &toArm) }
            }
            address = walkedTo
        }
        region.ages.forget(next..<region.pageCount)
        if let toArm { arm(toArm) }
        if idlePasses > 0 { mendDense(region) }
    }

    /// Splits those touched huge pages whose time has come.
    private func splitSome(_ region: Region, _ range: Range<UInt64>) {
        for start in stride(from: range.lowerBound, to: range.upperBound, by: hugePageSize) {
            touchedHugePages += 1
            let index = region.hugePage(at: start)
            guard region.looks.isDue(index, idlePasses: idlePasses), splitsLeft > 0 else { continue }
            splitsLeft -= 1
            region.looks.wasSplit(index)
            // Arming a part of a huge mapping splits the mapping; the whole is armed below.
            arm(start..<start + UInt64(pageSize))
        }
    }

    /// Makes those huge pages whole again that were split and are in use throughout.
    private func mendDense(_ region: Region) {
        for index in 0..<region.hugePageCount {
            let passes = region.looks.passesInside(index, idlePasses: idlePasses) ?? 0
            guard passes > 0 else { continue }
            let pages = region.pages(ofHugePage: index)
            // The block's first and last may be cut: they are not huge pages.
            guard pages.count == hugePageSize / pageSize else { continue }
            // Age 1 is a touch since the last pass: these were touched since the split.
            let sinceSplit = AgeMap.touched...UInt8(clamping: passes)
            let touched = pages.count { sinceSplit.contains(region.ages[$0]) }
            guard touched >= HugePageLooks.touchedMin else { continue }
            if pager.kernel.collapse(start: region.address(of: pages.lowerBound)) == nil {
                region.looks.becameWhole(index)
            }
        }
    }

    private func note(_ region: Region, _ pages: Range<Int>, touched: Bool) {
        if touched {
            for page in pages { region.ages[page] = AgeMap.touched }
            pagesByAge[Int(AgeMap.touched)] += pages.count
            touchedPages += pages.count
            return
        }
        for page in pages {
            let age = region.ages[page]
            let older = age == AgeMap.oldest ? age : age + 1
            region.ages[page] = older
            pagesByAge[Int(older)] += 1
        }
    }

    private func arm(_ range: Range<UInt64>, after pending: inout Range<UInt64>?) {
        if let before = pending, range.lowerBound - before.upperBound <= Self.armGapMax {
            pending = before.lowerBound..<range.upperBound
            return
        }
        if let before = pending { arm(before) }
        pending = range
    }

    private func arm(_ range: Range<UInt64>) {
        guard pager.tracking else { return }
        let errno = pager.kernel.arm(
            start: range.lowerBound, length: range.upperBound - range.lowerBound)
        // Not armed means counted as touched: safe, only less is evicted.
        if let errno { warnOnce("cannot arm guest memory: \(errno.text)") }
    }

    private func warnOnce(_ message: String) {
        if !armingFailed { pager.host.log(.warning, message) }
        armingFailed = true
    }
}
