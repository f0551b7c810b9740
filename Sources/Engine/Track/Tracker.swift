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
    private var armingFailed = false

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

    /// Looks at every attached block.
    public func pass() {
        for age in pagesByAge.indices { pagesByAge[age] = 0 }
        touchedPages = 0
        pager.regions.forEach(look)
        let resident = pagesByAge.reduce(0, +) - pagesByAge[Int(AgeMap.absent)]
        pager.counters.residentPages.store(resident, ordering: .relaxed)
        pager.counters.touchedPages.store(touchedPages, ordering: .relaxed)
        pager.counters.passes.increment()
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
            for unsafe run in unsafe runs.prefix(count) {
                let pages = region.page(at: run.start)..<region.page(at: run.end - 1) + 1
                forget(region, next..<pages.lowerBound)
                note(region, pages, touched: run.touched)
                next = pages.upperBound
                if run.touched { arm(run.start..<run.end, after: &toArm) }
            }
            address = walkedTo
        }
        forget(region, next..<region.pageCount)
        if let toArm { arm(toArm) }
    }

    /// Pages that are not present have no age.
    private func forget(_ region: Region, _ pages: Range<Int>) {
        for page in pages { region.ages[page] = AgeMap.absent }
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
