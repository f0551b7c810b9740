import CBareLoops
import Engine
import Kernel

/// Faults per second with so many outstanding, each by a thread of its own, beside the device's
/// own random reads, as many under way.
struct FaultDepths {
    let bench: Bench

    static let depths = [1, 4, 16]

    func runFile(depth: Int) throws -> [Result] {
        let guest = try Guest(pageCount: bench.pageCount)
        let descriptor = bare_file_create(".build/bench/floor", guest.base, guest.length)
        guard descriptor >= 0 else {
            throw BenchmarkFailure("cannot create .build/bench/floor: \(Errno(-descriptor).text)")
        }
        defer { bare_close(descriptor) }
        return try run(
            "file", depth, guest, .file(path: ".build/bench/store", size: 2 * guest.length),
            "io_uring alone: random 4 KiB reads of another file, O_DIRECT"
        ) { order in
            var elapsed: UInt64 = 0
            let answer = bare_file_read_many(descriptor, order, Int32(order.count), Int32(depth), &elapsed)
            guard answer == 0 else {
                throw BenchmarkFailure("cannot read .build/bench/floor: \(Errno(-answer).text)")
            }
            return Double(order.count) * 1e9 / Double(elapsed)
        }
    }

    func runNBD(depth: Int) throws -> [Result] {
        guard let server = try RemoteServer() else { return [] }
        defer { server.stop() }
        guard let other = try RemoteServer() else { return [] }
        defer { other.stop() }
        let guest = try Guest(pageCount: bench.pageCount)
        let bare = try BareExport(other.uri, guest)
        return try run(
            "nbd", depth, guest, .tiers([TierOptions(.nbd(uri: server.uri))]),
            "libnbd alone: random 4 KiB reads over one connection"
        ) { try bare.rate($0, depth: depth) }
    }

    private func run(
        _ tier: String, _ depth: Int, _ guest: Guest, _ store: PagerOptions.StoreChoice, _ floor: String,
        _ reads: ([UInt32]) throws -> Double
    ) throws -> [Result] {
        let rig = try PagerRig(guest, store: store)
        defer { rig.close() }
        rig.evict(0..<guest.pageCount)
        var ours: [Double] = []
        var bare: [Double] = []
        for part in 0..<bench.fileRounds * 4 {
            ours.append(guest.touch(part: part, threads: depth, cpus: 0))
            rig.evict(guest.pages(ofPart: part))
            bare.append(try reads(Array(guest.order(ofPart: part))))
        }
        return [
            Result(
                "iops/\(tier)/\(depth)", median(ours), "/s", floor: median(bare),
                "\(floor), as many under way; ours are faults, served")
        ]
    }
}
