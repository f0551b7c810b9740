import CBareLoops
import Engine
import Kernel

/// One guard on its kind of memory, with the tracker that goes with it.
struct GuardCell {
    let choice: PagerOptions.GuardChoice
    let memory: Memory
    let tracker: PagerOptions.TrackerChoice

    enum Memory: String {
        case anonymous, shared, hugetlb
    }

    /// Where there is RWP, all cells are on it but `write-protect`, which excludes it, and the one in
    /// which looking unmaps pages.
    static func all(_ features: KernelFeatures) -> [GuardCell] {
        func cell(_ choice: PagerOptions.GuardChoice, _ memory: Memory) -> GuardCell {
            let isTracked = features.readWriteProtection && choice != .writeProtect
            return GuardCell(
                choice: choice, memory: memory,
                tracker: isTracked ? .readWriteProtection : .writeProtection)
        }
        let frozen = features.readWriteProtection ? [cell(.freeze, .anonymous), cell(.freeze, .shared)] : []
        let huge = Hugetlb.isReserved(features) ? [cell(.minor, .hugetlb)] : []
        let canZap = features.minorShared && features.writeProtection
        let zapped = canZap ? [GuardCell(choice: .minor, memory: .shared, tracker: .zapping)] : []
        return [cell(.move, .anonymous), cell(.minor, .shared), cell(.writeProtect, .anonymous)] + zapped
            + frozen + huge
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
        return "guard/\(guardName)/\(memory.rawValue)" + (tracker == .zapping ? "-zap" : "")
    }

    /// Bytes of a page.
    var pageBytes: Int { memory == .hugetlb ? hugePageSize : pageSize }
    var trackerName: String {
        switch tracker {
        case .readWriteProtection: "rwp"
        case .zapping: "zap"
        case .writeProtection, .automatic, .none: "wp"
        }
    }
    /// What is protected against writes only, a read does not notice.
    var touchesByWriting: Bool { trackerName == "wp" }

    func makeGuest(_ pageCount: Int) throws -> Guest {
        let guest = try Guest(pageCount: pageCount)
        let answer =
            switch memory {
            case .anonymous: Int32(0)
            case .shared: bench_make_shared(guest.base, guest.length)
            case .hugetlb: bench_make_hugetlb(guest.base, guest.length)
            }
        guard answer >= 0 else {
            throw BenchmarkFailure("cannot map shared memory: \(Errno(-answer).text)")
        }
        if memory == .hugetlb {
            guest.descriptor = answer
            // What is not mapped does not leave.
            guest.bringBack(0..<pageCount)
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
                    floor: isFloor ? nil : figures[0].fault,
                    isFloor
                        ? "unpinned"
                        : cell.memory == .hugetlb ? floor + "; of 2 MiB instead of 4 KiB" : floor),
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
            // One touch of a page is a fault; the others in a huge page find it there.
            let times = guest.touch(part: part).sorted()
            faults.append(percentile(Array(times.suffix(times.count * pageSize / cell.pageBytes)), 0.5) / 1e3)
        }
        return (median(evicted), median(faults))
    }
}
