import Kernel

/// A huge page of hugetlbfs on its way back: read part by part into one buffer, placed at once.
struct WholeFetch {
    struct Wanted {
        let region: Region
        let head: Int
        /// When its fault message was read.
        let start: UInt64
        /// An access waits for it.
        var isAwaited: Bool
    }

    var wanted: Wanted
    /// Its head's entry, in state `arriving`.
    let entry: PageEntry
    /// Parts that were asked for, from the first on, and those of them that are under way.
    var asked = 0
    var pending = 0
    /// When the next part may be asked for, where that is a matter of time alone. Nanoseconds.
    var readyAt: UInt64 = .max
    var failure: (errno: Errno, tier: TierIndex)?

    init(_ wanted: Wanted, _ entry: PageEntry) {
        self.wanted = wanted
        self.entry = entry
    }
}

/// One huge page at a time: there is one buffer. Others that are wanted wait for their turn.
extension FaultServer {
    /// More messages than that stay with the kernel.
    static var wholesWantedMax: Int { 1024 }

    /// A stored huge page is wanted. It stays `stored` until its turn.
    func want(whole region: Region, _ head: Int, isAwaited: Bool) {
        if let index = wholesWanted.firstIndex(where: { $0.head == head && $0.region === region }) {
            if isAwaited { wholesWanted[index].isAwaited = true }
            return
        }
        wholesWanted.append(
            WholeFetch.Wanted(region: region, head: head, start: batchStart, isAwaited: isAwaited))
    }

    /// An access came to a page that is on its way, maybe as a part of a huge page.
    func noteAccess(_ region: Region, _ page: Int) {
        guard let wanted = whole?.wanted, wanted.head == page, wanted.region === region else {
            return fetches.noteAccess(region, page)
        }
        whole?.wanted.isAwaited = true
    }

    /// Goes on with the huge pages that are wanted, as far as buffers and the store allow. True
    /// when there was anything to do.
    func advanceWholes() -> Bool {
        var worked = false
        while beginWhole(), askForParts() {
            finishWhole()
            worked = true
        }
        return worked
    }

    /// False when none is wanted.
    private func beginWhole() -> Bool {
        while whole == nil {
            guard !wholesWanted.isEmpty else { return false }
            let wanted = wholesWanted.removeFirst()
            let region = wanted.region
            guard pager.regions.find(region.start) === region else { continue }
            // Before it arrives: see `Pager.wholeInHand`.
            pager.wholeInHand.store(region.address(of: wanted.head), ordering: .sequentiallyConsistent)
            guard let arriving = takeHead(region, wanted.head) else {
                pager.wholeInHand.store(0, ordering: .sequentiallyConsistent)
                continue
            }
            region.fetchesInFlight.add(1, ordering: .relaxed)
            wholeParts.removeAll(keepingCapacity: true)
            pager.takeParts(of: region, wanted.head, arriving, to: .arriving) { wholeParts.append($0) }
            countParts(-1)
            whole = WholeFetch(wanted, arriving)
        }
        return true
    }

    /// Its head's entry once it is `arriving`; nil when it is not stored any more: whoever took it
    /// wakes the access. An entry that only moved within the store is tried again, since its
    /// message has been used up.
    private func takeHead(_ region: Region, _ head: Int) -> PageEntry? {
        while true {
            let entry = region.table[head]
            guard entry.state == .stored else { return nil }
            let arriving = entry.becoming(.arriving)
            if pager.transition(region, head, from: entry, to: arriving) { return arriving }
        }
    }

    private func countParts(_ change: Int) {
        for part in wholeParts { pager.counters.stored(part.tier, change: change) }
    }

    /// Asks the store for the parts. True when nothing is under way and nothing is left to ask.
    private func askForParts() -> Bool {
        guard var fetch = whole else { return false }
        let region = fetch.wanted.region
        let isWanted = region.table[fetch.wanted.head] == fetch.entry
        fetch.readyAt = .max
        while isWanted, fetch.failure == nil, fetch.asked < wholeParts.count {
            let part = wholeParts[fetch.asked]
            guard mayAsk(for: part, &fetch) else { break }
            let index = fetches.take()
            let page = fetch.wanted.head + fetch.asked
            let buffer = partBuffer(of: region, page, fetches.buffer(index))
            switch pager.store.get(part, region.identity(of: page), into: buffer, token: UInt64(index)) {
            case .ready: fetches.giveBack(index)
            case .pending:
                region.fetchesInFlight.add(1, ordering: .relaxed)
                fetch.pending += 1
                fetches.begin(
                    index,
                    Fetch(
                        region: region, page: page,
                        entry: fetch.entry.becoming(.arriving, payload: part.payload),
                        start: fetch.wanted.start, want: .part))
            case .failed(let errno):
                fetches.giveBack(index)
                fetch.failure = (errno, part.tier)
            }
            fetch.asked += 1
        }
        whole = fetch
        let isAsked = !isWanted || fetch.failure != nil || fetch.asked == wholeParts.count
        return isAsked && fetch.pending == 0
    }

    /// Parts on devices leave buffers to other faults, and keep to the rates.
    private func mayAsk(for part: Locator, _ fetch: inout WholeFetch) -> Bool {
        guard pager.store.isOnDevice(part.tier) else { return fetches.freeCount > 0 }
        guard fetch.pending < Self.buffersForFaults, !mustWait(for: part.tier) else { return false }
        guard pager.store.limitsRates(of: part) else { return true }
        let now = pager.kernel.now()
        let delay = pager.store.readDelay(part, .fault, at: now)
        if delay > 0 { fetch.readyAt = now + delay }
        return delay == 0
    }

    /// Where a part is read to: at once to where it is placed from.
    func partBuffer(of region: Region, _ page: Int, _ buffer: FetchBuffer) -> FetchBuffer {
        let part = unsafe wholeBuffer.base + (page - region.head(of: page)) * pageSize
        return unsafe FetchBuffer(page: part, raw: buffer.raw)
    }

    /// A read of a part has completed.
    func endPart(_ errno: Errno?, _ tier: TierIndex) {
        whole?.pending -= 1
        if let errno { whole?.failure = (errno, tier) }
    }

    /// All that was asked for is there, or failed.
    private func finishWhole() {
        guard let fetch = whole else { return }
        let region = fetch.wanted.region
        if let (errno, tier) = fetch.failure {
            unreadable(fetch, errno, tier)
        } else {
            place(fetch)
        }
        whole = nil
        // Last: from here on the worker may take the huge page, a detach forget the block.
        pager.wholeInHand.store(0, ordering: .sequentiallyConsistent)
        region.fetchesInFlight.subtract(1, ordering: .releasing)
    }

    private func place(_ fetch: WholeFetch) {
        let region = fetch.wanted.region
        let head = fetch.wanted.head
        let placing = fetch.entry.becoming(.placing)
        guard pager.transition(region, head, from: fetch.entry, to: placing) else {
            // Discarded while it was read; the discard's end wakes the access.
            return dropParts(region, head)
        }
        let placement = unsafe pager.placeWhole(wholeBuffer.base, region, head, isHole: false)
        if case .failed(let errno) = placement {
            countParts(1)
            pager.returnParts(region, head)
            pager.settle(region, head, from: placing, to: placing.becoming(.stored))
            return fetch.wanted.isAwaited ? park(region, head, errno) : wakeWhole(region, head)
        }
        assert(placement == .placed, "a stored page was present in the guest")
        pager.counters.fetches.increment(by: UInt64(region.unitPages))
        pager.arrived(region, head)
        dropParts(region, head)
        pager.settle(region, head, from: placing, to: placing.becoming(.resident, payload: 0))
        guard fetch.wanted.isAwaited else { return noteBack(region, head) }
        noteServed(region, head, since: fetch.wanted.start)
    }

    /// It could not be had, and nobody waited for it at first. Who does by now faults again, and
    /// then the failure is its own.
    private func wakeWhole(_ region: Region, _ head: Int) {
        pager.kernel.wake(start: region.address(of: head), length: region.unitLength)
    }

    /// For whoever has it in `placing`, or of a huge page that was discarded.
    private func dropParts(_ region: Region, _ head: Int) {
        pager.clearParts(region, head)
        for part in wholeParts { pager.store.drop(part) }
    }

    private func unreadable(_ fetch: WholeFetch, _ errno: Errno, _ tier: TierIndex) {
        let region = fetch.wanted.region
        let head = fetch.wanted.head
        let isAwaited = fetch.wanted.isAwaited
        if !isAwaited { pager.noteUnreadable(tier, unawaited: errno) }
        switch isAwaited ? action(on: errno, tier) : .stop {
        case .stop:
            let placing = fetch.entry.becoming(.placing)
            guard pager.transition(region, head, from: fetch.entry, to: placing) else {
                return dropParts(region, head)
            }
            countParts(1)
            pager.returnParts(region, head)
            pager.settle(region, head, from: placing, to: placing.becoming(.stored))
            isAwaited ? park(region, head, errno, tier: tier) : wakeWhole(region, head)
        case .machineCheck:
            let placing = fetch.entry.becoming(.placing, payload: 0)
            let isMine = pager.transition(region, head, from: fetch.entry, to: placing)
            dropParts(region, head)
            guard isMine else { return }
            pager.counters.poisonedPages.increment(by: UInt64(region.unitPages))
            poison(region, head, placing)
            pager.host.report(.readFailed(errno, tier, region: region, page: head, poisoned: true))
        }
    }
}
