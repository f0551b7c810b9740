import Engine
import Foundation
import Kernel
import Synchronization
import Testing

/// Real huge pages of this machine's own kernel: what left as one is to be one again.
@Suite("Huge pages that leave", .serialized)
struct HugePageReturnTests {
    private static let hugePages = 6
    private static let pages = hugePages * hugePageSize / pageSize

    /// How pages leave, on any kernel and with read-write protection.
    enum Way: Sendable, CaseIterable {
        case move, writeProtect
        case moveArmed, freeze

        static let everywhere: [Way] = [.move, .writeProtect]
        static let armed: [Way] = [.moveArmed, .freeze]

        fileprivate var tracker: PagerOptions.TrackerChoice {
            switch self {
            case .move, .writeProtect: .writeProtection
            case .moveArmed, .freeze: .readWriteProtection
            }
        }

        fileprivate var `guard`: PagerOptions.GuardChoice {
            switch self {
            case .move, .moveArmed: .move
            case .writeProtect: .writeProtect
            case .freeze: .freeze
            }
        }
    }

    /// Written memory, and a pager that evicts nothing by itself unless it has an idle age.
    private final class Rig {
        let live: LivePager
        let memory: VersionedMemory
        let region: Region
        private let evictor: Evictor<LinuxKernel>
        var counters: Counters { live.pager.counters }

        init(_ way: Way, idleAge: UInt64 = 0, arePagesHuge: Bool = true) throws {
            live = try LivePager(
                PagerOptions(
                    tracker: way.tracker, guard: way.guard, store: .compressed,
                    readErrorAction: .stop, limit: 0, idleAge: idleAge),
                host: HostLog().host)
            setting(live, .off)
            memory = try VersionedMemory(pageCount: pages)
            let base = UnsafeMutableRawPointer(bitPattern: UInt(memory.start))!
            try #require(
                madvise(base, Int(memory.length), arePagesHuge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE) == 0)
            for page in 0..<pages { memory.advance(page) }
            try #require(madvise(base, Int(memory.length), MADV_HUGEPAGE) == 0)
            region = try live.attach(name: "ram", start: memory.start, length: memory.length)
            evictor = Evictor(pager: live.pager)
            if arePagesHuge { try #require(hugePagesThere == hugePages, "this kernel makes no huge pages") }
        }

        func set(_ mode: Mode) { setting(live, mode) }

        /// Only while the pager's own worker rests, in mode `off`.
        func evict(_ pages: Range<Int>) -> Int { evictor.evict(region, Array(pages)[...]) }

        func evictAll() -> Int {
            (0..<region.hugePageCount).reduce(0) { $0 + evict(region.pages(ofHugePage: $1)) }
        }

        /// By an access.
        func bringBack(_ page: Int) {
            #expect(memory.verify(page))
            waitUntil { region.table[page].state == .resident }
        }

        /// By mode `drain`, as huge pages.
        func bringAllBack() {
            set(.drain)
            let areBack = waitUntil { counters.hugePageReturns.value == UInt64(hugePages) }
            #expect(areBack && hugePagesThere == hugePages)
        }

        var hugePagesThere: Int {
            (0..<region.hugePageCount).count { isHuge(region.pages(ofHugePage: $0)) }
        }

        func isHuge(_ pages: Range<Int>) -> Bool {
            var run = [ScanRun(start: 0, end: 0, touched: false)]
            let start = region.address(of: pages.lowerBound)
            let end = region.address(of: pages.upperBound)
            let result = run.withUnsafeMutableBufferPointer {
                live.pager.kernel.scan(start: start, end: end, tracked: true, into: $0)
            }
            guard case .runs(1, _) = result else { return false }
            return run[0].isHuge && run[0].start == start && run[0].end == end
        }

        func finish() {
            #expect((0..<pages).count { !memory.verify($0) } == 0)
            live.pager.detach(region)
            live.stop()
        }
    }

    private static func setting(_ live: LivePager, _ mode: Mode) {
        live.pager.settings.setMode(mode)
        live.settingsChanged()
    }

    @Test("come back whole when all is brought back", arguments: Way.everywhere)
    func broughtBack(way: Way) throws { try bringBack(way) }

    @Test(
        "come back whole when all is brought back: read-write protection",
        .enabled(if: hasReadWriteProtection, "this kernel has no userfaultfd read-write protection"),
        arguments: Way.armed)
    func readWriteProtectedBroughtBack(way: Way) throws { try bringBack(way) }

    private func bringBack(_ way: Way) throws {
        let rig = try Rig(way)
        #expect(rig.evictAll() == Self.pages)
        #expect(rig.counters.hugePageDepartures.value == UInt64(Self.hugePages))
        rig.set(.drain)
        waitUntil { rig.counters.hugePageReturns.value == UInt64(Self.hugePages) }
        print("\(way): \(rig.hugePagesThere) of \(Self.hugePages) huge pages are whole again")
        #expect(rig.hugePagesThere == Self.hugePages)
        #expect(rig.counters.hugePageReturns.value == UInt64(Self.hugePages))
        #expect(rig.counters.evictedPages == 0)
        rig.finish()
    }

    @Test("are whole again once the last of their pages was wanted, and not before")
    func wantedBack() throws {
        let rig = try Rig(.move)
        #expect(rig.evictAll() == Self.pages)
        // Of the first, one page stays where it is. Backwards, since what follows others comes early.
        let missing = rig.region.pages(ofHugePage: 0).lowerBound
        for page in (0..<Self.pages).reversed() where page != missing { #expect(rig.memory.verify(page)) }
        rig.set(.active)
        waitUntil { rig.hugePagesThere == Self.hugePages - 1 }
        let passes = rig.counters.passes.value
        waitUntil { rig.counters.passes.value > passes + 2 }
        #expect(rig.hugePagesThere == Self.hugePages - 1)
        #expect(rig.memory.verify(missing))
        waitUntil { rig.counters.hugePageReturns.value == UInt64(Self.hugePages) }
        #expect(rig.hugePagesThere == Self.hugePages)
        #expect(rig.counters.hugePageReturns.value == UInt64(Self.hugePages))
        rig.finish()
    }

    @Test("come back whole although a page of them came and left meanwhile")
    func comingAndLeaving() throws {
        let rig = try Rig(.move)
        #expect(rig.evictAll() == Self.pages)
        let page = rig.region.pages(ofHugePage: 2).lowerBound + 7
        rig.bringBack(page)
        #expect(rig.evict(page..<page + 1) == 1)
        rig.bringAllBack()
        rig.finish()
    }

    @Test("come back whole although a page of one was in somebody's hands for long after it was back")
    func held() throws {
        let rig = try Rig(.move)
        #expect(rig.evictAll() == Self.pages)
        let page = rig.region.pages(ofHugePage: 3).lowerBound + 9
        rig.bringBack(page)
        let pin = try FixedBuffer(rig.region.address(of: page), pages: 1)
        rig.set(.drain)
        waitUntil { rig.counters.hugePageReturns.value == UInt64(Self.hugePages - 1) }
        Kernel.sleep(nanoseconds: 2_000_000_000)
        #expect(rig.hugePagesThere == Self.hugePages - 1)
        pin.release()
        rig.bringAllBack()
        rig.finish()
    }

    @Test("come back whole although a look came too early to see a page that was arriving")
    func overlooked() throws {
        let rig = try Rig(.move)
        #expect(rig.evictAll() == Self.pages)
        let page = rig.region.pages(ofHugePage: 1).lowerBound + 5
        rig.bringBack(page)
        rig.region.ages.forget(page..<page + 1)
        rig.bringAllBack()
        rig.finish()
    }

    @Test("in part are not made whole for being back")
    func inPart() throws {
        let rig = try Rig(.move)
        let part = rig.region.pages(ofHugePage: 1).dropLast()
        #expect(rig.evict(part) == part.count)
        #expect(rig.counters.hugePageDepartures.value == 0)
        rig.set(.drain)
        waitUntil { rig.counters.evictedPages == 0 }
        rig.set(.active)
        let passes = rig.counters.passes.value
        waitUntil { rig.counters.passes.value > passes + 2 }
        #expect(rig.hugePagesThere == Self.hugePages - 1)
        #expect(rig.counters.hugePageReturns.value == 0)
        rig.finish()
    }

    @Test("few pages that had left come back to make a huge page with the others, all in use")
    func rest() throws {
        let rig = try Rig(.move, idleAge: Settings.idleAgeMin, arePagesHuge: false)
        let first = rig.region.pages(ofHugePage: 0)
        rig.set(.active)
        let isOut = waitUntil { first.allSatisfy { rig.region.table[$0].state == .stored } }
        #expect(isOut)
        let seldom = first.prefix(32)
        waitUntil {
            for page in first.dropFirst(seldom.count) { rig.memory.advance(page) }
            return rig.counters.hugePageMends.value > 0
        }
        // Not whether it is one: where writes are tracked, the next one splits it.
        #expect(rig.counters.hugePageMends.value > 0)
        #expect(rig.counters.hugePageDepartures.value == 0)
        rig.finish()
    }
}
