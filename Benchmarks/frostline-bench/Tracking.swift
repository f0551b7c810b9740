import CBareLoops
import Engine
import Kernel

/// What looking at memory costs: the worker's CPU time for a pass, and the guest's for
/// the first touch of a page that is watched.
struct Tracking {
    let bench: Bench
    let cell: Cell

    /// A tracker, and the memory it is on.
    struct Cell {
        let name: String
        let tracking: PageTracking
        let isShared: Bool
        let isHuge: Bool
        /// Of the memory that passes are measured on, and the large one against size. Bytes.
        let size: Int
        let sizeLarge: Int

        private static let mebibyte = 1 << 20

        /// Where there is RWP, that, on memory that an emulated machine has; otherwise WP.
        static func all(_ features: KernelFeatures) -> [Cell] {
            guard features.readWriteProtection else {
                return [
                    Cell(
                        name: "tracking/wp/anonymous", tracking: .writeProtection, isShared: false,
                        isHuge: false, size: 1024 * mebibyte, sizeLarge: 4096 * mebibyte)
                ]
            }
            return [
                ("anonymous-4k", false, false), ("anonymous-thp", false, true), ("shared", true, false),
            ]
            .map { memory, isShared, isHuge in
                Cell(
                    name: "tracking/rwp/\(memory)", tracking: .readWriteProtection,
                    isShared: isShared, isHuge: isHuge, size: 256 * mebibyte,
                    sizeLarge: 512 * mebibyte)
            }
        }
    }

    /// Memory under a pager whose passes are made here.
    private final class Rig {
        let memory: Mapping
        let pager: Pager<LinuxKernel>
        let region: Region
        let tracker: Tracker<LinuxKernel>
        let pageCount: Int

        init(_ cell: Cell, bytes: Int) throws {
            memory = try Mapping(length: bytes, alignment: hugePageSize)
            let advised = cell.isHuge ? bench_want_huge : bench_forbid_huge
            precondition(advised(memory.base, UInt64(bytes)) == 0)
            if cell.isShared { precondition(bench_map_shared(memory.base, UInt64(bytes)) == 0) }
            pageCount = bytes / pageSize
            for page in 0..<pageCount { bench_write(memory.base, UInt32(page)) }
            let port = try LinuxKernel(tracking: cell.tracking)
            let store = try Store<LinuxKernel>(
                tiers: [.compressed(try CompressedStore())], pagesMax: pageCount)
            pager = try Pager(
                port: port, store: store, settings: try Settings(limit: 0, idleAge: 0),
                host: Host(report: { _ in }, log: { _, message in print(message) }), tracking: true,
                readErrorAction: .stop, wakeWorker: {})
            region = try Region(
                name: "bench", start: UInt64(UInt(bitPattern: memory.base)), length: UInt64(bytes),
                guard: cell.isShared ? .minor : .move)
            try pager.attach(region)
            tracker = Tracker(pager: pager)
            tracker.pass(lookAge: nil)
        }

        /// Milliseconds of this thread's CPU that passes take on average, `pages` of them
        /// written before each. Many passes: quiet memory is not looked at in each.
        func pass(writing pages: [UInt32], times: Int) -> Double {
            var sum = 0.0
            for _ in 0..<times {
                for page in pages { bench_write(memory.base, page) }
                sum += cpuTime { tracker.pass(lookAge: nil) }
            }
            return sum / Double(times) / 1e6
        }

        deinit { pager.detach(region) }
    }

    private static let gibibyte = 1 << 30

    func run() throws -> [Result] {
        let rig = try Rig(cell, bytes: cell.size)
        let perGiB = Double(Self.gibibyte) / Double(cell.size)
        // One hot place, and writes all over: 1 % of the pages.
        let count = UInt32(rig.pageCount / 100)
        let dense = (0..<count).map { UInt32(rig.pageCount) / 7 + $0 }
        let spread = (0..<count).map { $0 * 101 % UInt32(rig.pageCount) }
        let times = bench.isQuick ? 65 : 260
        let scan = bareScan(rig) * perGiB
        var results = [("idle", []), ("1-percent-dense", dense), ("1-percent-spread", spread)].map {
            Result(
                "\(cell.name)/pass-ms-per-gib/\($0)", rig.pass(writing: $1, times: times) * perGiB, "ms",
                floor: scan,
                "one bare PAGEMAP_SCAN of \(cell.size >> 20) MiB, all of it present; CPU time, both per GiB"
            )
        }
        results.append(firstTouch(rig))
        results.append(try againstSize(times: times))
        return results
    }

    /// A working set of 10 MiB in a sixteenth of the memory, and in all of it.
    private func againstSize(times: Int) throws -> Result {
        let hot = (0..<UInt32(2560)).map { 5000 + $0 }
        let small = try Rig(cell, bytes: cell.sizeLarge / 16).pass(writing: hot, times: times)
        let large = try Rig(cell, bytes: cell.sizeLarge).pass(writing: hot, times: times)
        return Result(
            "\(cell.name)/pass-ms/10-mib-of-\(Self.text(cell.sizeLarge))", large, "ms", floor: small,
            "the same working set in \(Self.text(cell.sizeLarge / 16)): flat is the aim")
    }

    private static func text(_ bytes: Int) -> String {
        bytes >= gibibyte ? "\(bytes / gibibyte)-gib" : "\(bytes >> 20)-mib"
    }

    private func firstTouch(_ rig: Rig) -> Result {
        let pages = (0..<UInt32(20_000)).map { $0 * 7 % UInt32(rig.pageCount) }
        func writeAll() -> Double {
            cpuTime { for page in pages { bench_write(rig.memory.base, page) } } / Double(pages.count)
        }
        // Every place is due again after 64 quiet passes at most.
        for _ in 0..<70 { rig.tracker.pass(lookAge: nil) }
        let armed = writeAll()
        return Result(
            "\(cell.name)/first-write", armed / 1e3, "us", floor: writeAll() / 1e3,
            "the same writes once more, to pages that are not armed")
    }

    private func bareScan(_ rig: Rig) -> Double {
        let answers = (0..<9).map { _ in
            cpuTime { precondition(bench_scan(rig.memory.base, UInt64(rig.memory.length)) >= 0) } / 1e6
        }
        return median(answers)
    }
}
