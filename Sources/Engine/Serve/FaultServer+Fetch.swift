import Kernel

/// Pages that come from the store.
extension FaultServer {
    /// Starts bringing an `arriving` page back; the compressed tier finishes at once.
    func fetch(_ region: Region, _ page: Int, _ arriving: PageEntry, want: Fetch.Want) {
        let locator = Locator(payload: arriving.payload)
        pager.counters.stored(locator.tier, change: -1)
        let index = fetches.take()
        let identity = region.identity(of: page)
        switch pager.store.get(locator, identity, into: fetches.buffer(index), token: UInt64(index)) {
        case .ready:
            unsafe finish(
                Fetch(region: region, page: page, entry: arriving, start: batchStart, want: want),
                from: fetches.buffer(index).page)
            fetches.giveBack(index)
        case .pending:
            region.fetchesInFlight.add(1, ordering: .relaxed)
            fetches.begin(
                index,
                Fetch(region: region, page: page, entry: arriving, start: batchStart, want: want))
        case .failed(let errno):
            fetches.giveBack(index)
            failed(region, page, arriving, errno, want: want)
        }
    }

    /// Reads of a device that are finished in one turn: those that wait to be begun are not to
    /// wait for many others to be opened and placed, while the device has nothing to do.
    private static var finishesPerTurn: Int { 8 }

    /// Takes finished reads. True when there was any.
    func finishFetches() -> Bool {
        unsafe withUnsafeTemporaryAllocation(
            of: TransferCompletion.self, capacity: FetchTable.capacity
        ) { completions in
            let count = unsafe pager.store.reapFetches(into: completions, ofEach: Self.finishesPerTurn)
            let now = count > 0 ? pager.kernel.now() : 0
            for position in 0..<count {
                let completion = unsafe completions[position]
                let index = Int(completion.token)
                let fetch = fetches.end(index)
                if fetch.isDemand, !pager.store.isRemote(fetch.tier) {
                    poll.readTook(now &- fetch.start)
                }
                let buffer = self.buffer(of: fetch, index)
                let locator = Locator(payload: fetch.entry.payload)
                delayed.noteFreeBuffer()
                switch (
                    pager.store.finish(locator, fetch.region.identity(of: fetch.page), completion, buffer),
                    fetch.want
                ) {
                case (.pending, _):
                    fetches.begin(index, fetch)
                    continue
                case (.ready, .part): endPart(nil, locator.tier)
                case (.failed(let errno), .part): endPart(errno, locator.tier)
                case (.ready, _): unsafe finish(fetch, from: buffer.page)
                case (.failed(let errno), _):
                    failed(fetch.region, fetch.page, fetch.entry, errno, want: fetch.want)
                }
                fetches.giveBack(index)
                fetch.region.fetchesInFlight.subtract(1, ordering: .releasing)
            }
            return count > 0
        }
    }

    /// Where a read that is under way puts a page.
    private func buffer(of fetch: Fetch, _ index: Int) -> FetchBuffer {
        let buffer = fetches.buffer(index)
        return fetch.want == .part ? partBuffer(of: fetch.region, fetch.page, buffer) : buffer
    }

    private func finish(_ fetch: Fetch, from buffer: UnsafeMutableRawPointer) {
        let region = fetch.region
        let page = fetch.page
        let locator = Locator(payload: fetch.entry.payload)
        let placing = fetch.entry.becoming(.placing)
        guard pager.transition(region, page, from: fetch.entry, to: placing) else {
            // Discarded while it was read; the discard's end wakes the access.
            return pager.store.drop(locator)
        }
        let placement = unsafe pager.place(buffer, region, page)
        if case .failed(let errno) = placement {
            guard fetch.isDemand else { return giveUpPrefetch(region, page, from: placing) }
            pager.counters.stored(locator.tier, change: 1)
            pager.settle(region, page, from: placing, to: placing.becoming(.stored))
            return park(region, page, errno)
        }
        assert(placement == .placed, "a stored page was present in the guest")
        pager.counters.fetches.increment()
        pager.arrived(region, page)
        let copy = unsafe keepCopy(fetch, buffer)
        pager.settle(region, page, from: placing, to: placing.becoming(.resident, payload: copy))
        if copy == 0 { pager.store.drop(locator) }
        switch fetch.want {
        case .ahead: settlePrefetched(region, page, isAwaited: fetch.isOvertaken)
        // It looks touched, and stays for a while: no tier has room for it.
        case .recall, .part: noteBack(region, page)
        case .read, .write:
            noteServed(region, page, since: fetch.start)
            noteDemand(region, page)
        }
    }

    /// The payload of a resident page that came back: where the store keeps a copy of what
    /// is in `buffer`, or 0. The waiter is awake by now, so this delays nobody but the next.
    private func keepCopy(_ fetch: Fetch, _ buffer: UnsafeRawPointer) -> UInt64 {
        // A copy of what is being written is out of date.
        guard fetch.want != .write, pager.settings.mode == .active,
            unsafe pager.store.keep(Locator(payload: fetch.entry.payload), buffer)
        else { return 0 }
        pager.counters.keptCopies.add(1, ordering: .relaxed)
        return fetch.entry.payload
    }

    private func failed(
        _ region: Region, _ page: Int, _ arriving: PageEntry, _ errno: Errno, want: Fetch.Want
    ) {
        guard want == .ahead || want == .recall else { return unreadable(region, page, arriving, errno) }
        // EBUSY: it was not asked.
        if errno != .busy {
            pager.noteUnreadable(Locator(payload: arriving.payload).tier, unawaited: errno)
        }
        giveUpPrefetch(region, page, from: arriving)
    }

    /// Counts a read that failed, and says what becomes of its page. One that could not even be
    /// asked for waits, whatever becomes of unreadable ones: the next try may well succeed.
    func action(on errno: Errno, _ tier: TierIndex) -> ReadErrorAction {
        pager.noteUnreadable(tier)
        return errno.isMomentary ? .stop : pager.readErrorAction
    }

    private func unreadable(_ region: Region, _ page: Int, _ arriving: PageEntry, _ errno: Errno) {
        let locator = Locator(payload: arriving.payload)
        switch action(on: errno, locator.tier) {
        case .stop:
            pager.counters.stored(locator.tier, change: 1)
            guard pager.transition(region, page, from: arriving, to: arriving.becoming(.stored)) else {
                pager.counters.stored(locator.tier, change: -1)
                return pager.store.drop(locator)
            }
            park(region, page, errno, tier: locator.tier)
        case .machineCheck:
            let placing = arriving.becoming(.placing, payload: 0)
            let mine = pager.transition(region, page, from: arriving, to: placing)
            pager.store.drop(locator)
            guard mine else { return }
            pager.counters.poisonedPages.increment()
            poison(region, page, placing)
            pager.host.report(.readFailed(errno, locator.tier, region: region, page: page, poisoned: true))
        }
    }

    /// Places poison. In state `placing`, so that a discard waits instead of ending
    /// first and finding its page poisoned.
    func poison(_ region: Region, _ page: Int, _ placing: PageEntry) {
        let address = region.address(of: page)
        // Unmapping an armed huge page leaves a mark, over which no poison is put.
        if region.guard.leavesWhole { _ = pager.lift(region, page) }
        var placement = Placement.busy
        while placement == .busy { placement = pager.kernel.poison(address, length: region.unitLength) }
        if placement == .alreadyThere { pager.kernel.wake(start: address, length: region.unitLength) }
        pager.settle(region, page, from: placing, to: placing.becoming(.poisoned))
        if case .failed(let errno) = placement { return park(region, page, errno) }
        noteBack(region, page)
    }
}
