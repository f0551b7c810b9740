import CBareLoops
import Engine
import Foundation
import Kernel

/// What looking at memory costs: the worker's CPU time for a pass, and the guest's for
/// the first touch of a page that is watched.
struct Tracking {
    let bench: Bench
    let cell: Cell

    /// A tracker, and the memory it is on.
    struct Cell {
        let kind: TrackerKind
        let memory: TrackedMemory
        var name: String { "tracking/\(kind.rawValue)/\(memory.rawValue)" }

        static func all(_ features: KernelFeatures) -> [Cell] {
            var cells: [Cell] = []
            if features.readWriteProtection {
                cells += [.small, .huge, .shared].map { Cell(kind: .rwp, memory: $0) }
                if Hugetlb.isReserved(features) { cells.append(Cell(kind: .rwp, memory: .hugetlb)) }
            }
            if features.writeProtection {
                cells += [.small, .huge].map { Cell(kind: .wp, memory: $0) }
                if features.minorShared { cells.append(Cell(kind: .zap, memory: .shared)) }
            }
            return cells
        }
    }

    /// Bytes of the memory that passes are measured on, and of the large one against size: as
    /// much as the machine, which may be emulated, has plenty of.
    static let (size, sizeLarge) =
        ProcessInfo.processInfo.physicalMemory > 12 << 30 ? (1 << 30, 4 << 30) : (256 << 20, 512 << 20)
    /// Bytes of the working set against size.
    static let workingSet = 10 << 20

    private static let gibibyte = 1 << 30
    /// Every place is due again after 127 quiet passes at most.
    private static let restMax = 128

    func run() throws -> [Result] {
        let rig = try TrackedRig(cell.kind, cell.memory, bytes: Self.size)
        let perGiB = Double(Self.gibibyte) / Double(Self.size)
        // One hot place, and writes all over: 1 % of the pages.
        let count = UInt32(rig.pageCount / 100)
        let dense = (0..<count).map { UInt32(rig.pageCount) / 7 + $0 }
        let spread = (0..<count).map { $0 * 101 % UInt32(rig.pageCount) }
        let times = bench.isQuick ? Self.restMax : 2 * Self.restMax
        let scan = bareScan(rig) * perGiB
        var results = [("idle", []), ("1-percent-dense", dense), ("1-percent-spread", spread)].map {
            Result(
                "\(cell.name)/pass-ms-per-gib/\($0)", rig.pass(writing: $1, times: times) * perGiB, "ms",
                floor: scan,
                "one bare PAGEMAP_SCAN of \(Self.size >> 20) MiB, all of it present; CPU time, both per GiB")
        }
        results.append(firstTouch(rig))
        results.append(try againstSize(times: times))
        return results
    }

    /// A small working set in a sixteenth of the memory, and in all of it.
    private func againstSize(times: Int) throws -> Result {
        func cost(_ bytes: Int) throws -> Double {
            let rig = try TrackedRig(cell.kind, cell.memory, bytes: bytes)
            // Not while all is as new as the rest: it takes a while until that is left out.
            _ = rig.pass(writing: Self.hotPages, times: 2 * Self.restMax)
            return rig.pass(writing: Self.hotPages, times: times)
        }
        let small = try cost(Self.sizeLarge / 16)
        let large = try cost(Self.sizeLarge)
        return Result(
            "\(cell.name)/pass-ms/\(Self.workingSetOfLarge)", large, "ms", floor: small,
            "the same working set in \(Self.text(Self.sizeLarge / 16)): flat is the aim")
    }

    static let hotPages = (0..<UInt32(workingSet / pageSize)).map { 5000 + $0 }
    static let workingSetOfLarge = "\(text(workingSet))-of-\(text(sizeLarge))"

    static func text(_ bytes: Int) -> String {
        bytes >= gibibyte ? "\(bytes / gibibyte)-gib" : "\(bytes >> 20)-mib"
    }

    private func firstTouch(_ rig: TrackedRig) -> Result {
        let pages = (0..<UInt32(20_000)).map { $0 * 7 % UInt32(rig.pageCount) }
        func writeAll() -> Double { cpuTime { rig.write(pages) } / Double(pages.count) }
        for _ in 0..<Self.restMax + 5 { _ = rig.pass() }
        let armed = writeAll()
        return Result(
            "\(cell.name)/first-write", armed / 1e3, "us", floor: writeAll() / 1e3,
            "the same writes once more, to pages that are not armed")
    }

    private func bareScan(_ rig: TrackedRig) -> Double {
        let answers = (0..<9).map { _ in
            cpuTime { precondition(bench_scan(rig.memory.base, UInt64(rig.memory.length)) >= 0) } / 1e6
        }
        return median(answers)
    }
}
