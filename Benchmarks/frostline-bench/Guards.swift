import CBareLoops
import Engine
import Kernel

/// One guard on its kind of memory, with the tracker that goes with it.
struct GuardCell {
    let choice: PagerOptions.GuardChoice
    let isShared: Bool
    let tracker: PagerOptions.TrackerChoice

    /// Where there is RWP, all cells are on it but `write-protect`, which excludes it.
    static func all(_ features: KernelFeatures) -> [GuardCell] {
        func cell(_ choice: PagerOptions.GuardChoice, _ isShared: Bool) -> GuardCell {
            let isTracked = features.readWriteProtection && choice != .writeProtect
            return GuardCell(
                choice: choice, isShared: isShared,
                tracker: isTracked ? .readWriteProtection : .writeProtection)
        }
        let frozen = features.readWriteProtection ? [cell(.freeze, false), cell(.freeze, true)] : []
        return [cell(.move, false), cell(.minor, true), cell(.writeProtect, false)] + frozen
    }

    var name: String {
        let guardName =
            switch choice {
            case .automatic: "auto"
            case .move: "move"
            case .minor: "minor"
            case .freeze: "freeze"
            case .writeProtect: "write-protect"
            }
        return "guard/\(guardName)/\(isShared ? "shared" : "anonymous")"
    }

    var trackerName: String { tracker == .readWriteProtection ? "rwp" : "wp" }
    /// What is protected against writes only, a read does not notice.
    var touchesByWriting: Bool { tracker != .readWriteProtection }

    func makeGuest(_ pageCount: Int) throws -> Guest {
        let guest = try Guest(pageCount: pageCount)
        guard isShared else { return guest }
        let answer = bench_make_shared(guest.base, guest.length)
        guard answer == 0 else {
            throw BenchmarkFailure("cannot map shared memory: \(Errno(-answer).text)")
        }
        return guest
    }
}

/// The guards beside each other: what taking a page away costs, the store included, and what
/// bringing it back costs the guest.
struct Guards {
    let bench: Bench

    func run() throws -> [Result] {
        let cells = GuardCell.all(try KernelFeatures.probe())
        let figures = try cells.map { try measure($0) }
        let floor = "guard move on private memory, in the same run"
        return zip(cells, figures).flatMap { cell, figure in
            let isFloor = cell.choice == .move
            return [
                Result(
                    cell.name + "/evict", figure.evicted, "pages/s",
                    floor: isFloor ? nil : figures[0].evicted,
                    isFloor ? "one worker, CPU time; tracker \(cell.trackerName)" : floor),
                Result(
                    cell.name + "/fault-p50", figure.fault, "us",
                    floor: isFloor ? nil : figures[0].fault, isFloor ? "unpinned" : floor),
            ]
        }
    }

    private func measure(_ cell: GuardCell) throws -> (evicted: Double, fault: Double) {
        let guest = try cell.makeGuest(bench.pageCount)
        let rig = try PagerRig(guest, cell)
        defer { rig.close() }
        var evicted: [Double] = []
        var faults: [Double] = []
        for part in 0..<bench.rounds {
            let pages = guest.pages(ofPart: part)
            rig.arm()
            evicted.append(Double(pages.count) * 1e9 / cpuTime { rig.evict(pages) })
            faults.append(percentile(guest.touch(part: part), 0.5) / 1e3)
        }
        return (median(evicted), median(faults))
    }
}
