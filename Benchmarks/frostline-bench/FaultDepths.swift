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
            "io_uring alone: random 4 KiB reads of another file, O_DIRECT", .fileReads(descriptor),
            rounds: bench.fileRounds * 4
        ) { order in
            var elapsed: UInt64 = 0
            let answer = bare_file_read_many(descriptor, order, Int32(order.count), Int32(depth), &elapsed)
            guard answer == 0 else {
                throw BenchmarkFailure("cannot read .build/bench/floor: \(Errno(-answer).text)")
            }
            return Double(order.count) * 1e9 / Double(elapsed)
        }
    }

    /// `delay`: what the servers' reads take besides, as nbdkit has it; then the rounds are fewer.
    func runNBD(_ tier: String = "nbd", depth: Int, delay: String? = nil) throws -> [Result] {
        guard let server = try RemoteServer(delay: delay) else { return [] }
        defer { server.stop() }
        guard let other = try RemoteServer(delay: delay) else { return [] }
        defer { other.stop() }
        let guest = try Guest(pageCount: bench.pageCount)
        let bare = try BareExport(other.uri, guest)
        return try run(
            tier, depth, guest, .tiers([TierOptions(.nbd(uri: server.uri))]),
            "libnbd alone: random 4 KiB reads over one connection", .nbdReads(bare.handle),
            rounds: delay == nil ? bench.fileRounds * 4 : max(3, bench.fileRounds * depth / 16)
        ) { try bare.rate($0, depth: depth) }
    }

    private func run(
        _ tier: String, _ depth: Int, _ guest: Guest, _ store: PagerOptions.StoreChoice, _ floor: String,
        _ contents: Contents, rounds: Int, _ reads: ([UInt32]) throws -> Double
    ) throws -> [Result] {
        let floorGuest = try Guest(pageCount: bench.pageCount)
        let rig = try PagerRig(guest, store: store)
        defer { rig.close() }
        rig.evict(0..<guest.pageCount)
        var ours: [Double] = []
        var device: [Double] = []
        var served: [Double] = []
        for part in 0..<rounds {
            ours.append(guest.touch(part: part, threads: depth, cpus: 0))
            rig.evict(guest.pages(ofPart: part))
            device.append(try reads(Array(guest.order(ofPart: part))))
            served.append(
                try withBareServer(floorGuest, part: part, contents, .yield, cpu: -1) {
                    floorGuest.touch(part: part, threads: depth, cpus: 0)
                })
        }
        let kinds: [(String, String, ([Double]) -> Double)] = [
            ("", "median round", median), ("/calm", "calm round", calm),
        ]
        return kinds.flatMap { suffix, kind, of in
            [
                Result(
                    "iops/\(tier)/\(depth)" + suffix, of(ours), "/s", floor: of(device),
                    "\(kind); \(floor), as many under way; ours are faults, served"),
                Result(
                    "iops/\(tier)/\(depth)/served" + suffix, of(ours), "/s", floor: of(served),
                    "\(kind); a bare loop that serves the faults of as many threads: the same reads, as many "
                        + "at once, UFFDIO_COPY, sched_yield when there is nothing to do, and nothing to open"
                ),
            ]
        }
    }
}
