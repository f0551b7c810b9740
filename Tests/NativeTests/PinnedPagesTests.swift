import Engine
import Glibc
import Kernel
import Testing

@Suite("Pages pinned for I/O")
struct PinnedPagesTests {
    /// Registered buffers of an io_uring: memory that the kernel pins for as long as the
    /// ring lives, as it does for direct I/O and for devices.
    private struct Pin {
        private let ring: Int32

        init(_ start: UInt64, pages: Int) throws {
            var parameters = [UInt8](repeating: 0, count: 120)
            let ring = parameters.withUnsafeMutableBytes {
                Self.syscall(425, 1, Int(bitPattern: $0.baseAddress!), 0, 0)  // io_uring_setup
            }
            try #require(ring >= 0)
            self.ring = Int32(ring)
            var buffer = iovec(
                iov_base: UnsafeMutableRawPointer(bitPattern: UInt(start)), iov_len: pages * pageSize)
            let answer = withUnsafeMutablePointer(to: &buffer) {
                Self.syscall(427, ring, 0, Int(bitPattern: $0), 1)  // io_uring_register, buffers
            }
            try #require(answer == 0)
        }

        func release() {
            close(ring)
        }

        /// Swift does not import variadic functions.
        private static func syscall(_ number: Int, _ a: Int, _ b: Int, _ c: Int, _ d: Int) -> Int {
            typealias Call = @convention(c) (Int, Int, Int, Int, Int) -> Int
            return unsafeBitCast(dlsym(nil, "syscall"), to: Call.self)(number, a, b, c, d)
        }
    }

    @Test("stay where they are while others leave, and leave once they are let go")
    func stay() throws {
        let memory = try VersionedMemory(pageCount: 512)
        defer { memory.keepUntilHere() }
        for page in 0..<512 { memory.advance(page) }
        let live = try LivePager(
            PagerOptions(
                tracker: .none, store: .compressed, readErrorAction: .stop, limit: 0, idleAge: 0),
            host: HostLog().host)
        let region = try live.attach(name: "ram", start: memory.start, length: memory.length)
        let pinned = 100..<110
        let pin = try Pin(region.address(of: pinned.lowerBound), pages: pinned.count)
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
}
