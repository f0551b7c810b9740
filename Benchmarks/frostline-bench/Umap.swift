import CBareLoops
import Engine
import Kernel

/// Faults of pages that lie in a file, beside those that LLNL's umap serves: of the same contents in
/// another file, which either reads page by page, O_DIRECT.
struct Umap {
    let bench: Bench
    /// Where its library is.
    let library: String

    private static let sentence =
        "umap, its own defaults (4 KiB pages, as many filling threads as CPUs): the same pages, as they are, "
        + "in another file, O_DIRECT"

    func run() throws -> [Result] {
        let guest = try Guest(pageCount: bench.pageCount)
        let descriptor = bare_file_create(".build/bench/floor", guest.base, guest.length)
        guard descriptor >= 0 else {
            throw BenchmarkFailure("cannot create .build/bench/floor: \(Errno(-descriptor).text)")
        }
        defer { bare_close(descriptor) }
        let rig = try PagerRig(guest, store: .file(path: ".build/bench/store", size: 2 * guest.length))
        defer { rig.close() }
        rig.evict(0..<guest.pageCount)
        return try times(guest, rig, descriptor)
            + FaultDepths.depths.map { try rate($0, guest, rig, descriptor) }
    }

    private func times(_ guest: Guest, _ rig: PagerRig, _ descriptor: Int32) throws -> [Result] {
        var ours: [[UInt32]] = []
        var theirs: [[UInt32]] = []
        for part in 0..<bench.fileRounds {
            ours.append(guest.touch(part: part))
            rig.evict(guest.pages(ofPart: part))
            theirs.append(try withMapping(of: guest, descriptor) { guest.touch(part: part, at: $0) })
        }
        return [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)].map { name, share in
            func of(_ rounds: [[UInt32]]) -> Double { median(rounds.map { percentile($0, share) }) / 1e3 }
            return Result("fault/file/umap/\(name)", of(ours), "us", floor: of(theirs), Self.sentence)
        }
    }

    private func rate(_ depth: Int, _ guest: Guest, _ rig: PagerRig, _ descriptor: Int32) throws -> Result {
        var ours: [Double] = []
        var theirs: [Double] = []
        for part in 0..<bench.fileRounds * 4 {
            ours.append(guest.touch(part: part, threads: depth, cpus: 0))
            rig.evict(guest.pages(ofPart: part))
            theirs.append(
                try withMapping(of: guest, descriptor) {
                    guest.touch(part: part, threads: depth, cpus: 0, at: $0)
                })
        }
        return Result(
            "iops/file/\(depth)/umap", median(ours), "/s", floor: median(theirs),
            "faults of as many threads; " + Self.sentence)
    }

    /// Of the whole file, nothing of which is there.
    private func withMapping<Answer>(
        of guest: Guest, _ descriptor: Int32, _ body: (UnsafeMutableRawPointer) -> Answer
    ) throws -> Answer {
        var base: UnsafeMutableRawPointer?
        let answer = bare_umap_open(library, descriptor, guest.length, &base)
        guard answer == 0, let base else {
            throw BenchmarkFailure("cannot use \(library): \(Errno(-answer).text)")
        }
        defer { bare_umap_close(library, base, guest.length) }
        return body(base)
    }
}
