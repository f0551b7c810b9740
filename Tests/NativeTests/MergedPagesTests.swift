import Engine
import Glibc
import Kernel
import Testing

/// What a page that the kernel has merged (KSM) looks like from here: mapped somewhere else
/// as well, and refused by MOVE. So is a page that a child process shares, which takes no
/// setting of the whole machine.
@Suite("Pages that are mapped twice")
struct MergedPagesTests {
    /// A child that shares this process's memory, copy on write, and does nothing.
    private struct Child {
        let process: pid_t

        init() throws {
            // Swift does not import fork: most of what follows it is unsafe with threads.
            typealias Fork = @convention(c) () -> pid_t
            let process = unsafeBitCast(dlsym(nil, "fork"), to: Fork.self)()
            if process == 0 { while true { pause() } }
            try #require(process > 0)
            self.process = process
        }

        func end() {
            kill(process, SIGKILL)
            waitpid(process, nil, 0)
        }
    }

    @Test("stay, are counted, and are left alone until they are touched")
    func stay() throws {
        let pageCount = 512
        let shared = 0..<200
        let memory = try VersionedMemory(pageCount: pageCount)
        let base = UnsafeMutableRawPointer(bitPattern: UInt(memory.start))!
        try #require(madvise(base, pageCount * pageSize, MADV_NOHUGEPAGE) == 0)
        try #require(madvise(base, shared.count * pageSize, MADV_DOFORK) == 0)
        for page in 0..<pageCount { memory.advance(page) }
        let child = try Child()
        defer { child.end() }

        var options = PagerOptions(
            tracker: .writeProtection, store: .compressed, readErrorAction: .stop, limit: 0, idleAge: 0)
        options.mode = .off
        let live = try LivePager(options, host: HostLog().host)
        let region = try live.attach(
            name: "ram", start: memory.start, length: memory.length, mayMerge: true)
        // The worker rests in mode off: this thread is the worker.
        let tracker = Tracker(pager: live.pager)
        let evictor = Evictor(pager: live.pager)
        let counters = live.pager.counters
        tracker.pass(.never)
        // Each in one mapping: MOVE does not go from one to the next.
        #expect(evictor.evict(region, Array(shared)[...]) == 0)
        let evicted = evictor.evict(region, Array(shared.upperBound..<pageCount)[...])
        tracker.pass(.never)
        print("\(evicted) of \(pageCount) pages left, \(counters.mergedPages.value) are mapped twice")
        #expect(evicted == pageCount - shared.count)
        #expect(counters.mergedPages.value == shared.count)
        for page in shared { #expect(region.ages[page] == AgeMap.kept) }

        // Written, a page is one of its own again.
        memory.advance(0)
        // Memory that rests is left out of the next passes.
        for _ in 0..<4 { tracker.pass(.never) }
        #expect(counters.mergedPages.value == shared.count - 1)
        #expect(region.ages[0] != AgeMap.kept)
        #expect(evictor.evict(region, [0]) == 1)

        for page in 0..<pageCount { #expect(memory.verify(page)) }
        live.pager.detach(region)
        live.stop()
    }
}
