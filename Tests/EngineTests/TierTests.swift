import Engine
import Kernel
import SeededRandom
import Testing

@Suite("Tiers of a store")
struct TierTests {
    private typealias Tiers = Store<LinuxKernel>

    /// Pages of which half is noise, each another, and one that is noise altogether.
    private func pages(_ count: Int, _ memory: borrowing Mapping) -> [PagePut] {
        var random = SplitMix(seed: 7)
        return (0..<count).map { index in
            let page = memory.base + index * pageSize
            let noise = index == 0 ? pageSize : pageSize / 2
            for byte in 0..<noise {
                page.storeBytes(of: UInt8(random.below(256)), toByteOffset: byte, as: UInt8.self)
            }
            return PagePut(
                address: UInt64(UInt(bitPattern: page)),
                identity: PageIdentity(block: 1, page: UInt32(index)))
        }
    }

    private func put(_ pages: [PagePut], into store: Tiers, below: TierIndex? = nil) -> [StoreOutcome] {
        var outcomes = [StoreOutcome](repeating: .refused(.failed(.inputOutput)), count: pages.count)
        pages.withUnsafeBufferPointer { pages in
            outcomes.withUnsafeMutableBufferPointer {
                store.put(pages, outcomes: $0, below: below, at: 1)
            }
        }
        return outcomes
    }

    @Test("take what those above them refuse, count it, and let go of all of it")
    func cascade() throws {
        let count = 200
        let memory = try Mapping(length: count * pageSize)
        let small = try CompressedStore(CompressedStoreOptions(bytesMax: 60 * pageSize))
        let large = try CompressedStore()
        // Memory that is added comes before the memory that is there.
        let store = try Tiers(tiers: [.compressed(large), .compressed(small)], pagesMax: 1000)
        let upper = TierIndex(2)
        let lower = TierIndex(1)
        let outcomes = put(pages(count, memory), into: store)
        var counts: [TierIndex: Int] = [:]
        for outcome in outcomes.dropFirst() {
            guard case .stored(let locator) = outcome else {
                Issue.record("a page was refused: \(outcome)")
                continue
            }
            counts[locator.tier, default: 0] += 1
        }
        #expect(outcomes[0] == .refused(.incompressible), "it is the last tier's reason that counts")
        #expect(counts[upper, default: 0] > 0 && counts[lower, default: 0] > 0)
        for (index, expected) in counts {
            #expect(store.tier(index)?.objectCount == expected)
            #expect(store.tier(index)?.state == .active, "nobody has noted anything of a batch")
        }
        for case .stored(let locator) in outcomes { store.drop(locator) }
        #expect(store.tiers.allSatisfy { $0.objectCount == 0 && $0.backing.payload == 0 })
    }

    @Test("above another are left out where pages move on")
    func below() throws {
        let memory = try Mapping(length: 4 * pageSize)
        let stores = try (0..<2).map { _ in try CompressedStore() }
        let store = try Tiers(tiers: stores.map { .compressed($0) }, pagesMax: 1000)
        let batch = Array(pages(4, memory).dropFirst())
        for outcome in put(batch, into: store, below: TierIndex(2)) {
            guard case .stored(let locator) = outcome else {
                Issue.record("a page was refused: \(outcome)")
                continue
            }
            #expect(locator.tier == TierIndex(1))
        }
        #expect(put(batch, into: store, below: TierIndex(1)).allSatisfy { $0 == .refused(.notNow) })
    }
}
