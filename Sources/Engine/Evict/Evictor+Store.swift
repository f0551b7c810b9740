import Kernel

/// Giving the pages of a batch to the store, in two steps: while the writes of one batch are under
/// way, the next is taken. Worker thread only.
extension Evictor {
    /// Finds pages of the batch that the store still has, stores the same-filled ones, and
    /// lists the others.
    func storeWithoutWriting(_ region: Region) {
        for (index, page) in batch.taken.enumerated() {
            let entry = region.table[page]
            guard entry.state == .staged else { continue }
            if let copy = unsafe pager.copy(of: region, page, entry, pager.takenContents(region, page)) {
                batch.locators[index] = copy
                batch.areCopies[index] = true
            } else if let word = unsafe sameFilledWord(pager.takenContents(region, page)),
                let place = pager.store.words.put(word)
            {
                batch.locators[index] = Locator(tier: .sameFilled, place: place)
            } else {
                batch.toStore.append(index)
                batch.puts.append(
                    PagePut(address: pager.takenAddress(region, page), identity: region.identity(of: page)))
            }
        }
    }

    /// Puts what is staged into the store; the pages themselves stay as they are, and an
    /// access to one in the meantime is a rescue.
    func beginStoring(_ region: Region) {
        guard !batch.toStore.isEmpty else { return }
        logCompactor.makeRoom(for: batch.toStore.count, in: pager)
        batch.beginPut(into: pager)
        pager.store.abandonExpected()
    }

    func endStoring(_ region: Region) {
        guard !batch.toStore.isEmpty else { return }
        batch.endPut(into: pager)
        noteAnswers(region)
        for (position, index) in batch.toStore.enumerated() {
            let page = batch.taken[index]
            switch batch.outcomes[position] {
            case .stored(let locator):
                batch.locators[index] = locator
            case .refused(let refusal):
                giveBack(region, page)
                switch refusal {
                case .incompressible: keep(region, page)
                case .full, .failed: pager.counters.writeErrors.increment()
                case .notNow: break
                }
            }
        }
    }

    /// Tells the tiers what became of the pages that they were offered.
    func noteAnswers(_ region: Region) {
        for (tier, answers) in pager.store.answers {
            let now = pager.kernel.now()
            let isNews = tier.index == pager.store.last && !logCompactor.isHeldUp(tier.index, at: now)
            tier.note(answers, isFullNews: isNews, region, at: now, host: pager.host)
        }
    }

    /// The page is not worth another try before its contents change: it is armed at
    /// once, since a page put back by COPY looks touched, and marked until it is.
    private func keep(_ region: Region, _ page: Int) {
        guard region.table[page].state == .resident else { return }
        let errno =
            pager.tracking
            ? pager.arm(region, start: region.address(of: page), length: UInt64(pageSize)) : nil
        if errno == nil { region.ages[page] = AgeMap.kept }
    }

    /// The store did not take the page, or it may not leave: back to the guest. It looks
    /// touched, so it is not tried again before it has been idle once more.
    func giveBack(_ region: Region, _ page: Int, isRefused: Bool = true) {
        let entry = region.table[page]
        guard entry.state == .staged else { return }
        if case .rescued = pager.rescue(region, page, from: entry), isRefused {
            pager.counters.returnedPages.increment()
        }
    }
}
