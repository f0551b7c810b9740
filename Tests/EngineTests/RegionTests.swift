import Engine
import Kernel
import Synchronization
import Testing

@Suite("A page-table entry")
struct PageEntryTests {
    @Test("is resident when all zero, so that untouched tables are right")
    func zero() {
        #expect(PageEntry(word: 0) == PageEntry(.resident))
    }

    @Test("keeps state, generation and payload apart", arguments: [UInt64(0), 1, 511])
    func fields(generation: UInt64) {
        let payload = UInt64(1) << PageEntry.payloadBits - 1
        let entry = PageEntry(.poisoned, generation: generation, payload: payload)
        #expect(entry.state == .poisoned)
        #expect(entry.generation == generation)
        #expect(entry.payload == payload)
        let arriving = entry.becoming(.arriving)
        #expect(arriving.state == .arriving && arriving.payload == payload)
        #expect(arriving.generation == generation)
        #expect(entry.becoming(.resident, payload: 0).payload == 0)
    }

    @Test("counts generations around")
    func generations() {
        #expect(PageEntry(.leaving, generation: 512).generation == 0)
    }

    @Test(
        "holds any place in the store",
        arguments: [TierIndex.sameFilled, TierIndex(1), TierIndex(TierIndex.tiersMax)])
    func locators(tier: TierIndex) {
        let locator = Locator(tier: tier, place: 1 << Locator.placeBits - 1)
        let entry = PageEntry(.stored, generation: 7, payload: locator.payload)
        #expect(Locator(payload: entry.payload) == locator)
    }
}

@Suite("The page table")
struct PageTableTests {
    @Test("lets one of two win")
    func exchange() throws {
        let table = try PageTable(pageCount: 10)
        let old = table[3]
        let first = table.exchange(3, from: old, to: PageEntry(.leaving))
        let second = table.exchange(3, from: old, to: PageEntry(.filling))
        let (page, neighbour) = (table[3].state, table[2].state)
        #expect(first && !second)
        #expect(page == .leaving && neighbour == .resident)
    }

    @Test("gives back the memory of pages that are back, and loses no change meanwhile")
    func trim() throws {
        let shared = Shared(table: try PageTable(pageCount: Self.pages))
        // Neighbours' entries are in one page of memory.
        let threads = try (0..<2).map { own in
            try Thread(name: "changes") {
                var page = own
                while !shared.isOver.load(ordering: .relaxed) {
                    shared.leaveAndReturn(page)
                    page = (page + 2) % Self.pages
                }
            }
        }
        for _ in 0..<Self.trims { shared.table.trim() }
        shared.isOver.store(true, ordering: .relaxed)
        for thread in threads { thread.join() }
        #expect(shared.lost.load(ordering: .relaxed) == 0)
        shared.table.trim()
        #expect(shared.table.residentBytes == 0)
    }

    private static let pages = 512
    private static let trims = 50_000

    /// What the threads share; expectations cannot capture a noncopyable table.
    private final class Shared: Sendable {
        let table: PageTable
        let isOver = Atomic<Bool>(false)
        let lost = Atomic<Int>(0)

        init(table: consuming PageTable) { self.table = table }

        /// The page is the calling thread's own, but for what `trim` forgets of it.
        func leaveAndReturn(_ page: Int) {
            var entry = table[page]
            let leaving = { (entry: PageEntry) in PageEntry(.leaving, generation: entry.generation &+ 1) }
            while !table.exchange(page, from: entry, to: leaving(entry)) { entry = table[page] }
            if table.exchange(page, from: leaving(entry), to: leaving(entry).becoming(.resident)) { return }
            lost.add(1, ordering: .relaxed)
        }
    }
}

/// Expectations cannot capture a noncopyable table.
private final class Chunks {
    private let table: ChunkTable
    init() throws { table = try ChunkTable(pageCount: 2048) }

    func prepare(_ chunk: Int) -> ChunkTable.Entry { table.prepare(chunk) }
    func enter(_ chunk: Int, completed: Bool) { table.enter(chunk, completed: completed) }
    func beginDiscard(_ chunk: Int) -> Bool { table.beginDiscard(chunk) }
    func endDiscard(_ chunk: Int) -> Bool { table.endDiscard(chunk) }
    func isWatched(_ chunk: Int) -> Bool { table.isWatched(chunk) }
}

@Suite("A chunk that is watched from its first eviction on")
struct ChunkTableTests {
    @Test("counts discards while unwatched, and keeps the worker out meanwhile")
    func discardFirst() throws {
        let chunks = try Chunks()
        let marks = chunks.beginDiscard(1)
        #expect(!marks)
        #expect(chunks.prepare(1) == .discarding)
        #expect(chunks.prepare(2) == .enter)
        let marked = chunks.endDiscard(1)
        #expect(!marked)
        #expect(chunks.prepare(1) == .enter)
    }

    @Test("makes discards mark their pages from the moment it is being entered")
    func enterFirst() throws {
        let chunks = try Chunks()
        #expect(chunks.prepare(0) == .enter)
        let marks = chunks.beginDiscard(0)
        #expect(marks && !chunks.isWatched(0))
        chunks.enter(0, completed: true)
        let marked = chunks.endDiscard(0)
        #expect(marked && chunks.isWatched(0))
        #expect(chunks.prepare(0) == .watched)
    }

    @Test("ends each discard as it began, also when it could not be entered")
    func enterFails() throws {
        let chunks = try Chunks()
        #expect(chunks.prepare(0) == .enter)
        let first = chunks.beginDiscard(0)
        chunks.enter(0, completed: false)
        let second = chunks.beginDiscard(0)
        let firstEnd = chunks.endDiscard(0)
        let secondEnd = chunks.endDiscard(0)
        #expect(first == firstEnd && second == secondEnd)
        #expect(!chunks.isWatched(0))
        #expect(chunks.prepare(0) == .enter)
    }
}

@Suite("A region")
struct RegionTests {
    @Test("cuts its pages at huge-page boundaries of the address", arguments: [0, 1, 511])
    func cuts(leading: Int) throws {
        let start = UInt64(hugePageSize * 8 + leading * pageSize)
        let region = try Region(name: "ram", start: start, length: UInt64(1300 * pageSize))
        var next = 0
        for index in 0..<region.hugePageCount {
            let pages = region.pages(ofHugePage: index)
            #expect(pages.lowerBound == next && !pages.isEmpty)
            next = pages.upperBound
            for page in pages {
                #expect(region.chunk(of: page) == region.chunk(of: pages.lowerBound))
                let offset = Int(region.address(of: page) % UInt64(hugePageSize))
                #expect(region.positionInHugePage(page) == offset / pageSize)
            }
        }
        #expect(next == 1300)
        for chunk in 0..<region.chunks.count {
            for page in region.pages(ofChunk: chunk) { #expect(region.chunk(of: page) == chunk) }
        }
    }
}
