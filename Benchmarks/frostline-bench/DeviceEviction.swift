import CBareLoops
import Engine
import Kernel

/// What a device takes when nothing but writes comes to it.
protocol FloorDevice {
    /// How it is written.
    var sentence: String { get }
    /// Writes as much as the guest has where something was written before.
    func overwrite() throws
    /// The same where nothing was; nil: not measured.
    func writeAnew() throws -> Void?
}

/// How fast all of a guest's pages leave for a device, beside the device alone, and beside codec and
/// cipher alone, of memory with the same contents that nobody pages.
struct DeviceEviction {
    let bench: Bench
    let name: String
    let guest: Guest
    let alike: Guest
    let store: PagerOptions.StoreChoice
    let device: any FloorDevice
    var isHurried = false

    /// GB/s, a round each.
    private struct Rates {
        var ours: [Double] = []
        var written: [Double] = []
        var device: [Double] = []
        /// Codec and cipher on as many threads as ours compress and seal with, by the clock.
        var codec: [Double] = []
        /// Of ours, by the CPU time of all threads, and of codec and cipher on one.
        var cpu: [Double] = []
        var codecCPU: [Double] = []
    }

    /// First into space that was never written, then into space that was.
    func run() throws -> [Result] {
        let rig = try PagerRig(guest, store: store)
        defer { rig.close() }
        guard case .log(let log) = rig.live.pager.store.tiers[0].backing else {
            preconditionFailure("a device's store is a log")
        }
        let anew = try runAnew(rig, log)
        try device.overwrite()
        let codec = try SealingThreads(of: alike, count: log.helpers + 1)
        var rates = Rates()
        for _ in 0..<rounds { try runRound(rig, log, codec, &rates) }
        return anew + results(rates, codec)
    }

    /// Each has every page come back, one fault at a time.
    private var rounds: Int { (bench.fileRounds + 1) / 2 }
    /// As many as the store has room for where nothing was written.
    private static let newRounds = 3

    private var pages: Range<Int> { 0..<guest.pageCount }
    private var bytes: Int { Int(guest.length) }

    private func bringBack(_ rig: PagerRig) {
        for part in 0..<guest.partCount { _ = guest.touch(part: part) }
        rig.waitUntilBack(pages)
    }

    private func evict(_ rig: PagerRig, _ log: LogStore<LinuxDevice>) -> Double {
        // The pager's own worker, which knows of no limit, takes it back each second.
        log.isHurried = isHurried
        return rate { rig.evict(pages) }
    }

    private func runAnew(_ rig: PagerRig, _ log: LogStore<LinuxDevice>) throws -> [Result] {
        var ours: [Double] = []
        var floor: [Double] = []
        for _ in 0..<Self.newRounds {
            for part in 0..<guest.partCount { guest.write(part: part) }
            ours.append(evict(rig, log))
            var isMeasured = false
            let anew = try rate { isMeasured = try device.writeAnew() != nil }
            if isMeasured { floor.append(anew) }
            bringBack(rig)
        }
        guard !floor.isEmpty else { return [] }
        return [
            Result(
                name + "/new", median(ours), "GB/s", floor: median(floor),
                "guest memory that leaves for space that was never written; \(device.sentence), to where "
                    + "nothing was")
        ]
    }

    private func runRound(
        _ rig: PagerRig, _ log: LogStore<LinuxDevice>, _ codec: SealingThreads, _ rates: inout Rates
    ) throws {
        for part in 0..<guest.partCount { guest.write(part: part) }
        let before = log.writtenBytes.value
        let cpuBefore = bench_process_cpu_time()
        let ours = evict(rig, log)
        rates.cpu.append(Double(bytes) / Double(bench_process_cpu_time() - cpuBefore))
        rates.ours.append(ours)
        rates.written.append(ours * Double(log.writtenBytes.value - before) / Double(bytes))
        rates.device.append(try rate { try device.overwrite() })
        // Each finds its memory as cold as ours did.
        bringBack(rig)
        rates.codec.append(Double(bytes) / codec.seal(alike.order))
        for part in 0..<guest.partCount { _ = guest.touch(part: part) }
        rates.codecCPU.append(Double(pageSize) / codec.first.sealBare(alike.order))
    }

    /// GB/s of a guest's memory.
    private func rate(_ body: () throws -> Void) rethrows -> Double {
        let start = monotonicNow()
        try body()
        return Double(bytes) / Double(monotonicNow() - start)
    }

    private func results(_ rates: Rates, _ codec: SealingThreads) -> [Result] {
        let alone = "LZ4 compression and \(codec.first.cipherName) alone of the same pages, into memory"
        let floor = "\(device.sentence), to where something was"
        let slower = min(median(rates.device), median(rates.codec))
        return [
            Result(
                name, median(rates.ours), "GB/s", floor: median(rates.device),
                "guest memory that leaves; \(floor)"),
            Result(
                name + "/written", median(rates.written), "GB/s", floor: median(rates.device),
                "bytes that are written; \(floor)"),
            Result(
                name + "/codec", median(rates.ours), "GB/s", floor: median(rates.codec),
                "guest memory that leaves; \(alone), on \(codec.count) threads at once"),
            Result(
                name + "/within-reach", median(rates.ours), "GB/s", floor: slower,
                "guest memory that leaves; the slower of the two: the device, and codec and cipher alone on as "
                    + "many threads"),
            Result(
                name + "/cpu", median(rates.cpu), "GB/s", floor: median(rates.codecCPU),
                "guest memory that leaves, by CPU time of all threads; \(alone)"),
        ]
    }
}

/// Codec and cipher on several threads.
final class SealingThreads {
    private let sealed: [SealedPages]
    var first: SealedPages { sealed[0] }
    var count: Int { sealed.count }

    init(of guest: Guest, count: Int) throws {
        sealed = try (0..<count).map { _ in try SealedPages(of: guest) }
    }

    /// Nanoseconds from when the first thread began to when the last ended; each has a share.
    func seal(_ order: ArraySlice<UInt32>) -> Double {
        let shares = Lock(Shares(left: Array(order)))
        let threads = sealed.dropFirst().map { pages in
            try! Thread(name: "bench-codec") { Self.work(pages, shares) }
        }
        Self.work(sealed[0], shares)
        for thread in threads { thread.join() }
        return shares.withLock { Double($0.ended - $0.began) }
    }

    private struct Shares {
        var left: [UInt32]
        var began = UInt64.max
        var ended: UInt64 = 0
    }

    /// Pages that a thread takes at a time.
    private static let groupSize = 8

    private static func work(_ pages: SealedPages, _ shares: borrowing Lock<Shares>) {
        let start = monotonicNow()
        shares.withLock { $0.began = min($0.began, start) }
        while true {
            let group = shares.withLock { shares in
                let group = Array(shares.left.suffix(groupSize))
                shares.left.removeLast(group.count)
                return group
            }
            if group.isEmpty { break }
            _ = pages.sealBare(group[...])
        }
        let end = monotonicNow()
        shares.withLock { $0.ended = max($0.ended, end) }
    }
}

/// A file on the same disk as the store.
final class FloorFile: FloorDevice {
    private let source: Guest
    private var descriptor: Int32?
    private static let path = ".build/bench/floor"

    let sentence = "writing as much memory to another file, 1 MiB at a time, O_DIRECT"

    init(_ source: Guest) { self.source = source }

    deinit {
        if let descriptor { bare_close(descriptor) }
    }

    func overwrite() throws {
        guard let descriptor else {
            descriptor = try create()
            return
        }
        let answer = bare_file_overwrite(descriptor, source.base, source.length)
        guard answer == 0 else {
            throw BenchmarkFailure("cannot write \(Self.path): \(Errno(-answer).text)")
        }
    }

    func writeAnew() throws -> Void? { bare_close(try create()) }

    private func create() throws -> Int32 {
        let descriptor = bare_file_create(Self.path, source.base, source.length)
        guard descriptor >= 0 else {
            throw BenchmarkFailure("cannot write \(Self.path): \(Errno(-descriptor).text)")
        }
        return descriptor
    }
}

/// An export of a server like the store's.
final class FloorExport: FloorDevice {
    private let source: Guest
    private let export: BareExport

    let sentence =
        "libnbd alone writing as much memory to another server, 1 MiB at a time, over one connection"

    init(_ uri: String, _ source: Guest) throws {
        self.source = source
        export = try BareExport(uri, source)
    }

    func overwrite() throws {
        guard bare_nbd_fill(export.handle, source.base, source.length) == 0 else {
            throw BenchmarkFailure("libnbd cannot write")
        }
    }

    func writeAnew() -> Void? { nil }
}
