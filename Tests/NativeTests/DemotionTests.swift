import Engine
import Kernel
import SeededRandom
import Testing

/// Demotion step by step, on this machine's own kernel.
@Suite("Demotion", .serialized)
struct DemotionTests {
    private static let pageCount = 18_000
    private static let tierSize = 12 << 20

    /// Pages of which half is noise: five thousand of them fill a tier.
    private func fill(_ memory: borrowing Mapping) {
        var random = SplitMix(seed: 7)
        for page in 0..<Self.pageCount {
            for offset in stride(from: 0, to: pageSize / 2, by: 8) {
                memory.base.storeBytes(
                    of: random.next(), toByteOffset: page * pageSize + offset, as: UInt64.self)
            }
        }
    }

    private func tier(_ size: Int) throws -> Store<LinuxKernel>.Setup {
        .init(
            .compressed(try CompressedStore(CompressedStoreOptions(bytesMax: size))), maxBytes: size)
    }

    @Test("gives each full tier its turn, although the first stays full")
    func turns() throws {
        let memory = try Mapping(length: Self.pageCount * pageSize)
        fill(memory)
        let region = try Region(
            name: "ram", start: UInt64(UInt(bitPattern: memory.base)), length: UInt64(memory.length),
            guard: .move)
        let pager = try Pager(
            port: try LinuxKernel(tracking: .none),
            store: try Store(
                tiers: [try tier(4 * Self.tierSize), try tier(Self.tierSize), try tier(Self.tierSize)],
                pagesMax: Self.pageCount),
            settings: try Settings(limit: 0, idleAge: 0), host: HostLog().host, tracking: false,
            readErrorAction: .stop, wakeWorker: {})
        let worker = try Worker(pager: pager)
        try pager.attach(region)
        let evictor = Evictor(pager: pager)
        for index in 0..<region.hugePageCount {
            _ = evictor.evict(region, Array(region.pages(ofHugePage: index))[...])
        }
        // Memory comes before what is there: the last one is the first.
        let order = [TierIndex(3), TierIndex(2), TierIndex(1)]
        try #require(order.allSatisfy { pager.counters.pages(in: $0) > 3000 })

        worker.tidyUp()
        #expect(worker.isUnfinished, "there is more to do than a step is worth")
        let demotions = try order.map { index in
            try #require(pager.store.tier(index)).demotions.load(ordering: .relaxed)
        }
        #expect(demotions[0] > 0 && demotions[1] > 0, "\(demotions)")
        #expect(demotions[2] == 0)
        pager.detach(region)
    }
}
