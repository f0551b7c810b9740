import Kernel

/// Copies that the store keeps of pages which are back in the guest. The page's entry
/// names its copy, so that whoever takes the page over has the copy too.
extension Pager {
    /// The copy of a staged page, when it holds what the page holds; otherwise it is
    /// dropped. Worker only.
    func copy(
        of region: Region, _ page: Int, _ staged: PageEntry, _ contents: UnsafeRawPointer
    ) -> Locator? {
        guard staged.payload != 0 else { return nil }
        let locator = Locator(payload: staged.payload)
        if unsafe store.holds(locator, contents) { return locator }
        giveUpCopy(region, page, staged)
        return nil
    }

    /// Drops the copy of a page whose entry is `entry`, unless that has changed meanwhile.
    @discardableResult
    func giveUpCopy(_ region: Region, _ page: Int, _ entry: PageEntry) -> Bool {
        let without = entry.becoming(entry.state, payload: 0)
        guard transition(region, page, from: entry, to: without) else { return false }
        dropCopy(entry)
        return true
    }

    /// Drops the copy that `entry` named, if any. For whoever replaced the entry.
    func dropCopy(_ entry: PageEntry) {
        guard entry.payload != 0 else { return }
        store.dropCopy(Locator(payload: entry.payload))
        counters.keptCopies.subtract(1, ordering: .relaxed)
    }

    /// A page left, and nothing had to be written for it.
    func copyIsOnlyHome(_ locator: Locator) {
        store.becomesOnly(locator)
        counters.keptCopies.subtract(1, ordering: .relaxed)
        counters.cleanEvictions.increment()
    }
}

/// Takes all kept copies away. Worker thread only.
extension Pager {
    func dropAllCopies() {
        regions.forEach { region in
            for chunk in 0..<region.chunks.count where counters.keptCopies.value > 0 {
                // Nothing ever left from elsewhere, and looking there would cost memory.
                guard region.chunks.isWatched(chunk) else { continue }
                for page in region.pages(ofChunk: chunk) {
                    let entry = region.table[page]
                    if entry.namesCopy { giveUpCopy(region, page, entry) }
                }
            }
        }
    }
}
