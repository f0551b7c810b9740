import Engine
import Kernel
import SeededRandom
import Synchronization
import Testing

/// Real userfaultfd, real threads, no RWP: the guarantee that matters most, that no
/// write is ever lost, under eviction as hard as it can be forced.
@Suite("Pages under forced eviction", .serialized)
struct ForcedEvictionTests {
    @Test("keep every write of several writers: compressed store")
    func compressed() throws {
        try run(.compressed, evictions: evictionsWanted(1_000_000))
    }

    @Test(
        "keep every write of several writers: a pool that is being compacted all the time",
        arguments: [Compression.lz4, .zstd(level: 1)])
    func compacted(compression: Compression) throws {
        var options = CompressedStoreOptions(compression: compression, incompressible: .keepRaw)
        options.bytesMax = 64 << 20
        let moves = try run(
            .compressed, compressed: options, compaction: .always, evictions: evictionsWanted(200_000))
        #expect(moves > 0)
    }

    @Test("keep every write of several writers: file store")
    func file() throws {
        let path = temporaryPath("forced-eviction")
        try run(.file(path: path, size: 512 << 20), evictions: evictionsWanted(50_000))
    }

    @Test(
        "keep every write of several writers: file store in a file system of its own",
        .enabled(if: !FileSystem.usable.isEmpty, "no file system can be mounted here"),
        arguments: FileSystem.usable)
    func fileSystem(system: FileSystem) throws {
        let disk = try LoopDisk("forced-eviction-disk", size: system.diskSize(for: 320 << 20))
        defer { disk.end() }
        let path = try disk.mounted(system) + "/store"
        try run(.file(path: path, size: 256 << 20), evictions: evictionsWanted(50_000))
    }

    @Test(
        "keep every write of several writers: raw block device",
        .enabled(if: LoopDisk.obstacle == nil, "no loop device can be made here"))
    func blockDevice() throws {
        let disk = try LoopDisk("forced-eviction-device", size: 256 << 20)
        defer { disk.end() }
        try run(.file(path: disk.device, size: 256 << 20), evictions: evictionsWanted(50_000))
    }

    @Test("keep every write of several writers: shared memory, compressed store")
    func sharedCompressed() throws {
        try run(.compressed, memory: .shared, evictions: evictionsWanted(500_000))
    }

    @Test("keep every write of several writers: shared memory, file store")
    func sharedFile() throws {
        let path = temporaryPath("forced-eviction-shared")
        try run(.file(path: path, size: 512 << 20), memory: .shared, evictions: evictionsWanted(50_000))
    }

    @Test(
        "keep every write of several writers: shared memory that is tracked",
        arguments: [PagerOptions.TrackerChoice.writeProtection, .automatic])
    func sharedTracked(tracker: PagerOptions.TrackerChoice) throws {
        try run(.compressed, memory: .shared, tracker: tracker, evictions: evictionsWanted(100_000))
    }

    @Test("keep every write of several writers: guard write-protect, compressed store")
    func writeProtected() throws {
        try run(
            .compressed, tracker: .writeProtection, guard: .writeProtect,
            evictions: evictionsWanted(200_000))
    }

    @Test("keep every write of several writers: guard write-protect, file store")
    func writeProtectedFile() throws {
        let path = temporaryPath("forced-eviction-write-protect")
        try run(
            .file(path: path, size: 512 << 20), tracker: .automatic, guard: .writeProtect,
            evictions: evictionsWanted(50_000))
    }

    /// Only where the kernel has read-write protection: in the lab.
    @Test(
        "keep every write of several writers: read-write protection",
        .enabled(if: hasReadWriteProtection, "this kernel has no userfaultfd read-write protection"),
        arguments: [
            (MemoryKind.privateAnonymous, PagerOptions.GuardChoice.move), (.privateAnonymous, .freeze),
            (.shared, .minor), (.shared, .freeze),
        ])
    func readWriteProtected(memory: MemoryKind, guard: PagerOptions.GuardChoice) throws {
        try run(
            .compressed, memory: memory, tracker: .readWriteProtection, guard: `guard`,
            evictions: evictionsWanted(200_000))
    }

    /// In the lab, which has huge pages in hugetlbfs as well.
    @Test(
        "keep every write of several writers: huge pages of hugetlbfs",
        .enabled(if: hasReadWriteProtection && hasHugePages, "no read-write protection, or no huge pages"),
        arguments: [false, true])
    func hugePages(inFile: Bool) throws {
        let path = temporaryPath("forced-eviction-huge")
        try run(
            inFile ? .file(path: path, size: 256 << 20) : .compressed, memory: .sharedHuge,
            tracker: .automatic, guard: .automatic, evictions: evictionsWanted(800_000))
    }

    /// Returns how many objects were moved within the pool.
    @discardableResult
    private func run(
        _ store: PagerOptions.StoreChoice, memory kind: MemoryKind = .privateAnonymous,
        tracker: PagerOptions.TrackerChoice = .none, guard: PagerOptions.GuardChoice = .automatic,
        compressed: CompressedStoreOptions = CompressedStoreOptions(),
        compaction: CompactionLimits = CompactionLimits(), evictions: UInt64
    ) throws -> UInt64 {
        let seed = seedForThisRun()
        let log = HostLog()
        var options = PagerOptions(
            tracker: tracker, guard: `guard`, store: store, readErrorAction: .stop,
            limit: Settings.limitMin, idleAge: 0)
        options.compressed = compressed
        options.compaction = compaction
        let live = try LivePager(options, host: log.host)
        let memory = try VersionedMemory(pageCount: (96 << 20) / pageSize, kind)
        let region = try live.attach(
            name: "ram", start: memory.start, length: memory.length,
            pageBytes: kind == .sharedHuge ? hugePageSize : pageSize)
        #expect(region.guard == expectedGuard(`guard`, kind))
        let writers = Writers(memory, count: 3, seed: seed) { pages in
            live.pager.beginDiscard(region, pages: pages)
            memory.drop(pages)
            live.pager.endDiscard(region, pages: pages)
        }
        let deadline = monotonicNow() + 300_000_000_000
        let counters = live.pager.counters
        while counters.evictions.value < evictions || counters.discardedPages.value == 0,
            monotonicNow() < deadline
        {
            Kernel.sleep(nanoseconds: 50_000_000)
        }
        writers.stop()
        print(
            "forced eviction, guard \(live.guardNames): seed \(seed), \(counters.evictions.value) evictions, "
                + "\(counters.faults.value) faults, \(counters.rescues.value) rescues, "
                + "\(counters.remaps.value) remaps, \(counters.compactionMoves.value) moves, "
                + "\(writers.operations) page checks, \(writers.mismatches) mismatches")
        var mismatches = writers.mismatches
        for page in 0..<memory.pageCount where !memory.verify(page) { mismatches += 1 }
        #expect(mismatches == 0, "seed \(seed)")
        #expect(counters.evictions.value >= evictions, "seed \(seed)")
        #expect(log.errors == [], "seed \(seed)")
        #expect(counters.discardedPages.value > 0, "seed \(seed)")
        #expect((counters.heldUpAccesses.value > 0) == (counters.heldUpTime.value > 0), "seed \(seed)")
        live.pager.detach(region)
        #expect(counters.evictedPages == 0, "a detached block leaves nothing in the store")
        live.stop()
        return counters.compactionMoves.value
    }
}

extension CompactionLimits {
    /// For whatever there is to gain.
    fileprivate static var always: CompactionLimits {
        var limits = CompactionLimits()
        limits.gainMin = 1
        limits.gainShare = .max
        limits.pagesPerGain = .max
        return limits
    }
}

private func expectedGuard(_ choice: PagerOptions.GuardChoice, _ kind: MemoryKind) -> Guard {
    switch choice {
    case .automatic, .move, .minor: kind == .sharedHuge ? .minorHuge : kind == .shared ? .minor : .move
    case .freeze: kind == .shared ? .freezeShared : .freeze
    case .writeProtect: .writeProtect
    }
}

/// Threads that check, rewrite and now and then discard random pages, each its own
/// share of them.
final class Writers: Sendable {
    private let stopping = Atomic<Bool>(false)
    private let wrong = Atomic<Int>(0)
    private let done = Atomic<Int>(0)
    private let threads: Mutex<[Kernel.Thread]>

    init(
        _ memory: VersionedMemory, count: Int, seed: UInt64,
        discard: @escaping @Sendable (Range<Int>) -> Void
    ) {
        threads = Mutex([])
        let started = (0..<count).map { writer in
            try! Kernel.Thread(name: "writer-\(writer)") { [self] in
                work(memory, writer, count, seed, discard)
            }
        }
        threads.withLock { $0 = started }
    }

    private func work(
        _ memory: VersionedMemory, _ writer: Int, _ count: Int, _ seed: UInt64,
        _ discard: (Range<Int>) -> Void
    ) {
        var random = SplitMix(seed: seed &+ UInt64(writer))
        let unit = memory.unitPages
        let share = memory.pageCount / unit / count
        while !stopping.load(ordering: .relaxed) {
            let head = (random.below(share) * count + writer) * unit
            let page = head + (unit > 1 ? random.below(unit) : 0)
            // Untouched before, so that pages in the store are discarded too.
            if random.below(24) == 0 {
                discard(head..<head + unit)
                for page in head..<head + unit { memory.forget(page) }
            }
            if !memory.verify(page) { wrong.add(1, ordering: .relaxed) }
            if random.below(3) > 0 { memory.advance(page) }
            done.add(1, ordering: .relaxed)
        }
    }

    func stop() {
        stopping.store(true, ordering: .relaxed)
        threads.withLock { threads in
            for thread in threads { thread.join() }
            threads = []
        }
    }

    var mismatches: Int { wrong.load(ordering: .relaxed) }
    var operations: Int { done.load(ordering: .relaxed) }
}
