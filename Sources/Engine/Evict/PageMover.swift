import Kernel

/// Moves stored pages from one tier to others: reads them back, puts them elsewhere, and tells
/// their entries. A fault or discard may come at any time, and wins. Worker thread only.
final class PageMover<Port: KernelPort> {
    /// Pages that are moved at once: all are read back at once.
    static var pagesMax: Int { TransferQueue.depth }
    /// … out of this tier, at this moment.
    private var limit = PageMover.pagesMax

    private let pager: Pager<Port>
    private let logCompactor: LogCompactor
    /// Memory that is there only while pages are being moved.
    private let buffers: Mapping
    private var moves: [Move] = []
    private var puts: [PagePut] = []
    /// Which move each put is for.
    private var movesByPut: [Int] = []
    private var outcomes: [StoreOutcome]

    private struct Move {
        let region: Region
        let page: Int
        /// In state `stored`.
        let entry: PageEntry
        var isRead = false
    }

    /// What became of a batch.
    struct Result {
        var moved = 0
        /// Pages that could be read, and that no tier has room for. Parts of huge pages of
        /// hugetlbfs are not among them: only whole ones come back.
        var left: [(region: Region, page: Int)] = []
    }

    init(pager: Pager<Port>, logCompactor: LogCompactor) throws(Errno) {
        self.pager = pager
        self.logCompactor = logCompactor
        buffers = try Mapping(length: Self.pagesMax * Self.bufferSize)
        outcomes = Array(repeating: .refused(.full), count: Self.pagesMax)
        moves.reserveCapacity(Self.pagesMax)
        puts.reserveCapacity(Self.pagesMax)
    }

    private static var bufferSize: Int { 3 * pageSize }

    private func buffer(_ index: Int) -> FetchBuffer {
        let page = unsafe buffers.base + index * Self.bufferSize
        return unsafe FetchBuffer(page: page, raw: page + pageSize)
    }

    var isFull: Bool { moves.count >= limit }
    var isEmpty: Bool { moves.isEmpty }

    /// Pages of `tier` come next: as many at once as its rate lets through, so that accesses need
    /// not wait for what is not urgent.
    func begin(_ tier: Tier<Port>, at now: UInt64) {
        limit = min(Self.pagesMax, tier.readRoom(.background, at: now) ?? .max)
    }

    /// A page to be moved; its entry is `stored`.
    func add(_ region: Region, _ page: Int, _ entry: PageEntry) {
        region.inHand.add(1, ordering: .relaxed)
        moves.append(Move(region: region, page: page, entry: entry))
    }

    /// Moves what was added out of `tier`, to the tiers below it, or with a tier that is being
    /// drained to any other. Under the pass lock, which is let go for reading and writing.
    func move(outOf tier: Tier<Port>) -> Result {
        defer {
            for move in moves { move.region.inHand.subtract(1, ordering: .relaxed) }
            moves.removeAll(keepingCapacity: true)
            buffers.release(offset: 0, length: buffers.length)
        }
        pager.lettingControlIn { readAll(from: tier) }
        putAll(below: tier.index)
        var result = Result()
        for (position, index) in movesByPut.enumerated() {
            let move = moves[index]
            switch outcomes[position] {
            case .stored(let locator):
                if pager.relocate(move.region, move.page, move.entry, to: locator) { result.moved += 1 }
            // Evictions ask full tiers before us: that these are asked no more for now is no answer.
            case .refused(let refusal):
                let isFinal = refusal == .full || refusal == .incompressible || pager.store.isKnownFull
                if isFinal, !move.region.guard.leavesWhole {
                    result.left.append((move.region, move.page))
                }
            }
        }
        tier.demotions.increment(by: UInt64(result.moved))
        return result
    }

    private func readAll(from tier: Tier<Port>) {
        var pending = 0
        for index in moves.indices {
            let move = moves[index]
            let outcome = tier.backing.readBack(
                Locator(payload: move.entry.payload).place, move.region.identity(of: move.page),
                into: buffer(index), token: UInt64(index))
            switch outcome {
            case .ready: moves[index].isRead = true
            case .pending: pending += 1
            case .failed(.busy): break
            case .failed(let errno): noteUnreadable(index, tier, errno)
            }
        }
        while pending > 0 { pending -= finishReads(tier) }
    }

    private func finishReads(_ tier: Tier<Port>) -> Int {
        guard let device = tier.backing.device else {
            preconditionFailure("reads of memory are never pending")
        }
        return unsafe withUnsafeTemporaryAllocation(
            of: TransferCompletion.self, capacity: Self.pagesMax
        ) { completions in
            let count = unsafe device.reap(.evict, into: completions, wait: true)
            var finished = 0
            for position in 0..<count {
                let completion = unsafe completions[position]
                let index = Int(completion.token)
                let move = moves[index]
                let outcome = tier.backing.finishReadBack(
                    Locator(payload: move.entry.payload).place, move.region.identity(of: move.page),
                    completion, buffer(index))
                switch outcome {
                case .pending: continue
                case .ready: moves[index].isRead = true
                case .failed(let errno): noteUnreadable(index, tier, errno)
                }
                finished += 1
            }
            return finished
        }
    }

    /// The page stays where it is. An access that overtook us may have dropped it meanwhile.
    private func noteUnreadable(_ index: Int, _ tier: Tier<Port>, _ errno: Errno) {
        let move = moves[index]
        guard move.region.table[move.page] == move.entry else { return }
        pager.noteUnreadable(tier.index, unawaited: errno)
    }

    /// Puts what was read. What was dropped meanwhile is not what it was: it is left out as far
    /// as that is known, and dropped again by `relocate` otherwise.
    private func putAll(below tier: TierIndex) {
        puts.removeAll(keepingCapacity: true)
        movesByPut.removeAll(keepingCapacity: true)
        for (index, move) in moves.enumerated() where move.isRead {
            guard move.region.table[move.page] == move.entry else { continue }
            puts.append(
                PagePut(
                    address: unsafe UInt64(UInt(bitPattern: buffer(index).page)),
                    identity: move.region.identity(of: move.page)))
            movesByPut.append(index)
        }
        guard !puts.isEmpty else { return }
        logCompactor.makeRoom(for: puts.count, below: tier, in: pager)
        let now = pager.kernel.now()
        pager.lettingControlIn {
            unsafe puts.withUnsafeBufferPointer { puts in
                unsafe outcomes.withUnsafeMutableBufferPointer { outcomes in
                    unsafe pager.store.put(puts, outcomes: outcomes, below: tier, at: now)
                }
            }
        }
        for (asked, answers) in pager.store.answers {
            // They stay where they are: no room for them is no news.
            let page = answers.failure?.page
            let move = movesByPut.lazy.map { self.moves[$0] }.first { $0.page == page } ?? moves[0]
            asked.note(answers, isFullNews: false, move.region, at: now, host: pager.host)
        }
    }
}
