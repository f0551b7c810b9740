import CBareLoops
import Engine
import Kernel

struct BenchmarkFailure: Error {
    let message: String
    init(_ message: String) { self.message = message }
}

/// A whole pager with its own two threads, limit and idle age off, so that its worker
/// only looks once a second. This thread evicts what it likes, with an evictor of its own.
final class PagerRig {
    let live: LivePager
    let region: Region
    private let evictor: (Region, ArraySlice<Int>) -> Int
    private let tracker: Tracker<LinuxKernel>

    convenience init(_ guest: Guest, store: PagerOptions.StoreChoice = .compressed) throws {
        try self.init(
            guest,
            PagerOptions(tracker: .none, store: store, readErrorAction: .stop, limit: 0, idleAge: 0))
    }

    /// `compaction`: of the pager's own worker.
    convenience init(_ guest: Guest, compaction: CompactionLimits) throws {
        var options = PagerOptions(
            tracker: .none, store: .compressed, readErrorAction: .stop, limit: 0, idleAge: 0)
        options.compaction = compaction
        try self.init(guest, options)
    }

    /// With an idle age the pager's own worker evicts; without, it does nothing at all.
    convenience init(_ guest: Guest, _ cell: GuardCell, idleAge: UInt64 = 0) throws {
        var options = PagerOptions(
            tracker: cell.tracker, guard: cell.choice, store: .compressed, readErrorAction: .stop,
            limit: 0, idleAge: idleAge)
        if idleAge == 0 { options.mode = .off }
        try self.init(guest, options, pageBytes: cell.pageBytes)
    }

    private init(_ guest: Guest, _ options: PagerOptions, pageBytes: Int = pageSize) throws {
        do throws(SetupFailure) {
            live = try LivePager(
                options,
                host: Host(report: { _ in }, log: { _, message in print(message) }))
            region = try live.attach(
                name: "bench", start: guest.start, length: guest.length, pageBytes: pageBytes)
        } catch {
            throw BenchmarkFailure(error.message)
        }
        evictor = live.makeEvictor(overlapping: true)
        tracker = Tracker(pager: live.pager)
    }

    /// Arms what is present.
    func arm() { tracker.pass(.never) }

    /// Evicts the pages, all of them back in the guest: whole huge pages at a time.
    func evict(_ pages: Range<Int>) {
        waitUntilBack(pages)
        let evicted = tryToEvict(pages)
        precondition(evicted == pages.count, "only \(evicted) of \(pages.count) pages were evicted")
    }

    /// A touch may end before the server has noted that its page is back.
    func waitUntilBack(_ pages: Range<Int>) {
        for page in pages {
            while region.table[page].state != .resident { yieldThread() }
        }
    }

    /// Evicts those pages that can be.
    func tryToEvict(_ pages: Range<Int>) -> Int {
        var evicted = 0
        for first in stride(from: pages.lowerBound, to: pages.upperBound, by: Self.pagesPerBatch) {
            let batch = first..<min(first + Self.pagesPerBatch, pages.upperBound)
            evicted += evictor(region, Array(batch)[...])
        }
        return evicted + evictor(region, [])
    }

    private static let pagesPerBatch = hugePageSize / pageSize

    func pinServer(toCPU cpu: Int32) {
        precondition(bench_pin_named("frostline-fault", cpu) == 0, "the fault thread has another name")
    }

    func close() {
        live.pager.detach(region)
        live.stop()
    }
}

/// How a bare server waits.
enum Wait: Int, CaseIterable {
    case poll, block, spin, yield

    var text: String {
        switch self {
        case .poll: "poll+read"
        case .block: "a blocking read"
        case .spin: "spinning reads"
        case .yield: "reads with sched_yield between"
        }
    }
}

/// What a bare server places.
enum Contents {
    case readyPage
    case lz4(CompressedPages)
    case file(Int32)
    case nbd(OpaquePointer)
    /// Reads of as many as there are faults.
    case fileReads(Int32)
    case nbdReads(OpaquePointer)
}

/// Runs `body` while a bare server serves a part of the guest, whose pages are gone.
func withBareServer<Answer>(
    _ guest: Guest, part: Int, _ contents: Contents, _ wait: Wait, cpu: Int32, _ body: () -> Answer
) throws -> Answer {
    guest.drop(part: part)
    var raw = bare_contents()
    var pages: CompressedPages?
    switch contents {
    case .readyPage: raw.kind = Int32(BARE_READY.rawValue)
    case .lz4(let compressed):
        raw.kind = Int32(BARE_LZ4.rawValue)
        pages = compressed
    case .file(let descriptor):
        raw.kind = Int32(BARE_FILE.rawValue)
        raw.file = descriptor
    case .nbd(let connection):
        raw.kind = Int32(BARE_NBD.rawValue)
        raw.nbd = connection
    case .fileReads(let descriptor):
        raw.kind = Int32(BARE_FILE.rawValue)
        raw.file = descriptor
        raw.reads = 64
    case .nbdReads(let connection):
        raw.kind = Int32(BARE_NBD.rawValue)
        raw.nbd = connection
        raw.reads = 64
    }
    return try (pages?.data ?? []).withUnsafeBufferPointer { data in
        try (pages?.offsets ?? []).withUnsafeBufferPointer { offsets in
            raw.data = data.baseAddress
            raw.offsets = offsets.baseAddress
            var server: OpaquePointer?
            let answer = bare_server_start(
                guest.base, guest.length, &raw, Int32(wait.rawValue), cpu, &server)
            guard answer == 0 else {
                throw BenchmarkFailure("cannot start a bare server: \(Errno(-answer).text)")
            }
            defer { bare_server_stop(server) }
            return body()
        }
    }
}
