import Kernel

/// Empties segments of the logs that little of use is left in: goes through the page tables,
/// writes what lies in these segments anew at the log's head, and gives up what is there as a
/// copy only. What was chosen is emptied in one walk, so the walk costs little beside the
/// writing, and nothing need be remembered of what lies where.
///
/// A page's entry is moved from the old place to the new by compare-and-swap, while it is
/// `stored`. Who reads an object has moved its entry on before and drops the object after: an
/// access that comes first wins, and the new object is dropped; and an object that an entry was
/// moved away from is read by nobody.
///
/// Worker thread only, under the pass lock, which is let go for reading and writing.
final class LogCompactor {
    /// The tier that is being compacted; nil for none.
    private var tier: TierIndex?
    /// Where the walk is.
    private var slot = 0
    private var page = 0
    /// Pages whose objects are to be moved next.
    private var pages: [(region: Region, page: Int, entry: PageEntry)] = []
    private var relocations: [Relocation] = []
    /// The log's room when the walk began, and whether the last walk made more of it. One that
    /// did not will not the next time either: what is of no use lies in gaps too small to use.
    private var roomBefore = 0
    private var hasGained = true

    /// The tier in which `makeRoom` left room to be made, because its device had to wait for its
    /// turn, and since when.
    private var heldUp: (tier: TierIndex, since: UInt64)?

    /// Being full is no news for a while: room will be made.
    func isHeldUp(_ tier: TierIndex, at now: UInt64) -> Bool {
        guard let heldUp, heldUp.tier == tier else { return false }
        return now &- heldUp.since < Self.heldUpMax
    }

    /// Nanoseconds.
    private static var heldUpMax: UInt64 { 10_000_000_000 }
    /// Steps in a pass: 64 MiB are written at most.
    static var stepsPerPass: Int { 256 }
    private static var entriesPerStep: Int { 64 << 10 }
    /// Walks for the sake of one batch.
    private static var walksMax: Int { 8 }

    /// Goes on with what is under way, or begins where free segments have become few. False
    /// when there is nothing to do.
    func step<Port: KernelPort>(in pager: Pager<Port>) -> Bool {
        abandon(unless: { mayGoOn($0, .background, pager) }, in: pager)
        if tier == nil {
            let next = pager.store.logs.first {
                $0.log.runsLow(isGoingOn: wasGoingOn) && mayGoOn($0.tier, .background, pager)
            }
            guard let next, begin(next.tier, next.log) else {
                wasGoingOn = false
                return false
            }
        }
        wasGoingOn = true
        guard let tier, let log = pager.store.log(tier) else { return false }
        walk(tier, log, in: pager)
        return self.tier != nil || hasGained
    }
    private var wasGoingOn = false

    /// Forgets what was begun in a tier that is gone.
    func forget(_ index: TierIndex) {
        if tier == index { tier = nil }
    }

    /// Empties segments until there is room for `pages` more, as far as it is worth it; with
    /// `upper` for pages of that tier, which move to those below it.
    func makeRoom<Port: KernelPort>(for pages: Int, below upper: TierIndex? = nil, in pager: Pager<Port>) {
        for (tier, log) in pager.store.logsInReach(below: upper, at: pager.kernel.now()) {
            if makeRoom(for: pages, tier, log, in: pager) {
                if heldUp?.tier == tier { heldUp = nil }
            } else if heldUp?.tier != tier {
                heldUp = (tier, pager.kernel.now())
            }
        }
    }

    /// False: the tier's device must wait for its turn.
    private func makeRoom<Port: KernelPort>(
        for pages: Int, _ index: TierIndex, _ log: LogStore<Port.Device>, in pager: Pager<Port>
    ) -> Bool {
        var walks = 0
        while log.lacksRoom(for: pages), walks < Self.walksMax {
            abandon(unless: { $0 == index }, in: pager)
            if tier == nil, !begin(index, log) { break }
            while tier != nil {
                guard mayGoOn(index, .room, pager) else { return false }
                walk(index, log, in: pager)
            }
            guard hasGained else { break }
            walks += 1
        }
        return true
    }

    /// Ends the walk that is under way. What was moved is moved, and nothing else is remembered.
    private func abandon<Port: KernelPort>(
        unless mayStay: (TierIndex) -> Bool, in pager: Pager<Port>
    ) {
        guard let tier, !mayStay(tier) else { return }
        pager.store.log(tier)?.endCompaction()
        self.tier = nil
    }

    /// Whether another step is worth it, and the tier's rates allow it.
    private func mayGoOn<Port: KernelPort>(
        _ index: TierIndex, _ purpose: ReadPurpose, _ pager: Pager<Port>
    ) -> Bool {
        guard let tier = pager.store.tier(index), !tier.isDraining.load(ordering: .relaxed) else {
            return false
        }
        return tier.mayRewrite(purpose, at: pager.kernel.now())
    }

    private func begin<Device: StoreDevice>(_ tier: TierIndex, _ log: LogStore<Device>) -> Bool {
        guard log.chooseVictims() else { return false }
        roomBefore = log.room
        self.tier = tier
        slot = 0
        page = 0
        return true
    }

    /// Goes a bounded part of the way, and moves what it finds.
    private func walk<Port: KernelPort>(
        _ tier: TierIndex, _ log: LogStore<Port.Device>, in pager: Pager<Port>
    ) {
        var looked = 0
        while looked < Self.entriesPerStep, pages.count < LogStore<Port.Device>.relocationsMax {
            guard slot < RegionList.capacity else { break }
            guard let region = pager.regions[slot], page < region.pageCount else {
                slot += 1
                page = 0
                continue
            }
            let chunk = region.chunk(of: page)
            if region.chunks.isWatched(chunk) {
                look(region, page, tier, log, pager)
                page += 1
                looked += 1
            } else {
                // Nothing ever left from there, and looking would cost memory.
                page = region.pages(ofChunk: chunk).upperBound
                looked += 1
            }
        }
        move(log, in: pager)
        if slot == RegionList.capacity {
            log.endCompaction()
            hasGained = log.room > roomBefore
            self.tier = nil
        }
    }

    private func look<Port: KernelPort>(
        _ region: Region, _ page: Int, _ tier: TierIndex, _ log: LogStore<Port.Device>,
        _ pager: Pager<Port>
    ) {
        let entry = region.table[page]
        guard entry.state == .stored || entry.namesCopy else { return }
        let locator = Locator(payload: entry.payload)
        guard locator.tier == tier, log.isVictim(locator.place) else { return }
        if entry.state == .stored {
            region.inHand.add(1, ordering: .relaxed)
            pages.append((region, page, entry))
            relocations.append(
                Relocation(place: locator.place, identity: region.identity(of: page)))
        } else {
            pager.giveUpCopy(region, page, entry)
        }
    }

    private func move<Port: KernelPort>(_ log: LogStore<Port.Device>, in pager: Pager<Port>) {
        guard !pages.isEmpty else { return }
        pager.lettingControlIn { log.relocate(&relocations) }
        let tier = Locator(payload: pages[0].entry.payload).tier
        var rewrites = Rewrites()
        for (index, (region, page, entry)) in pages.enumerated() {
            let old = relocations[index].place
            switch relocations[index].outcome {
            case .stored(let new):
                rewrites.count += 1
                let locator = Locator(tier: tier, place: new)
                let moved = entry.becoming(.stored, payload: locator.payload)
                log.drop(pager.transition(region, page, from: entry, to: moved) ? old : new)
            case .refused(.failed(.badMessage)):
                // Its segment would be chosen again and again. Whoever overtook us has read it,
                // and the segment may be another's by now.
                guard region.table[page] == entry else { continue }
                pager.noteUnreadable(tier, unawaited: .badMessage)
                log.spoil(old)
            case .refused(.failed(let errno)):
                pager.noteUnwritten(tier)
                rewrites.failure = (errno, page, region)
            case .refused:
                break
            }
        }
        pager.store.tier(tier)?.note(rewrites, at: pager.kernel.now(), host: pager.host)
        for (region, _, _) in pages { region.inHand.subtract(1, ordering: .relaxed) }
        pages.removeAll(keepingCapacity: true)
        relocations.removeAll(keepingCapacity: true)
    }
}
