import Engine
import Foundation
import Kernel
import Synchronization
import Testing

@Suite("Pages pinned for I/O")
struct PinnedPagesTests {
    /// Written memory under a pager that evicts nothing by itself.
    private func fill(_ memory: VersionedMemory) throws -> (LivePager, Region) {
        for page in 0..<memory.pageCount { memory.advance(page) }
        let live = try LivePager(
            PagerOptions(
                tracker: .none, store: .compressed, readErrorAction: .stop, limit: 0, idleAge: 0),
            host: HostLog().host)
        return (live, try live.attach(name: "ram", start: memory.start, length: memory.length))
    }

    @Test("stay where they are while others leave, and leave once they are let go")
    func stay() throws {
        let memory = try VersionedMemory(pageCount: 512)
        let (live, region) = try fill(memory)
        let pinned = 100..<110
        let pin = try FixedBuffer(region.address(of: pinned.lowerBound), pages: pinned.count)
        let evictor = Evictor(pager: live.pager)
        let evicted = evictor.evict(region, Array(0..<512)[...])
        print("\(evicted) of 512 pages left, \(live.pager.counters.busyPages.value) were busy")
        #expect(evicted == 512 - pinned.count)
        #expect(live.pager.counters.busyPages.value >= UInt64(pinned.count))
        for page in 0..<512 {
            #expect((region.table[page].state == .resident) == pinned.contains(page))
        }
        pin.release()
        // The kernel lets go from a work queue of its own: later, on a busy machine.
        var left = 0
        let deadline = monotonicNow() + 60_000_000_000
        while left < pinned.count, monotonicNow() < deadline {
            left += evictor.evict(region, Array(pinned)[...])
            usleep(1000)
        }
        #expect(left == pinned.count)
        for page in 0..<512 { #expect(memory.verify(page)) }
        live.pager.detach(region)
        live.stop()
    }

    @Test("keep the huge page that they are a part of where it is, which costs a moment and no more")
    func holdHugePages() throws {
        let memory = try VersionedMemory(pageCount: 1536)
        let (live, region) = try fill(memory)
        for first in [0, 512, 1024] {
            // Not while somebody else has a page of it in hand.
            let isHuge = waitUntil { live.pager.kernel.collapse(start: region.address(of: first)) == nil }
            try #require(isHuge, "this kernel makes no huge page")
        }
        let pins = try [100, 600].map { try FixedBuffer(region.address(of: $0), pages: 10) }
        let evictor = Evictor(pager: live.pager)
        let evicted = Mutex<[Int]>([])
        // Two parts of a huge page, a whole one, and a part of one that nobody holds.
        let parts = [0..<100, 200..<300, 512..<1024, 1024..<1124].map { Array($0) }
        // On a thread of its own: a call that the kernel does not end cannot be ended from here.
        let thread = try Kernel.Thread(name: "evictor") {
            for part in parts {
                let count = evictor.evict(region, part[...])
                evicted.withLock { $0.append(count) }
            }
        }
        let hasEnded = waitUntil { evicted.withLock { $0.count } == parts.count }
        try #require(hasEnded, "the kernel does not end a move")
        thread.join()
        let counts = evicted.withLock { $0 }
        print("held in a huge page: of \(parts.map(\.count)) pages \(counts) left")
        #expect(counts == [0, 0, 0, 100])
        #expect(live.pager.counters.busyPages.value == 100 + 100 + 512)
        for pin in pins { pin.release() }
        // The kernel lets go from a work queue of its own.
        var left = 0
        let leaves = waitUntil {
            for part in parts { left += evictor.evict(region, part[...]) }
            return left == 100 + 100 + 512
        }
        #expect(leaves)
        for page in 0..<memory.pageCount { #expect(memory.verify(page)) }
        live.pager.detach(region)
        live.stop()
    }

    /// A kind of memory and the way its pages leave.
    struct Exchange: CustomTestStringConvertible, Sendable {
        var memory: MemoryKind
        var tracker: PagerOptions.TrackerChoice
        var `guard`: PagerOptions.GuardChoice
        /// The kernel refuses to take pages that are pinned for I/O: UFFDIO_MOVE does.
        var isNoticed = false

        var testDescription: String { "\(memory), tracker \(tracker), guard \(`guard`)" }

        static let here = [
            Exchange(memory: .shared, tracker: .none, guard: .minor),
            Exchange(memory: .privateAnonymous, tracker: .writeProtection, guard: .writeProtect),
            Exchange(memory: .privateAnonymous, tracker: .none, guard: .move, isNoticed: true),
        ]
        static let withReadWriteProtection = [
            Exchange(memory: .shared, tracker: .readWriteProtection, guard: .minor),
            Exchange(memory: .shared, tracker: .readWriteProtection, guard: .freeze),
            Exchange(memory: .privateAnonymous, tracker: .readWriteProtection, guard: .move, isNoticed: true),
            Exchange(
                memory: .privateAnonymous, tracker: .readWriteProtection, guard: .freeze, isNoticed: true),
        ]
        static let huge = [Exchange(memory: .sharedHuge, tracker: .readWriteProtection, guard: .minor)]
    }

    @Test(
        "leave under a read that the kernel does not notice, and a transfer keeps them",
        arguments: Exchange.here, [false, true])
    func transfers(exchange: Exchange, isTold: Bool) throws {
        try read(exchange, isTold: isTold)
    }

    /// Only where the kernel has read-write protection: in the lab.
    @Test(
        "leave under a read that the kernel does not notice, and a transfer keeps them: read-write protection",
        .enabled(if: hasReadWriteProtection, "this kernel has no userfaultfd read-write protection"),
        arguments: Exchange.withReadWriteProtection, [false, true])
    func transfersReadWriteProtected(exchange: Exchange, isTold: Bool) throws {
        try read(exchange, isTold: isTold)
    }

    /// In the lab, which has huge pages in hugetlbfs as well.
    @Test(
        "leave under a read that the kernel does not notice, and a transfer keeps them: huge pages",
        .enabled(if: hasReadWriteProtection && hasHugePages, "no read-write protection, or no huge pages"),
        arguments: Exchange.huge, [false, true])
    func transfersHugePages(exchange: Exchange, isTold: Bool) throws {
        try read(exchange, isTold: isTold)
    }

    /// A read that is under way while the page is to leave: the kernel looked the page up when
    /// it began. What arrives later is lost if the page has left.
    private func read(_ exchange: Exchange, isTold: Bool) throws {
        let memory = try VersionedMemory(pageCount: 512, exchange.memory)
        for page in 0..<memory.pageCount { memory.advance(page) }
        let live = try LivePager(
            PagerOptions(
                tracker: exchange.tracker, guard: exchange.guard, store: .compressed, readErrorAction: .stop,
                limit: 0, idleAge: 0),
            host: HostLog().host)
        let region = try live.attach(
            name: "ram", start: memory.start, length: memory.length,
            pageBytes: exchange.memory == .sharedHuge ? hugePageSize : pageSize)
        let evictor = live.makeEvictor()
        let page = 100
        let unit = exchange.memory == .sharedHuge ? Array(0..<512) : [page]
        let buffer = try FixedBuffer(region.address(of: page), pages: 1)
        let pipe = Pipe()
        if isTold { live.pager.beginTransfer(region, pages: page..<page + 1) }
        try buffer.beginRead(from: pipe.fileHandleForReading.fileDescriptor)
        becomeIdle(live, exchange)
        #expect(evictor(region, unit[...]) == (isTold || exchange.isNoticed ? 0 : unit.count))
        pipe.fileHandleForWriting.write(Data(repeating: 0xa5, count: pageSize))
        try buffer.waitForRead()
        if isTold { live.pager.endTransfer(region, pages: page..<page + 1) }
        let bytes = UnsafeRawBufferPointer(
            start: UnsafeRawPointer(bitPattern: UInt(region.address(of: page)))!, count: pageSize)
        let arrived = bytes.allSatisfy { $0 == 0xa5 }
        print("\(exchange.testDescription), told: \(isTold); what was read arrived: \(arrived)")
        #expect(arrived == (isTold || exchange.isNoticed))
        buffer.release()
        // The kernel lets go from a work queue of its own.
        let leaves = waitUntil {
            becomeIdle(live, exchange)
            return evictor(region, unit[...]) == unit.count
        }
        #expect(leaves, "what is over keeps nothing")
        live.pager.detach(region)
        live.stop()
    }

    /// Two looks: one finds what was touched and arms it, the next nothing.
    private func becomeIdle(_ live: LivePager, _ exchange: Exchange) {
        guard exchange.tracker != .none else { return }
        let passes = live.pager.counters.passes.value
        while live.pager.counters.passes.value < passes + 2 {
            live.settingsChanged()
            Kernel.sleep(nanoseconds: 1_000_000)
        }
    }
}
