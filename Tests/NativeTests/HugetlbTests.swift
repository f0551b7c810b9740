import Engine
import Kernel
import Synchronization
import Testing

/// Huge pages of hugetlbfs. In the lab, whose kernel has read-write protection.
@Suite("Huge pages of hugetlbfs")
struct HugetlbTests {
    @Test(
        "can be written where a discard left a hole that the kernel fills by itself",
        .enabled(if: hasReadWriteProtection && hasHugePages, "no read-write protection, or no huge pages"))
    func discarded() throws {
        let log = HostLog()
        let live = try LivePager(
            PagerOptions(
                tracker: .automatic, store: .compressed, readErrorAction: .stop, limit: 0, idleAge: 0),
            host: log.host)
        let memory = try VersionedMemory(pageCount: 4 * hugePageSize / pageSize, .sharedHuge)
        let all = 0..<memory.pageCount
        let region = try live.attach(
            name: "ram", start: memory.start, length: memory.length, pageBytes: hugePageSize)
        for page in all { memory.advance(page) }
        // Found touched by a pass, and armed.
        let passes = live.pager.counters.passes.value
        while live.pager.counters.passes.value < passes + 2 {
            live.settingsChanged()
            Kernel.sleep(nanoseconds: 1_000_000)
        }
        live.pager.beginDiscard(region, pages: all)
        memory.drop(all)
        live.pager.endDiscard(region, pages: all)
        for page in all { memory.forget(page) }
        // On a thread of its own: a write that never ends is a fault again and again.
        let isDone = Atomic<Bool>(false)
        let wrong = Atomic<Int>(0)
        let writer = try Kernel.Thread(name: "writer") {
            for page in all {
                if !memory.verify(page) { wrong.add(1, ordering: .relaxed) }
                memory.advance(page)
            }
            isDone.store(true, ordering: .releasing)
        }
        let deadline = monotonicNow() + 30_000_000_000
        while !isDone.load(ordering: .acquiring), monotonicNow() < deadline {
            Kernel.sleep(nanoseconds: 10_000_000)
        }
        let hasEnded = isDone.load(ordering: .acquiring)
        try #require(hasEnded, "a write does not end")
        writer.join()
        for page in all where !memory.verify(page) { wrong.add(1, ordering: .relaxed) }
        let mismatches = wrong.load(ordering: .relaxed)
        #expect(mismatches == 0)
        #expect(log.errors == [])
        live.pager.detach(region)
        live.stop()
    }
}
