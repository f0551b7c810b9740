import Kernel

/// How far mode `drain` has come.
struct BringBack {
    var hand = PageHand()
    /// Nothing is asked for before; nanoseconds, on the kernel's clock.
    var resumeAt: UInt64 = 0
    var pause: UInt64 = 0
    /// Nothing is made whole before; the same.
    var mendAt: UInt64 = 0
    /// Pages that were out at the last pause.
    var evictedBefore = Int.max

    /// While pages come back, the fault server is to have something to do; where none does, a
    /// look at all of them costs more than it is worth. Nanoseconds.
    private static let pauseMin: UInt64 = 1_000_000
    private static let pauseMax: UInt64 = 4_000_000_000

    /// `goesOn`: there are pages that have not been asked for yet, and some just were.
    mutating func rest(evictedPages: Int, goesOn: Bool, at now: UInt64) {
        let isGain = goesOn || evictedPages < evictedBefore
        pause = isGain ? Self.pauseMin : min(max(pause * 2, Self.pauseMin), Self.pauseMax)
        evictedBefore = evictedPages
        resumeAt = now + pause
    }
}

extension Worker {
    /// Mode `drain`: asks the fault server for what is in the store, as far as it takes requests,
    /// and waits for none of them. True when there is more to do at once.
    func bringBack() -> Bool {
        guard pager.settings.mode == .drain else { return false }
        let now = pager.kernel.now()
        mendComplete(at: now)
        guard pager.counters.evictedPages > 0 else { return false }
        guard now >= bringingBack.resumeAt else {
            lookAgain(at: bringingBack.resumeAt)
            return false
        }
        var choice = RecallChoice(pager)
        let cameRound =
            !choice.isOver
            && pager.holdingPassLock {
                bringingBack.hand.advance(in: pager) { region, page, entry in
                    // The first page of a huge page speaks for all.
                    guard entry.state == .stored, region.head(of: page) == page else { return true }
                    return ask(region, page, entry, &choice)
                }
            }
        if choice.asked > 0 { onRecall() }
        guard cameRound || choice.isOver else { return true }
        // The server has something to do now, or can do nothing.
        bringingBack.rest(
            evictedPages: pager.counters.evictedPages, goesOn: choice.asked > 0 && !cameRound, at: now)
        lookAgain(at: bringingBack.resumeAt)
        return false
    }

    /// No pass does it in this mode. The vCPUs are to notice little of it.
    private func mendComplete(at now: UInt64) {
        guard now >= bringingBack.mendAt else { return }
        bringingBack.mendAt = now + Self.mendPause
        if pager.holdingPassLock({ tracker.mendComplete() }) { lookAgain(at: bringingBack.mendAt) }
    }

    /// Nanoseconds.
    private static var mendPause: UInt64 { 100_000_000 }

    /// What a walk has asked for, and which tiers can be asked for no more now.
    private struct RecallChoice {
        var asked = 0
        private var isOpen: [Bool]

        init(_ pager: Pager<Port>) {
            isOpen = (0...TierIndex.tiersMax).map { number in
                let tier = TierIndex(number)
                return pager.counters.pages(in: tier) > 0 && pager.recalls.isEmpty(of: tier)
            }
        }

        /// No tier that has pages can be asked for more.
        var isOver: Bool { !isOpen.contains(true) }

        func mayAsk(_ tier: TierIndex) -> Bool { isOpen[tier.number] }
        mutating func close(_ tier: TierIndex) { isOpen[tier.number] = false }
    }

    /// False when nothing else can be asked for.
    private func ask(
        _ region: Region, _ page: Int, _ entry: PageEntry, _ choice: inout RecallChoice
    ) -> Bool {
        let tier = Locator(payload: entry.payload).tier
        guard choice.mayAsk(tier) else { return true }
        if pager.recalls.ask(region, page, of: tier) { choice.asked += 1 }
        // The hand does not come back to this page before it has been round.
        if !pager.recalls.hasRoom(of: tier) { choice.close(tier) }
        return !choice.isOver
    }

    /// Memory is not tidied before, unless there is another reason to.
    func lookAgain(at time: UInt64) { tidyAt = min(tidyAt ?? .max, time) }
}
