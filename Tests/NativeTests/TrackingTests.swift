import Engine
import Foundation
import Kernel
import Testing

/// Tracking against ground truth, on this machine's own kernel: the test knows exactly
/// which pages it touched, and when.
@Suite("Tracking", .serialized)
struct TrackingTests {
    private static let interval: UInt64 = 20_000_000

    /// How a test's memory is tracked.
    enum Way: String {
        /// Private memory; write protection.
        case writes
        /// Shared memory; write protection.
        case sharedWrites
        /// Shared memory, unmapped at each look.
        case zaps
        /// Private memory; read-write protection.
        case accesses

        /// What this machine's kernel is sure to have.
        static let everywhere: [Way] = [.writes, .sharedWrites, .zaps]
        var kind: MemoryKind { self == .writes || self == .accesses ? .privateAnonymous : .shared }
        var seesReads: Bool { self == .zaps || self == .accesses }
        var tracking: PageTracking { self == .accesses ? .readWriteProtection : .writeProtection }
    }

    /// Memory under a pager whose passes the test makes itself.
    private final class Rig {
        let memory: VersionedMemory
        let region: Region
        let pager: Pager<LinuxKernel>
        let tracker: Tracker<LinuxKernel>
        let pageCount: Int
        var touchedAt: [UInt64]

        init(pageCount: Int, _ way: Way = .writes, hugePages: Bool = false) throws {
            memory = try VersionedMemory(pageCount: pageCount, way.kind)
            let base = UnsafeMutableRawPointer(bitPattern: UInt(memory.start))!
            let advice = hugePages ? MADV_HUGEPAGE : MADV_NOHUGEPAGE
            try #require(madvise(base, Int(memory.length), advice) == 0)
            region = try Region(
                name: "ram", start: memory.start, length: memory.length,
                guard: way.kind == .shared ? .minor : .move)
            let port = try LinuxKernel(tracking: way.tracking)
            pager = try Pager(
                port: port,
                store: try Store(
                    tiers: [.compressed(try CompressedStore())], pagesMax: pageCount),
                settings: try Settings(limit: 0, idleAge: 0), host: HostLog().host, tracking: true,
                zapsShared: way == .zaps, readErrorAction: .stop, wakeWorker: {})
            tracker = Tracker(pager: pager)
            self.pageCount = pageCount
            touchedAt = Array(repeating: 0, count: pageCount)
            for page in 0..<pageCount { write(page) }
            try pager.attach(region)
        }

        private func word(_ page: Int) -> UnsafeMutablePointer<UInt64> {
            UnsafeMutablePointer(bitPattern: UInt(memory.start) + UInt(page * pageSize + 8))!
        }

        func write(_ page: Int) {
            word(page).pointee = UInt64(page)
            touchedAt[page] = monotonicNow()
        }

        func read(_ page: Int) -> UInt64 {
            touchedAt[page] = monotonicNow()
            return word(page).pointee
        }

        func adviseHugePages() {
            let base = UnsafeMutableRawPointer(bitPattern: UInt(memory.start))!
            precondition(madvise(base, Int(memory.length), MADV_HUGEPAGE) == 0)
        }

        /// How much of the memory is mapped by huge pages.
        var hugeBytes: UInt64 { hugeBytes(0..<pageCount) }

        func isHuge(_ pages: Range<Int>) -> Bool { hugeBytes(pages) == UInt64(pages.count * pageSize) }

        var stampOfLastPass: UInt8 { tracker.history.spans.last!.stamp }

        private func hugeBytes(_ pages: Range<Int>) -> UInt64 {
            let start = region.address(of: pages.lowerBound)
            let end = region.address(of: pages.upperBound)
            let runs = UnsafeMutableBufferPointer<ScanRun>.allocate(capacity: pageCount)
            defer { runs.deallocate() }
            let result = pager.kernel.scan(start: start, end: end, tracked: true, into: runs)
            guard case .runs(let count, end) = result else { return 0 }
            return runs[..<count].reduce(0) { $0 + ($1.isHuge ? $1.end - $1.start : 0) }
        }

        /// Precision and recall of "idle for at least `age`", as of the last pass.
        func accuracy(age: UInt64) -> (precision: Double, recall: Double) {
            let idle = tracker.history.stamps(idleFor: age, at: tracker.lookedAt)
            var told = 0
            var right = 0
            var truth = 0
            for page in 0..<pageCount {
                let isIdle = tracker.lookedAt > touchedAt[page] + age
                let isTold = idle.contains(region.ages[page])
                truth += isIdle ? 1 : 0
                told += isTold ? 1 : 0
                right += isIdle && isTold ? 1 : 0
            }
            return (told == 0 ? 1 : Double(right) / Double(told), Double(right) / Double(max(1, truth)))
        }

        deinit { pager.detach(region) }
    }

    @Test(
        "knows idle pages: precision and recall of 99 %", arguments: Way.everywhere, [3, 10, 50])
    func accuracy(way: Way, hotPercent: Int) throws {
        let rig = try Rig(pageCount: 8192, way)
        let hot = (0..<rig.pageCount).filter { ($0 &* 2_654_435_761) >> 7 % 100 < hotPercent }
        for _ in 0..<40 {
            let passDue = monotonicNow() + Self.interval
            for page in hot {
                // Half of the hot set is only read, where that counts.
                if way.seesReads, page % 2 == 0 {
                    #expect(rig.read(page) == UInt64(page))
                } else {
                    rig.write(page)
                }
            }
            while monotonicNow() < passDue {}
            rig.tracker.pass(.never)
        }
        let (precision, recall) = rig.accuracy(age: 10 * Self.interval)
        print("\(way), \(hotPercent) % hot: precision \(precision), recall \(recall)")
        #expect(precision >= 0.99 && recall >= 0.99)
        #expect(rig.pager.counters.residentPages.value == rig.pageCount)
    }

    @Test("looks ever more rarely where nothing happens, and sees a write there all the same")
    func quietPlaces() throws {
        let rig = try Rig(pageCount: 16 * 512)
        for _ in 0..<80 { rig.tracker.pass(.never) }
        rig.write(5 * 512 + 7)
        var passes = 0
        while rig.region.ages[5 * 512 + 7] != rig.tracker.history.spans.last!.stamp, passes < 200 {
            rig.tracker.pass(.never)
            passes += 1
        }
        print("a write to quiet memory was seen after \(passes) passes")
        #expect(passes <= 16)
    }

    @Test("tells how many pages a second are used again that had been idle for a second")
    func returningPages() throws {
        let rig = try Rig(pageCount: 1024)
        rig.tracker.pass(.never)
        Thread.sleep(forTimeInterval: 1.2)
        for page in 300..<420 { rig.write(page) }
        let workingSet = rig.region.workingSet
        for _ in 0..<20 where workingSet.returnsPerSecond(power: 0) == 0 { rig.tracker.pass(.never) }
        // An average over a minute: however long it is between two passes, 120 pages are 2 a second.
        #expect(abs(workingSet.returnsPerSecond(power: 0) - 2) < 0.05)
        #expect(workingSet.returnsPerSecond(power: 2) == 0)
    }

    @Test("does not take a scan of its own, or a read, for a write")
    func readsAreNotWrites() throws {
        let rig = try Rig(pageCount: 4096)
        rig.tracker.pass(.never)
        rig.tracker.pass(.never)
        let stamps = (0..<4096).map { rig.region.ages[$0] }
        for page in 0..<4096 { #expect(rig.read(page) == UInt64(page)) }
        rig.tracker.pass(.never)
        #expect((0..<4096).map { rig.region.ages[$0] } == stamps)
        #expect(rig.pager.counters.touchedPages.value == 0)
    }

    @Test("counts a light fault for each touched page that was armed, and none for what had just come")
    func lightFaults() throws {
        let rig = try Rig(pageCount: 1024)
        rig.tracker.pass(.never)
        #expect(rig.pager.counters.touchedPages.value == 1024)
        #expect(rig.pager.counters.lightFaults.value == 0)
        for page in 100..<110 { rig.write(page) }
        rig.tracker.pass(.never)
        #expect(rig.pager.counters.lightFaults.value == 10)
    }

    @Test("tells one write in a huge page: Linux splits a write-protected one there")
    func hugePages() throws {
        let rig = try Rig(pageCount: 4 * 512, hugePages: true)
        rig.tracker.pass(.never)
        rig.tracker.pass(.never)
        rig.write(700)
        var touched = 0
        for _ in 0..<4 where touched == 0 {
            rig.tracker.pass(.never)
            touched = rig.pager.counters.touchedPages.value
        }
        print("one write touched \(touched) pages")
        #expect(touched == 512 || touched == 1, "512 where the kernel resolves the whole huge page")
        #expect(rig.pager.counters.lightFaults.value == 1)
    }

    @Test(
        "splits a huge page that is used now and then, and not one that is used at once",
        .enabled(if: hasReadWriteProtection, "this kernel has no userfaultfd read-write protection"))
    func readWriteProtectedHugePages() throws {
        let rig = try Rig(pageCount: 4 * 512, .accesses, hugePages: true)
        let whole = (0..<rig.region.hugePageCount).filter { rig.region.pages(ofHugePage: $0).count == 512 }
        let busy = rig.region.pages(ofHugePage: whole[0])
        let seldom = rig.region.pages(ofHugePage: whole[1])
        try #require(rig.isHuge(busy) && rig.isHuge(seldom))
        let deadline = monotonicNow() + 20_000_000_000
        while rig.isHuge(seldom), monotonicNow() < deadline {
            rig.write(busy.lowerBound + 3)
            rig.write(seldom.lowerBound + 7)
            rig.tracker.pass(.sparingBusy(after: 50_000_000))
            while let due = rig.tracker.glanceAt {
                rig.write(busy.lowerBound + 3)
                if monotonicNow() >= due { rig.tracker.glance() }
            }
        }
        #expect(!rig.isHuge(seldom))
        #expect(rig.isHuge(busy))
        #expect(rig.pager.counters.hugePageSplits.value == 1)
        // What was split is armed throughout: one touch is one page from here on.
        rig.tracker.pass(.never)
        rig.write(seldom.lowerBound + 300)
        var touched: Set<Int> = []
        for _ in 0..<8 {  // quiet memory is not looked at in every pass
            rig.tracker.pass(.never)
            touched.formUnion(seldom.filter { rig.region.ages[$0] == rig.stampOfLastPass })
        }
        #expect(touched == [seldom.lowerBound + 300])
    }

    @Test("makes huge pages of memory that is in use throughout, in small pages")
    func mends() throws { try mend(.writes) }

    @Test(
        "makes huge pages of memory that is in use throughout, in small pages: read-write protection",
        .enabled(if: hasReadWriteProtection, "this kernel has no userfaultfd read-write protection"))
    func readWriteProtectedMends() throws { try mend(.accesses) }

    private func mend(_ way: Way) throws {
        let rig = try Rig(pageCount: 4 * 512, way)
        rig.adviseHugePages()
        #expect(rig.hugeBytes == 0)
        let age: UInt64 = 50_000_000
        let deadline = monotonicNow() + 10_000_000_000
        // The last quarter is not in use.
        while rig.hugeBytes < 3 * UInt64(hugePageSize), monotonicNow() < deadline {
            for page in 0..<3 * 512 { rig.write(page) }
            rig.tracker.pass(.after(age))
        }
        #expect(rig.hugeBytes == 3 * UInt64(hugePageSize))
        #expect(rig.pager.counters.hugePageMends.value >= 3)
        for page in 0..<4 * 512 { #expect(rig.read(page) == UInt64(page)) }
    }
}
