import Engine
import Foundation
import Kernel
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

    /// A read into shared memory that is under way while the page is to leave: the kernel
    /// looked the page up when it began.
    @Test("of shared memory leave all the same, and a transfer keeps them", arguments: [false, true])
    func transfers(isTold: Bool) throws {
        let memory = try VersionedMemory(pageCount: 512, .shared)
        let (live, region) = try fill(memory)
        let evictor = Evictor(pager: live.pager)
        let page = 100
        let buffer = try FixedBuffer(region.address(of: page), pages: 1)
        let pipe = Pipe()
        if isTold { live.pager.beginTransfer(region, pages: page..<page + 1) }
        try buffer.beginRead(from: pipe.fileHandleForReading.fileDescriptor)
        let evicted = evictor.evict(region, [page])
        #expect(evicted == (isTold ? 0 : 1))
        pipe.fileHandleForWriting.write(Data(repeating: 0xa5, count: pageSize))
        try buffer.waitForRead()
        if isTold { live.pager.endTransfer(region, pages: page..<page + 1) }
        let bytes = UnsafeRawBufferPointer(
            start: UnsafeRawPointer(bitPattern: UInt(region.address(of: page)))!, count: pageSize)
        let arrived = bytes.allSatisfy { $0 == 0xa5 }
        print("told of the transfer: \(isTold); what was read arrived: \(arrived)")
        #expect(arrived == isTold)
        buffer.release()
        #expect(evictor.evict(region, [page]) == 1, "what is over keeps nothing")
        live.pager.detach(region)
        live.stop()
    }
}
