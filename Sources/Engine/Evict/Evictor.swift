import Kernel

/// Takes cold pages out of one huge page at a time: claim them, take them from the guest
/// in runs, hand them to the store, let them go. How each step is done depends on the
/// block's guard (`Pager+Guard.swift`). Worker thread only.
public final class Evictor<Port: KernelPort>: @unchecked Sendable {
    let pager: Pager<Port>
    /// One for each part of staging, and the one that is in hand.
    private let batches: [EvictionBatch]
    var batch: EvictionBatch
    /// Taken and offered to the store, which may still write it.
    private var underWay: (batch: EvictionBatch, region: Region, turn: Int)?
    let logCompactor = LogCompactor()
    /// Where huge pages are copied to on their way out, made when the first one leaves.
    var wholeBuffer: WholeBuffer?
    /// When pages of the batch were first claimed: since then accesses to them wait.
    var claimedAt: UInt64 = 0

    /// Tries of a MOVE that answers EAGAIN without progress, before its pages stay.
    private static var movesMax: Int { 100 }
    /// Tries of one that had to be ended: it may only have had no CPU.
    private static var stuckMovesMax: Int { 2 }

    public init(pager: Pager<Port>) {
        self.pager = pager
        batches = (0..<Staging.turns).map { _ in EvictionBatch() }
        batch = batches[0]
    }

    /// Evicts those `candidates` that can be: distinct pages, ascending, all in one huge
    /// page, and in hugetlbfs all of it. `evenTouched`: they are wanted out even if they were touched since the last
    /// look, which some guards could tell. `overlapping`: the store may still write them then, so
    /// that the next can be taken meanwhile; `finishUnderWay` follows before anything else does.
    /// Returns how many went to the store, of those before them if these have not yet.
    public func evict(
        _ region: Region, _ candidates: ArraySlice<Int>, evenTouched: Bool = true, overlapping: Bool = false
    ) -> Int {
        guard let first = candidates.first, watch(region, chunk: region.chunk(of: first)) else {
            return finishUnderWay()
        }
        let turn = pager.staging.turn(of: region, first)
        let before = region.guard.overlaps && underWay?.turn != turn ? 0 : finishUnderWay()
        region.inHand.add(1, ordering: .relaxed)
        batch = batches[turn]
        if region.guard.leavesWhole {
            precondition(candidates.count == region.unitPages, "huge pages leave whole")
            defer { region.inHand.subtract(1, ordering: .relaxed) }
            return before + evictWhole(region, first, evenTouched: evenTouched)
        }
        take(region, candidates, evenTouched: evenTouched)
        storeWithoutWriting(region)
        if !batch.toStore.isEmpty { batch.expectAll(in: pager) }
        // The log's room, and what failed, are not known before.
        let evicted = before + finishUnderWay()
        beginStoring(region)
        underWay = (batch, region, turn)
        let mayWrite = overlapping && region.guard.overlaps && pager.store.isWriting
        return mayWrite ? evicted : evicted + finishUnderWay()
    }

    /// Ends the eviction of the pages that are under way, if there are any. Returns how many went
    /// to the store.
    public func finishUnderWay() -> Int {
        guard let (finished, region, _) = underWay else { return 0 }
        let next = batch
        (batch, underWay) = (finished, nil)
        defer {
            batch = next
            region.inHand.subtract(1, ordering: .relaxed)
        }
        endStoring(region)
        let evicted = leave(region)
        finish(region)
        pager.afterBatch(region)
        return evicted
    }

    private func take(_ region: Region, _ candidates: ArraySlice<Int>, evenTouched: Bool) {
        guard let first = candidates.first else { return }
        batch.removeAll()
        batch.candidates = candidates.count
        batch.isHuge = candidates.count == hugePageSize / pageSize && isMappedHuge(region, first)
        unlessTransferring(region, first) {
            if pager.beforeTaking(region) {
                claim(region, candidates, evenTouched: evenTouched)
                if region.guard.freezes { leaveUnfrozen(region, evenTouched: evenTouched) }
                takeAll(region)
            }
            pager.afterTaking(region)
        }
    }

    private func leave(_ region: Region) -> Int {
        guard let first = batch.taken.first else { return 0 }
        var evicted = 0
        if region.guard.leavesReadable {
            // A transfer that began meanwhile found the page in its place.
            unlessTransferring(region, first) { evicted = commitAll(region) }
        } else {
            evicted = commitAll(region)
        }
        noteLeft(region, first, whole: batch.isHuge && evicted == batch.candidates, evicted)
        return evicted
    }

    private func isMappedHuge(_ region: Region, _ page: Int) -> Bool {
        !region.guard.isShared && pager.isMappedHuge(region, page)
    }

    /// Where a whole huge page left, one is to be again.
    private func noteLeft(_ region: Region, _ page: Int, whole: Bool, _ evicted: Int) {
        guard evicted > 0, !region.guard.isShared else { return }
        region.looks.left(region.hugePage(of: page), whole: whole)
        if whole { pager.counters.hugePageDepartures.increment() }
    }

    /// Takes a step that transfers must not come upon, if none is under way. Announced before
    /// they are looked for: see `TransferCounts.begin`.
    func unlessTransferring(_ region: Region, _ page: Int, _ step: () -> Void) {
        pager.leavingFrom.store(region.address(of: page), ordering: .sequentiallyConsistent)
        if region.transfers.isNone(region.hugePage(of: page)) { step() }
        pager.leavingFrom.store(0, ordering: .sequentiallyConsistent)
    }

    /// From the first eviction on, holes in the chunk must fault to us.
    private func watch(_ region: Region, chunk: Int) -> Bool {
        switch region.chunks.prepare(chunk) {
        case .watched: return true
        case .discarding: return false
        case .enter:
            let errno = pager.watch(region, region.pages(ofChunk: chunk))
            region.chunks.enter(chunk, completed: errno == nil)
            if let errno {
                pager.host.log(
                    .warning,
                    "\(region.name): cannot watch memory for faults (\(errno.text)); it stays resident")
            }
            return errno == nil
        }
    }

    private func claim(_ region: Region, _ candidates: ArraySlice<Int>, evenTouched: Bool) {
        let current = pager.currentStamp.load(ordering: .relaxed)
        claimedAt = pager.kernel.now()
        for page in candidates {
            let entry = region.table[page]
            guard entry.state == .resident else { continue }
            let leaving = PageEntry(
                .leaving, generation: entry.generation &+ 1, payload: entry.payload)
            guard pager.transition(region, page, from: entry, to: leaving) else { continue }
            // An access that waited while memory was frozen, and was let go before the claim.
            if !evenTouched, region.ages[page] == current {
                settleLeft(region, page)
            } else {
                batch.claimed.append(page)
            }
        }
    }

    /// Claimed pages that are in use stay, where memory is frozen.
    private func leaveUnfrozen(_ region: Region, evenTouched: Bool) {
        batch.forgetUnfrozen()
        var next = 0
        while next < batch.claimed.count {
            let run = batch.run(from: next)
            pager.markUnfrozen(region, run, evenTouched: evenTouched, in: &batch.isUnfrozen)
            next += run.count
        }
        batch.claimed.removeAll { page in
            guard batch.isUnfrozen[region.positionInHugePage(page)] else { return false }
            settleLeft(region, page)
            return true
        }
    }

    private func takeAll(_ region: Region) {
        var next = 0
        var tries = 0
        while next < batch.claimed.count {
            let taken = pager.take(region, batch.run(from: next))
            pager.counters.residentPages.subtract(taken.pages, ordering: .relaxed)
            pager.counters.stagedPages.add(taken.pages, ordering: .relaxed)
            for index in next..<next + taken.pages { settleTaken(region, batch.claimed[index]) }
            next += taken.pages
            if taken.pages > 0 { tries = 0 }
            switch taken.stop {
            case .none:
                continue
            case .again where tries < Self.movesMax:
                tries += 1
                pager.kernel.pause()
            case .pinned, .again:
                pager.counters.busyPages.increment()
                let page = batch.claimed[next]
                let isMerged = region.mayMerge && pager.kernel.isMerged(region.address(of: page))
                settleLeft(region, page)
                if isMerged { leaveMerged(region, page) }
                next += 1
            case .left:
                settleLeft(region, batch.claimed[next])
                next += 1
            case .stuck where tries < Self.stuckMovesMax:
                tries += 1
            case .stuck, .held:
                for page in batch.claimed[next...] { settleLeft(region, page) }
                pager.counters.busyPages.increment(by: UInt64(batch.claimed.count - next))
                next = batch.claimed.count
            }
        }
    }

    private func settleTaken(_ region: Region, _ page: Int) {
        batch.taken.append(page)
        batch.locators.append(nil)
        batch.areCopies.append(false)
        let entry = region.table[page]
        if entry.state == .leaving,
            pager.transition(region, page, from: entry, to: entry.becoming(.staged))
        {
            return
        }
        // An access came meanwhile; the fault server left the rescue to us.
        defer { noteHeldUp() }
        let wanted = region.table[page]
        precondition(wanted.state == .wanted, "a leaving page was taken by another thread")
        let staged = wanted.becoming(.staged)
        pager.settle(region, page, from: wanted, to: staged)
        switch pager.rescue(region, page, from: staged) {
        case .rescued: pager.counters.rescues.increment()
        case .overtaken: break
        case .failed:
            // Its message is used up: the access must fault again, for the fault server
            // to serve it or to note that it waits.
            pager.kernel.wake(start: region.address(of: page), length: UInt64(pageSize))
        }
    }

    /// Merged pages save memory where they are, and cannot be moved. They are armed, since
    /// they were idle, so the mark lasts until they are touched.
    private func leaveMerged(_ region: Region, _ page: Int) {
        region.merged.insert(page..<page + 1)
        if pager.tracking { region.ages[page] = AgeMap.kept }
    }

    func settleLeft(_ region: Region, _ page: Int) {
        while true {
            let entry = region.table[page]
            guard pager.transition(region, page, from: entry, to: entry.becoming(.resident))
            else { continue }
            pager.setAge(region, page, pager.currentStamp.load(ordering: .relaxed))
            if entry.state == .wanted {
                pager.kernel.wake(start: region.address(of: page), length: region.unitLength)
                noteHeldUp()
            }
            return
        }
    }

    /// An access waited since some time after the claim: no longer than since then.
    func noteHeldUp() {
        pager.counters.heldUpAccesses.increment()
        pager.counters.heldUpTime.increment(by: pager.kernel.now() &- claimedAt)
    }

    /// The store has these pages: it is now their only home. Lets them go in runs.
    /// Returns how many.
    private func commitAll(_ region: Region) -> Int {
        var committed = 0
        var run = 0..<0
        for (index, page) in batch.taken.enumerated() {
            guard let locator = batch.locators[index] else { continue }
            batch.locators[index] = nil
            guard commit(region, page, to: locator, isCopy: batch.areCopies[index]) else { continue }
            committed += 1
            if page != run.upperBound {
                pager.letGo(region, run)
                run = page..<page
            }
            run = run.lowerBound..<page + 1
        }
        pager.letGo(region, run)
        return committed
    }

    /// False when the page was rescued or discarded meanwhile.
    private func commit(_ region: Region, _ page: Int, to locator: Locator, isCopy: Bool) -> Bool {
        let entry = region.table[page]
        if entry.state == .staged {
            // Counted first: the fault server may take it back the moment it is stored.
            pager.counters.stored(locator.tier, change: 1)
            let stored = entry.becoming(region.guard.stateWhenStored, payload: locator.payload)
            if pager.transition(region, page, from: entry, to: stored) {
                pager.counters.evictions.increment()
                // What the entry names besides is out of date, and could not be given up while
                // the fault server tried to put the page back.
                if isCopy { pager.copyIsOnlyHome(locator) } else { pager.dropCopy(entry) }
                region.ages[page] = AgeMap.absent
                return true
            }
            pager.counters.stored(locator.tier, change: -1)
        }
        // A copy belongs to the page's entry, wherever that is now.
        if !isCopy { pager.store.drop(locator) }
        return false
    }

    /// Ends the batch: drops what the store has of pages that stay after all, and waits until
    /// no page's only copy is where it was taken to, and the fault server reads none of it.
    private func finish(_ region: Region) {
        guard let first = batch.taken.first, let last = batch.taken.last else { return }
        for (index, page) in batch.taken.enumerated() {
            let locator = batch.locators[index]
            if let locator, !batch.areCopies[index] { pager.store.drop(locator) }
            while region.table[page].state == .rescuing || region.table[page].state == .staged {
                // Staged still: neither the store nor the guest took it. It stays safe
                // where it is; the guest must take it in the end.
                if region.table[page].state == .staged {
                    giveBack(region, page, isRefused: locator == nil)
                }
                pager.kernel.pause()
            }
        }
        pager.cleanUp(region, first...last)
        pager.counters.stagedPages.subtract(batch.taken.count, ordering: .relaxed)
    }
}
