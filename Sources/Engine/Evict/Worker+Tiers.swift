import Kernel

/// What becomes of stored pages while they are stored: they move on to lower tiers, and out of
/// tiers that are being removed.
extension Worker {
    /// Moves pages between tiers, and gives memory and space that became free back to the host.
    /// Bounded: `isUnfinished` says whether there is more to do at once.
    public func tidyUp() {
        poolCompactor.step(pager)
        isUnfinished = false
        for _ in 0..<Self.stepsPerTidying {
            while pager.controlWaiting.value > 0 { pager.kernel.pause() }
            isUnfinished = drainTiers() || demote()
            if !isUnfinished { break }
        }
        pager.store.trim()
    }

    /// Batches of `PageMover`: 2 MiB are moved at most before it is seen what else is to do.
    private static var stepsPerTidying: Int { 8 }

    private func demote() -> Bool {
        guard pager.settings.mode == .active else { return false }
        return pager.holdingPassLock { demotion.step(mover) }
    }

    /// Goes on with the tiers that are being removed. False when there is none, or nothing can
    /// be done about it now.
    private func drainTiers() -> Bool {
        guard pager.settings.mode == .active || pager.settings.mode == .drain else { return false }
        let now = pager.kernel.now()
        for tier in pager.store.tiers where tier.isDraining.load(ordering: .relaxed) {
            if tier.objects.load(ordering: .acquiring) == 0 {
                remove(tier)
                return true
            }
            if tier.mayMove(at: now), drain(tier, at: now) { return true }
        }
        return false
    }

    private func drain(_ tier: Tier<Port>, at now: UInt64) -> Bool {
        guard tier.readDelay(.background, at: now) == 0,
            pager.holdingPassLock({ pager.store.putDelay(at: now) }) ?? 0 == 0
        else { return false }
        let number = tier.index.number
        var dropped = 0
        let result = pager.holdingPassLock { () -> PageMover<Port>.Result in
            let cameRound = drainHands[number].advance(in: pager) { region, page, entry in
                guard entry.payload != 0, Locator(payload: entry.payload).tier == tier.index else {
                    return true
                }
                if entry.state == .stored { mover.add(region, page, entry) }
                if entry.namesCopy, pager.giveUpCopy(region, page, entry) { dropped += 1 }
                return !mover.isFull
            }
            if cameRound { fruitlessDrainTurns[number] += 1 }
            return mover.isEmpty ? .init() : mover.move(outOf: tier)
        }
        // Without the lock, as `bringBack` does.
        for (region, page) in result.left {
            _ = pager.kernel.populate(start: region.address(of: page), length: UInt64(pageSize))
        }
        if result.moved + result.left.count + dropped > 0 {
            fruitlessDrainTurns[number] = 0
            tier.noteMoves()
        }
        // What is left is in others' hands, or cannot be moved now.
        guard fruitlessDrainTurns[number] < 2 else {
            fruitlessDrainTurns[number] = 0
            tier.noteFruitlessMove(at: now)
            return false
        }
        return true
    }

    /// Nothing is in it any more, and nothing comes.
    private func remove(_ tier: Tier<Port>) {
        // Before its index can be another's. No read of it is under way.
        onTierRemoved(tier)
        let retained = unsafe pager.holdingPassLock { unsafe pager.store.remove(tier.index) }
        poolCompactor.forget(tier.index)
        evictor.compaction.forget(tier.index)
        drainHands[tier.index.number] = PageHand()
        pager.waitForServer()
        while !pager.store.isUnread { pager.kernel.pause() }
        unsafe retained?.release()
        pager.host.log(.info, "tier \(tier.index.position) is empty and has been closed")
    }
}
