import Kernel

extension Pager {
    /// Tells a stored page's entry that its contents are elsewhere as well, at `locator`, and
    /// drops whichever place is not named in the end: the one it had, or, when an access or a
    /// discard came first, the new one; then it answers false. Worker only.
    ///
    /// Whoever reads an object for an access first takes its entry out of `stored`, and drops
    /// the object afterwards. So nobody reads what an entry was moved away from.
    @discardableResult
    func relocate(_ region: Region, _ page: Int, _ stored: PageEntry, to locator: Locator) -> Bool {
        let old = Locator(payload: stored.payload)
        // Counted first: the fault server may take it the moment it is there.
        counters.stored(locator.tier, change: 1)
        let moved = stored.becoming(.stored, payload: locator.payload)
        guard transition(region, page, from: stored, to: moved) else {
            counters.stored(locator.tier, change: -1)
            store.drop(locator)
            return false
        }
        counters.stored(old.tier, change: -1)
        store.drop(old)
        return true
    }
}
