import CBareLoops
import Kernel

/// Where the server and the faulting threads of a rate are. On one CPU beside one of
/// them, or alone, a server serves half as fast again or half as slow: only loops placed
/// alike can be compared.
enum RatePlacement: String, CaseIterable {
    /// Faulting threads on all CPUs, the server beside those on the last.
    case shared = "shared-cpu"
    /// The server alone on the last CPU.
    case apart = "own-cpu"
    /// Wherever the scheduler puts them, each time anew: the loops are then seldom placed alike.
    case free

    var faultingCPUs: Int32 {
        switch self {
        case .shared: bench_cpu_count()
        case .apart: bench_cpu_count() - 1
        case .free: 0
        }
    }

    var servingCPU: Int32 { self == .free ? -1 : bench_cpu_count() - 1 }

    /// Spinning would starve the faulting threads of the same CPU.
    var waits: [Wait] { self == .shared ? [.poll, .block, .yield] : Wait.allCases }

    var sentence: String {
        switch self {
        case .shared: "faulting threads on every CPU, the server beside those on the last"
        case .apart: "the server alone on the last CPU"
        case .free: "unpinned"
        }
    }
}

/// Faults per second from several threads at once.
///
/// Two figures of each: the median round, and under `/calm` the round that only a tenth
/// surpassed. A neighbour on the CPUs takes from a rate and never adds to it, so the
/// calm figure is closer to the loop's own cost, and the median to how it fares in company.
struct FaultRates {
    let bench: Bench

    static let threadCounts = [1, 2, 4]

    func run(threads: Int, _ placement: RatePlacement) throws -> [Result] {
        let guest = try Guest(pageCount: bench.pageCount)
        let floorGuest = try Guest(pageCount: bench.pageCount)
        let compressed = CompressedPages(of: guest)
        let rig = try PagerRig(guest)
        defer { rig.close() }
        rig.pinServer(toCPU: placement.servingCPU)
        rig.evict(0..<guest.pageCount)
        var ours: [Double] = []
        var bare: [Wait: [Double]] = [:]
        for part in 0..<bench.rounds {
            ours.append(guest.touch(part: part, threads: threads, cpus: placement.faultingCPUs))
            rig.evict(guest.pages(ofPart: part))
            for wait in placement.waits {
                bare[wait, default: []].append(
                    try withBareServer(
                        floorGuest, part: part, .lz4(compressed), wait, cpu: placement.servingCPU
                    ) { floorGuest.touch(part: part, threads: threads, cpus: placement.faultingCPUs) })
            }
        }
        if bench.isVerbose {
            print("    ours \(spread(ours))")
            for (wait, rates) in bare { print("    \(wait.text) \(spread(rates))") }
        }
        let plural = threads == 1 ? "thread" : "threads"
        let name = "faults-per-second/compressed-ram/\(threads)-\(plural)/\(placement.rawValue)"
        return [("", "median round", median), ("/calm", "calm round", calm)].map { suffix, kind, of in
            let best = bare.max { of($0.value) < of($1.value) }!
            return Result(
                name + suffix, of(ours), "/s", floor: of(best.value),
                "\(kind); a bare loop (LZ4 decompression, UFFDIO_COPY; \(best.key.text), the best "
                    + "there) serving as many threads, \(placement.sentence)")
        }
    }

    /// A guest that reads its memory from one end to the other.
    func runSequential() throws -> [Result] {
        let guest = try Guest(pageCount: bench.pageCount)
        let floorGuest = try Guest(pageCount: bench.pageCount)
        let compressed = CompressedPages(of: guest)
        let rig = try PagerRig(guest)
        defer { rig.close() }
        rig.evict(0..<guest.pageCount)
        var ours: [Double] = []
        var bare: [Double] = []
        for part in 0..<bench.rounds {
            ours.append(guest.touchInOrder(part: part))
            rig.evict(guest.pages(ofPart: part))
            bare.append(
                try withBareServer(floorGuest, part: part, .lz4(compressed), .yield, cpu: -1) {
                    floorGuest.touchInOrder(part: part)
                })
        }
        let counters = rig.live.pager.counters
        let share = Double(counters.prefetchHits.value) / Double(max(1, counters.prefetches.value))
        return [
            Result(
                "policy/prefetch/sequential", median(ours), "pages/s", floor: median(bare),
                "a bare loop that answers each fault alone (LZ4 decompression, UFFDIO_COPY, "
                    + "\(Wait.yield.text))"),
            Result(
                "policy/prefetch/hit-rate", share, "of 1", floor: nil,
                "pages brought early that the guest went through"),
        ]
    }

    /// The kernel's own compressed swap on the same data. Empty, and says why, where
    /// it cannot be set up.
    func runZram() throws -> [Result] {
        let guest = try Guest(pageCount: bench.pageCount)
        let answer = bench_zram_up(4 * guest.length)
        guard answer == 0 else {
            print("zram: not measured, /dev/zram0 cannot be set up: \(Errno(-answer).text)")
            return []
        }
        defer { bench_zram_down() }
        return swapRates(of: guest, "zram", "the kernel's zram swap (LZ4)")
    }

    /// The same with a swap file beside the store's file, with the kernel's usual readahead.
    func runSwap() throws -> [Result] {
        let guest = try Guest(pageCount: bench.pageCount)
        let answer = bench_swap_file_up(".build/bench/swap", 4 * guest.length)
        guard answer == 0 else {
            print("swap: not measured, .build/bench/swap cannot be set up: \(Errno(-answer).text)")
            return []
        }
        defer { bench_swap_file_down() }
        return swapRates(of: guest, "swap", "the kernel's swap, a file on the same disk,")
    }

    private func swapRates(of guest: Guest, _ name: String, _ what: String) -> [Result] {
        Self.threadCounts.flatMap { threads -> [Result] in
            var rates: [Double] = []
            for part in 0..<bench.rounds {
                let pages = guest.pages(ofPart: part)
                guard pageOut(guest, pages) else { continue }
                rates.append(guest.touch(part: part, threads: threads, cpus: 0))
            }
            guard !rates.isEmpty else {
                print("\(name): not measured, the kernel kept the pages in RAM")
                return []
            }
            let plural = threads == 1 ? "thread" : "threads"
            return [("", "median round", median(rates)), ("/calm", "calm round", calm(rates))].map {
                Result(
                    "faults-per-second/\(name)/\(threads)-\(plural)\($0)", $2, "/s", floor: nil,
                    "\($1); for comparison: \(what) faults in the same pages")
            }
        }
    }

    /// False: the kernel kept too many of them. Some are held back by another CPU's batches, and
    /// those that a disk must take come free after that only; many would flatter.
    private func pageOut(_ guest: Guest, _ pages: Range<Int>) -> Bool {
        for _ in 0..<40 {
            let code = bench_page_out(
                guest.base + pages.lowerBound * pageSize, UInt64(pages.count * pageSize))
            precondition(code == 0, "MADV_PAGEOUT failed")
            let stayed = guest.mapping.residentBytes / pageSize - (guest.pageCount - pages.count)
            if stayed * 20 < pages.count { return true }
            Kernel.sleep(nanoseconds: 25_000_000)
        }
        return false
    }

    func runFile() throws -> [Result] {
        let guest = try Guest(pageCount: bench.pageCount)
        let floorGuest = try Guest(pageCount: bench.pageCount)
        let descriptor = bare_file_create(".build/bench/floor", guest.base, guest.length)
        guard descriptor >= 0 else {
            throw BenchmarkFailure("cannot create .build/bench/floor: \(Errno(-descriptor).text)")
        }
        defer { bare_close(descriptor) }
        let rig = try PagerRig(
            guest, store: .file(path: ".build/bench/store", size: 2 * guest.length))
        defer { rig.close() }
        rig.evict(0..<guest.pageCount)
        var ours: [Double] = []
        var bare: [Wait: [Double]] = [:]
        for part in 0..<bench.fileRounds {
            ours.append(guest.touch(part: part, threads: 1, cpus: 0))
            rig.evict(guest.pages(ofPart: part))
            for wait in [Wait.poll, .yield] {
                bare[wait, default: []].append(
                    try withBareServer(floorGuest, part: part, .file(descriptor), wait, cpu: -1) {
                        floorGuest.touch(part: part, threads: 1, cpus: 0)
                    })
            }
        }
        let best = bare.max { median($0.value) < median($1.value) }!
        return [
            Result(
                "faults-per-second/file/1-thread", median(ours), "/s", floor: median(best.value),
                "a bare loop (O_DIRECT pread of the page, one at a time, UFFDIO_COPY; "
                    + "\(best.key.text), the best there)")
        ]
    }
}

/// The rate that a tenth of the rounds reached.
func calm(_ rates: [Double]) -> Double {
    rates.sorted()[rates.count * 9 / 10]
}

/// Lowest, median, calm, highest.
private func spread(_ rates: [Double]) -> String {
    [rates.min()!, median(rates), calm(rates), rates.max()!].map { "\(Int($0))" }
        .joined(separator: " … ")
}
