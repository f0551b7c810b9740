import CBareLoops
import Kernel

/// Where the server runs, seen from the faulting thread, which is on CPU 0.
enum Placement: String, CaseIterable {
    case sameCPU = "same-cpu"
    case otherCPU = "other-cpu"
    case free

    var faultingCPU: Int32 { self == .free ? -1 : 0 }
    var servingCPU: Int32 {
        switch self {
        case .sameCPU: 0
        case .otherCPU: 1
        case .free: -1
        }
    }

    /// The bare loops worth trying there. Spinning on the faulting CPU starves the
    /// faulting thread.
    var waits: [Wait] {
        switch self {
        case .sameCPU: [.poll, .block, .yield]
        case .otherCPU: [.spin, .yield]
        case .free: Wait.allCases
        }
    }

    var sentence: String {
        switch self {
        case .sameCPU: "on the faulting CPU"
        case .otherCPU: "on the other CPU"
        case .free: "unpinned"
        }
    }
}

/// p50 and p99 of single faults, in µs, beside the best bare loop.
struct FaultTimes {
    let bench: Bench

    func run(_ placement: Placement) throws -> [Result] {
        let guest = try Guest(pageCount: bench.pageCount)
        let floorGuest = try Guest(pageCount: bench.pageCount)
        let compressed = CompressedPages(of: guest)
        let rig = try PagerRig(guest)
        defer { rig.close() }
        rig.pinServer(toCPU: placement.servingCPU)
        bench_pin(placement.faultingCPU)
        defer { bench_pin(-1) }
        rig.evict(0..<guest.pageCount)
        var ours: [[UInt32]] = []
        var copies: [Wait: [[UInt32]]] = [:]
        var copiesWithLZ4: [Wait: [[UInt32]]] = [:]
        var decompress: [Double] = []
        for part in 0..<bench.rounds {
            ours.append(guest.touch(part: part))
            rig.evict(guest.pages(ofPart: part))
            for wait in placement.waits {
                copies[wait, default: []].append(
                    try withBareServer(
                        floorGuest, part: part, .readyPage, wait, cpu: placement.servingCPU
                    ) { floorGuest.touch(part: part, check: false) })
                guard bench.isVerbose else { continue }
                copiesWithLZ4[wait, default: []].append(
                    try withBareServer(
                        floorGuest, part: part, .lz4(compressed), wait, cpu: placement.servingCPU
                    ) { floorGuest.touch(part: part) })
            }
            let order = guest.order(ofPart: part)
            decompress.append(cpuTime { compressed.decompress(order) } / Double(order.count))
        }
        if bench.isVerbose { explain(placement, ours, copies, copiesWithLZ4, decompress) }
        return [("p50", 0.5), ("p99", 0.99)].map { name, share in
            func of(_ rounds: [[UInt32]]) -> Double { median(rounds.map { percentile($0, share) }) / 1e3 }
            let best = placement.waits.min { of(copies[$0]!) < of(copies[$1]!) }!
            let floor = of(copies[best]!) + median(decompress) / 1e3
            return Result(
                "fault/compressed-ram/\(placement.rawValue)/\(name)", of(ours), "us", floor: floor,
                "a bare loop \(placement.sentence) that serves a ready page by UFFDIO_COPY "
                    + "(\(best.text), the best there), plus LZ4 decompression of one page")
        }
    }

    private func explain(
        _ placement: Placement, _ ours: [[UInt32]], _ copies: [Wait: [[UInt32]]],
        _ copiesWithLZ4: [Wait: [[UInt32]]], _ decompress: [Double]
    ) {
        func line(_ name: String, _ rounds: [[UInt32]]) {
            let values = [0.5, 0.9, 0.99].map { share in
                Int(median(rounds.map { percentile($0, share) }))
            }
            print(
                "    \(placement.rawValue) \(name): p50 \(values[0]) p90 \(values[1]) p99 \(values[2]) ns")
        }
        line("ours", ours)
        for wait in placement.waits {
            line("copy, \(wait.text)", copies[wait]!)
            line("lz4+copy, \(wait.text)", copiesWithLZ4[wait]!)
        }
        print("    lz4 alone \(Int(median(decompress))) ns")
    }
}
