import CBareLoops
import Engine
import Kernel

/// A kind of memory that trackers look at.
enum TrackedMemory: String {
    case small = "anonymous-4k"
    case huge = "anonymous-thp"
    case shared, hugetlb

    var `guard`: Guard {
        switch self {
        case .small, .huge: .move
        case .shared: .minor
        case .hugetlb: .minorHuge
        }
    }

    /// Memory of that kind, all of it present.
    func map(bytes: Int) throws -> WatchedMemory {
        let memory = try WatchedMemory(bytes: bytes)
        let advise = self == .huge ? bench_want_huge : bench_forbid_huge
        precondition(advise(memory.base, UInt64(bytes)) == 0)
        switch self {
        case .small, .huge: break
        case .shared: precondition(bench_map_shared(memory.base, UInt64(bytes)) == 0)
        case .hugetlb:
            memory.descriptor = bench_map_hugetlb(memory.base, UInt64(bytes))
            precondition(memory.descriptor >= 0, "there were enough huge pages a moment ago")
        }
        for page in 0..<bytes / pageSize { bench_write(memory.base, UInt32(page)) }
        return memory
    }
}

/// There for as long as a thread may touch it.
final class WatchedMemory {
    private let mapping: Mapping
    /// Of its file, where that must stay open.
    fileprivate var descriptor: Int32 = -1

    init(bytes: Int) throws { mapping = try Mapping(length: bytes, alignment: hugePageSize) }

    deinit {
        if descriptor >= 0 { bare_close(descriptor) }
    }

    var base: UnsafeMutableRawPointer { mapping.base }
    /// Bytes.
    var length: Int { mapping.length }
}

/// How touches are found, in the benchmark's words.
enum TrackerKind: String {
    case rwp, zap, wp

    /// `zap` stands on write protection: see `Setup.chooseTracking`.
    var tracking: PageTracking { self == .rwp ? .readWriteProtection : .writeProtection }
}

/// Memory under a pager whose passes are made by hand.
final class TrackedRig {
    let memory: WatchedMemory
    let tracker: Tracker<LinuxKernel>
    private let pager: Pager<LinuxKernel>
    private let region: Region

    init(_ kind: TrackerKind, _ memoryKind: TrackedMemory, bytes: Int) throws {
        memory = try memoryKind.map(bytes: bytes)
        let port = try LinuxKernel(tracking: kind.tracking)
        let store = try Store<LinuxKernel>(
            tiers: [.compressed(try CompressedStore())], pagesMax: bytes / pageSize)
        pager = try Pager(
            port: port, store: store, settings: try Settings(limit: 0, idleAge: 0),
            host: Host(report: { _ in }, log: { _, message in print(message) }), tracking: true,
            zapsShared: kind == .zap, readErrorAction: .stop, wakeWorker: {})
        region = try Region(
            name: "bench", start: UInt64(UInt(bitPattern: memory.base)), length: UInt64(bytes),
            guard: memoryKind.guard)
        try pager.attach(region)
        tracker = Tracker(pager: pager)
        tracker.pass(.never)
    }

    var pageCount: Int { memory.length / pageSize }

    func write(_ pages: [UInt32]) {
        for page in pages { bench_write(memory.base, page) }
    }

    /// Milliseconds of this thread's CPU that a pass takes.
    func pass() -> Double { cpuTime { tracker.pass(.never) } / 1e6 }

    /// The same on average, `pages` written before each. Many passes: quiet memory is not
    /// looked at in each.
    func pass(writing pages: [UInt32], times: Int) -> Double {
        var sum = 0.0
        for _ in 0..<times {
            write(pages)
            sum += pass()
        }
        return sum / Double(times)
    }

    deinit { pager.detach(region) }
}
