import Engine
import SeededRandom
import Testing

@Suite("Prefetch")
struct PrefetchTests {
    private final class Block {}
    private let block = Block()
    private var id: ObjectIdentifier { ObjectIdentifier(block) }

    /// Touches pages in order; a page that was brought early does not fault.
    private func run(_ pages: some Sequence<Int>, _ prefetch: inout Prefetch) -> (faults: Int, brought: Int) {
        var present = Set<Int>()
        var faults = 0
        var brought = 0
        for page in pages where !present.contains(page) {
            faults += 1
            present.insert(page)
            for early in prefetch.fault(id, page) where present.insert(early).inserted {
                prefetch.brings(id, early)
                brought += 1
            }
        }
        return (faults, brought)
    }

    @Test("follows a guest that goes through its memory, with ever larger windows")
    func sequential() {
        var prefetch = Prefetch()
        let (faults, _) = run(0..<10_000, &prefetch)
        #expect(faults < 10_000 / Prefetch.windowMax + 10)
        #expect(prefetch.hits > 9_000)
    }

    @Test("goes on with a stream whose pages the guest reaches before they are brought")
    func quickGuest() {
        var prefetch = Prefetch()
        for page in 0..<3 { _ = prefetch.fault(id, page) }
        #expect(prefetch.fault(id, 3).isEmpty)
        #expect(!prefetch.fault(id, 4).isEmpty)
    }

    @Test("brings nothing for faults at random", arguments: UInt64(1)...5)
    func random(seed: UInt64) {
        var random = SplitMix(seed: seed)
        var prefetch = Prefetch()
        let (faults, brought) = run((0..<2000).map { _ in random.below(1 << 20) }, &prefetch)
        #expect(brought < faults / 100)
    }

    @Test("tells streams apart that run at the same time", arguments: 1...8)
    func streams(count: Int) {
        var prefetch = Prefetch()
        let pages = (0..<1000).flatMap { step in (0..<count).map { $0 * 100_000 + step } }
        let (faults, _) = run(pages, &prefetch)
        #expect(faults < count * (1000 / Prefetch.windowMax + 8))
    }

    @Test("wastes at most one window where a stream ends")
    func ends() {
        var prefetch = Prefetch()
        let runs = (0..<50).flatMap { start in (0..<200).map { start * 10_000 + $0 } }
        let (faults, brought) = run(runs, &prefetch)
        #expect(faults + brought <= runs.count + 50 * Prefetch.windowMax)
    }

    @Test("brings less in vain once streams keep ending soon, and as much as before when they go on")
    func measuredUse() {
        var prefetch = Prefetch()
        func short(_ count: Int) -> [Int] {
            (0..<count).flatMap { start in (0..<12).map { start * 1000 + $0 } }
        }
        func vain(_ pages: [Int]) -> Int {
            let (faults, brought) = run(pages, &prefetch)
            return faults + brought - pages.count
        }
        let before = vain(short(50))
        _ = vain(short(500))
        let after = vain(short(50))
        print("in vain for 50 streams: \(before) pages, later \(after)")
        #expect(after * 2 <= before)
        let (faults, _) = run(0..<10_000, &prefetch)
        #expect(faults < 10_000 / Prefetch.windowMax + 100)
    }
}
