import Engine
import Kernel
import SeededRandom
import Testing

/// Memory that leaves and comes back when a test says so, under a pager that poisons what it
/// cannot read: so an access never waits for a mended store, and thousands of faults take
/// seconds. A page that is lost is dropped, as a guest's kernel drops it, and written anew.
final class FaultRig: @unchecked Sendable {
    static let pages = (16 << 20) / pageSize
    private static let readers = 8

    let live: LivePager
    let memory: VersionedMemory
    let region: Region
    let log = HostLog()
    private let evictor: Evictor<LinuxKernel>

    init(_ tier: TierOptions) throws {
        live = try LivePager(
            PagerOptions(
                tracker: .none, store: .tiers([tier]), readErrorAction: .machineCheck, limit: 0,
                idleAge: 0),
            host: log.host)
        memory = try VersionedMemory(pageCount: Self.pages)
        region = try live.attach(name: "ram", start: memory.start, length: memory.length)
        evictor = Evictor(pager: live.pager)
        for page in 0..<Self.pages { memory.advance(page) }
    }

    var tier: Tier<LinuxKernel> { live.pager.store.tiers[0] }

    /// Offers every page to the tier once.
    func evictAll(pagesAtOnce: Int = hugePageSize / pageSize) {
        for index in 0..<region.hugePageCount {
            let pages = Array(region.pages(ofHugePage: index))
            for start in stride(from: 0, to: pages.count, by: pagesAtOnce) {
                _ = evictor.evict(region, pages[start..<min(start + pagesAtOnce, pages.count)])
            }
        }
    }

    /// The pages that only the tier has, and where.
    func stored() -> [(page: Int, place: LogPlace)] {
        (0..<Self.pages).compactMap { page in
            let entry = region.table[page]
            let locator = Locator(payload: entry.payload)
            guard entry.state == .stored, locator.tier == tier.index else { return nil }
            return (page, LogPlace(locator.place))
        }
    }

    /// What became of an access to each page.
    struct Reading {
        /// Pages that are poisoned.
        var lost: Set<Int> = []
        var wrong = 0
        /// Nanoseconds of the longest access.
        var slowest: UInt64 = 0
    }

    /// Accesses every page, over several threads: in ascending order, so that pages are read
    /// ahead as well, or in a random one.
    func readAll(ascending: Bool, _ random: inout SplitMix) throws -> Reading {
        let total = Lock((reading: Reading(), ended: 0))
        let threads = try (0..<Self.readers).map { reader in
            let share = Self.pages / Self.readers
            var pages = Array(reader * share..<(reader + 1) * share)
            if !ascending { random.shuffle(&pages) }
            let order = pages
            return try Kernel.Thread(name: "reader") { [memory, region] in
                var reading = Reading()
                for page in order {
                    let start = monotonicNow()
                    let errno = readBySystemCall(region.address(of: page))
                    reading.slowest = max(reading.slowest, monotonicNow() - start)
                    if errno != 0 {
                        reading.lost.insert(page)
                    } else if !memory.verify(page) {
                        reading.wrong += 1
                    }
                }
                total.withLock {
                    $0.reading.lost.formUnion(reading.lost)
                    $0.reading.wrong += reading.wrong
                    $0.reading.slowest = max($0.reading.slowest, reading.slowest)
                    $0.ended += 1
                }
            }
        }
        // A thread that waits for a page can only be ended with the process.
        precondition(waitUntil { total.withLock { $0.ended } == Self.readers }, "an access hangs")
        threads.forEach { $0.join() }
        return total.withLock { $0.reading }
    }

    /// Which pages are written besides those that are lost.
    enum Others { case none, some, all }

    /// The lost pages are dropped and written anew, and others written too, so that the next round
    /// stores something else: none, one in three, or all.
    func rewrite(_ lost: Set<Int>, others: Others, _ random: inout SplitMix) {
        for page in lost {
            live.pager.beginDiscard(region, pages: page..<page + 1)
            memory.drop(page..<page + 1)
            live.pager.endDiscard(region, pages: page..<page + 1)
        }
        for page in 0..<Self.pages {
            guard lost.contains(page) || others == .all || others == .some && random.below(3) == 0
            else { continue }
            // Not by the same number each: at some versions a page has nothing to be stored.
            for _ in 0...random.below(3) { memory.advance(page) }
        }
    }

    /// Bytes that compaction has written anew: what lay elsewhere before.
    var rewrittenBytes: UInt64 {
        guard case .log(let log) = tier.backing else { return 0 }
        return log.rewrittenBytes.load(ordering: .relaxed)
    }

    var readErrors: Int { Int(tier.failedReads) }
    var writeErrors: Int { Int(tier.writeErrors.load(ordering: .relaxed)) }

    /// Events of pages that were poisoned, each for one access.
    var poisonings: Int { log.errors.count { $0.hasPrefix("read failed") && $0.hasSuffix("poisoned: true") } }

    func finish() {
        live.pager.detach(region)
        live.stop()
    }
}

extension SplitMix {
    mutating func shuffle<Element>(_ elements: inout [Element]) {
        for index in stride(from: elements.count - 1, to: 0, by: -1) {
            elements.swapAt(index, below(index + 1))
        }
    }
}
