import CBareLoops
import Engine
import Kernel

/// How fast pages leave.
struct Eviction {
    let bench: Bench

    func run() throws -> [Result] {
        let guest = try Guest(pageCount: bench.pageCount)
        let compressed = CompressedPages(of: guest)
        let alike = try Guest(pageCount: bench.pageCount)
        let rig = try PagerRig(guest)
        defer { rig.close() }
        var ours: [Double] = []
        var alone: [Double] = []
        for part in 0..<max(bench.rounds, 3 * guest.partCount) {
            let pages = guest.pages(ofPart: part)
            ours.append(Double(pages.count) * 1e9 / cpuTime { rig.evict(pages) })
            alone.append(
                Double(pages.count) * 1e9
                    / cpuTime { compressed.compress(pages, at: alike.base, room: SizeClass.largest) })
            if ours.count >= guest.partCount { _ = guest.touch(part: part + 1) }
        }
        let fresh = ours[..<guest.partCount]
        return [
            Result(
                "evict/compressed-ram", median(Array(ours[guest.partCount...])), "pages/s",
                floor: median(alone),
                "LZ4 compression alone of the same pages into one buffer; both per second of the "
                    + "one worker's CPU time, system calls included"),
            Result(
                "evict/compressed-ram/new-pool", median(Array(fresh)), "pages/s",
                floor: median(alone),
                "the same; ours takes its pool's memory from the kernel for the first time"),
        ]
    }

    /// Pages that were only read since they came from the file, against the same pages
    /// written since.
    func runClean() throws -> [Result] {
        let guest = try Guest(pageCount: bench.pageCount)
        let rig = try PagerRig(
            guest, store: .file(path: ".build/bench/store", size: 2 * guest.length))
        defer { rig.close() }
        var clean: [Double] = []
        var written: [Double] = []
        for part in 0..<bench.fileRounds {
            let pages = guest.pages(ofPart: part)
            guest.write(part: part)
            written.append(pagesPerSecond(pages) { rig.evict(pages) })
            _ = guest.touch(part: part)
            let before = rig.live.pager.counters.cleanEvictions.value
            clean.append(pagesPerSecond(pages) { rig.evict(pages) })
            let spared = rig.live.pager.counters.cleanEvictions.value - before
            precondition(spared == UInt64(pages.count), "only \(spared) pages were clean")
            _ = guest.touch(part: part)
        }
        return [
            Result(
                "evict/file/clean", median(clean), "pages/s", floor: median(written),
                "evicting the same pages when they were written since; elapsed time of both")
        ]
    }

    private func pagesPerSecond(_ pages: Range<Int>, _ body: () -> Void) -> Double {
        let start = monotonicNow()
        body()
        return Double(pages.count) * 1e9 / Double(monotonicNow() - start)
    }

    /// The move into staging as the evictor makes it: a huge page's worth a call.
    func runMove() throws -> [Result] {
        let guest = try Guest(pageCount: bench.pageCount)
        let target = try Mapping(length: hugePageSize, alignment: hugePageSize)
        let descriptor = bare_move_open(target.base, UInt64(hugePageSize))
        guard descriptor >= 0 else {
            throw BenchmarkFailure("no userfaultfd: \(Errno(-descriptor).text)")
        }
        defer { bare_close(descriptor) }
        let rig = try PagerRig(guest)
        let pager = rig.live.pager
        var ours: [Double] = []
        var raw: [Double] = []
        for _ in 0..<bench.rounds / 2 {
            ours.append(
                gigabytesPerSecond(guest) { source in
                    let result = pager.kernel.move(
                        from: UInt64(UInt(bitPattern: source)), to: pager.staging.start,
                        length: UInt64(hugePageSize))
                    precondition(result == MoveResult(moved: UInt64(hugePageSize), stop: .none))
                } empty: {
                    pager.kernel.release(start: pager.staging.start, length: UInt64(hugePageSize))
                })
            raw.append(
                gigabytesPerSecond(guest) { source in
                    let answer = bare_move(descriptor, target.base, source, UInt64(hugePageSize))
                    precondition(answer == 0)
                } empty: {
                    target.release(offset: 0, length: hugePageSize)
                })
        }
        rig.close()
        return [
            Result(
                "staging/move", median(ours), "GB/s", floor: median(raw),
                "bare UFFDIO_MOVE of 512 pages a call, as the evictor makes it; CPU time of both")
        ]
    }

    /// Only the moves are timed.
    private func gigabytesPerSecond(
        _ guest: Guest, move: (UnsafeMutableRawPointer) -> Void, empty: () -> Void
    ) -> Double {
        var nanoseconds = 0.0
        for offset in stride(from: 0, to: Int(guest.length), by: hugePageSize) {
            let source = guest.base + offset
            // Only the pages matter here, not what they hold.
            for page in stride(from: 0, to: hugePageSize, by: pageSize) {
                source.storeBytes(of: 1, toByteOffset: page, as: UInt8.self)
            }
            nanoseconds += cpuTime { move(source) }
            empty()
        }
        return Double(guest.length) / nanoseconds
    }
}
