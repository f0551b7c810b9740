import Kernel

/// Moves the oldest pages of a tier that is nearly full to those below it. Which these are a
/// clock tells: a hand goes round the page tables, marks the entries of pages that came since it
/// was there, and moves those that bear its mark. So what moves has been stored for a whole turn,
/// and that costs a bit of an entry that is there anyway. The hand goes only while there is need.
/// Worker thread only, under the pass lock.
final class Demotion<Port: KernelPort> {
    private let pager: Pager<Port>
    /// By tier.
    private var hands = [PageHand](repeating: PageHand(), count: TierIndex.tiersMax + 1)
    /// Turns since something moved.
    private var fruitlessTurns = [Int](repeating: 0, count: TierIndex.tiersMax + 1)
    /// Where pages were moved from the last time: the others have their turn first.
    private var last: TierIndex?
    /// One turn marks all, and another finds them.
    private static var fruitlessTurnsMax: Int { 3 }

    init(pager: Pager<Port>) { self.pager = pager }

    /// Moves a few pages. False when there is nothing to do, or nothing can be done now.
    func step(_ mover: PageMover<Port>) -> Bool {
        let now = pager.kernel.now()
        for index in inTurn(pager.store.order) {
            guard let tier = pager.store.tier(index), tier.mayMove(at: now), wants(tier) else { continue }
            guard pager.store.accepts(below: index, at: now), tier.readDelay(.background, at: now) == 0
            else { continue }
            last = index
            mover.begin(tier, at: now)
            collect(index, mover)
            let moved = mover.isEmpty ? 0 : mover.move(outOf: tier).moved
            if moved > 0 {
                fruitlessTurns[index.number] = 0
                tier.noteMoves()
            } else if fruitlessTurns[index.number] >= Self.fruitlessTurnsMax {
                // What is left cannot be read now, or no tier below takes it.
                fruitlessTurns[index.number] = 0
                tier.noteFruitlessMove(at: now)
                continue
            }
            return true
        }
        return false
    }

    /// The order from the tier after the last one on: one that is filled all the time must not keep
    /// those below it full.
    private func inTurn(_ order: [TierIndex]) -> [TierIndex] {
        guard let last, let position = order.firstIndex(of: last) else { return order }
        return Array(order[(position + 1)...] + order[...position])
    }

    private func wants(_ tier: Tier<Port>) -> Bool {
        guard tier.index != pager.store.last else { return false }
        tier.updateDemotion(pages: pager.counters.pages(in: tier.index))
        return tier.isDemoting
    }

    private func collect(_ index: TierIndex, _ mover: PageMover<Port>) {
        let cameRound = hands[index.number].advance(in: pager) { region, page, entry in
            guard entry.state == .stored, Locator(payload: entry.payload).tier == index else { return true }
            if entry.isAged {
                mover.add(region, page, entry)
            } else {
                _ = pager.transition(region, page, from: entry, to: entry.aged())
            }
            return !mover.isFull
        }
        if cameRound { fruitlessTurns[index.number] += 1 }
    }
}
