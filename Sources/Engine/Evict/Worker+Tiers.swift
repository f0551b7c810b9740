import Kernel

/// How far a tier that is being removed has been emptied.
struct TierDrain {
    var hand = PageHand()
    /// Turns of the hand since anything left the tier.
    private(set) var fruitlessTurns = 0
    private var pagesBefore = Int.max
    private var pause: UInt64 = 0
    private var queuedBefore = Int.max

    /// Until the fault server has brought some pages back, and longer where none come. Nanoseconds.
    private static let pauseMin: UInt64 = 1_000_000
    private static let pauseMax: UInt64 = 1_000_000_000

    /// How long to leave the fault server alone that has so many pages still to begin with.
    mutating func pauseForServer(queued: Int) -> UInt64 {
        pause = queued < queuedBefore ? Self.pauseMin : min(pause * 2, Self.pauseMax)
        queuedBefore = queued
        return pause
    }

    /// Pages left, or the hand has come round. `pages`: of which the tier is the only home; those
    /// that the fault server was asked for before have left by now, or could not be had. True when
    /// something is gained.
    mutating func note(left: Int, cameRound: Bool, pages: Int) -> Bool {
        var isGain = left > 0
        if cameRound {
            if pages < pagesBefore { isGain = true }
            pagesBefore = pages
            fruitlessTurns += 1
        }
        if isGain { fruitlessTurns = 0 }
        return isGain
    }

    mutating func rest() { fruitlessTurns = 0 }

    /// The fault server has been asked for more.
    mutating func noteAsked() { (pause, queuedBefore) = (0, .max) }
}

/// What becomes of stored pages while they are stored: they move on to lower tiers, and out of
/// tiers that are being removed.
extension Worker {
    /// Moves pages between tiers, in mode `drain` asks for them to come back, and gives memory and
    /// space that became free back to the host. Bounded: `isUnfinished` says whether there is more
    /// to do at once, `tidyAt` when otherwise.
    public func tidyUp() {
        poolCompactor.step(pager)
        // Nobody waits for room that is made here.
        pager.store.hurry(false)
        isUnfinished = false
        tidyAt = nil
        for _ in 0..<Self.stepsPerTidying {
            while pager.controlWaiting.value > 0 { pager.kernel.pause() }
            isUnfinished = drainTiers() || demote() || bringBack()
            if !isUnfinished { break }
        }
        pager.store.trim()
        glance()
    }

    private func glance() {
        guard let due = tracker.glanceAt else { return }
        if pager.kernel.now() < due { return lookAgain(at: due) }
        guard pager.settings.mode == .active else { return }
        pager.holdingPassLock { tracker.glance() }
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
                // A mirrored device may owe answers that nobody waits for.
                guard tier.device.map({ $0.traffic.inFlight.load(ordering: .acquiring) == 0 }) ?? true
                else { continue }
                remove(tier)
                return true
            }
            if tier.mayMove(at: now), drain(tier, at: now) { return true }
        }
        return false
    }

    private func drain(_ tier: Tier<Port>, at now: UInt64) -> Bool {
        guard tier.readDelay(.background, at: now) == 0,
            pager.store.putDelay(at: now) ?? 0 == 0
        else { return false }
        let number = tier.index.number
        let queued = pager.recalls.count(of: tier.index)
        guard queued == 0 else {
            lookAgain(at: now + drains[number].pauseForServer(queued: queued))
            return false
        }
        var dropped = 0
        mover.begin(tier, at: now)
        var cameRound = false
        let result = pager.holdingPassLock { () -> PageMover<Port>.Result in
            cameRound = drains[number].hand.advance(in: pager) { region, page, entry in
                guard entry.payload != 0, Locator(payload: entry.payload).tier == tier.index else {
                    return true
                }
                if entry.state == .stored { mover.add(region, page, entry) }
                if entry.namesCopy, pager.giveUpCopy(region, page, entry) { dropped += 1 }
                return !mover.isFull
            }
            return mover.isEmpty ? .init() : mover.move(outOf: tier)
        }
        let recalled = result.left.count { pager.recalls.ask($0.region, $0.page, of: tier.index) }
        if recalled > 0 {
            drains[number].noteAsked()
            onRecall()
        }
        let isGain = drains[number].note(
            left: result.moved + dropped, cameRound: cameRound,
            pages: pager.counters.pages(in: tier.index))
        if isGain { tier.noteMoves() }
        // What is left is in others' hands, or cannot be moved now.
        guard drains[number].fruitlessTurns < 2 else {
            drains[number].rest()
            tier.noteFruitlessMove(at: now)
            return false
        }
        return true
    }

    /// Nothing is in it any more, and nothing comes.
    private func remove(_ tier: Tier<Port>) {
        // Before its index can be another's. No read of it is under way.
        onTierRemoved(tier)
        let retained = unsafe pager.store.remove(tier.index)
        poolCompactor.forget(tier.index)
        evictor.logCompactor.forget(tier.index)
        drains[tier.index.number] = TierDrain()
        pager.waitForServer()
        while !pager.store.isUnread { pager.kernel.pause() }
        unsafe retained?.release()
        pager.host.log(.info, "tier \(tier.index.position) is empty and has been closed")
    }
}
