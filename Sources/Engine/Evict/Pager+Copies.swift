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
    func copyIsOnlyHome() {
        counters.keptCopies.subtract(1, ordering: .relaxed)
        counters.cleanEvictions.increment()
    }
}

/// Takes kept copies away where the store wants room. Worker thread only.
final class CopyReclaim {
    /// Where the last search ended: which copies are the oldest is not known, so all get
    /// their turn.
    private var slot = 0
    private var chunk = 0

    func makeRoom<Port: KernelPort>(for pages: Int, in pager: Pager<Port>) {
        drop(min(pager.store.shortage(for: pages), pager.counters.keptCopies.value), in: pager)
    }

    func dropAll<Port: KernelPort>(in pager: Pager<Port>) {
        drop(pager.counters.keptCopies.value, in: pager)
    }

    /// Goes round all blocks once at most: copies come and go meanwhile.
    private func drop<Port: KernelPort>(_ wanted: Int, in pager: Pager<Port>) {
        var left = wanted
        var slotsSeen = 0
        while left > 0, slotsSeen <= RegionList.capacity {
            if let region = pager.regions[slot], chunk < region.chunks.count {
                left -= drop(upTo: left, region, pager)
                chunk += 1
            } else {
                chunk = 0
                slot = (slot + 1) % RegionList.capacity
                slotsSeen += 1
            }
        }
    }

    private func drop<Port: KernelPort>(
        upTo wanted: Int, _ region: Region, _ pager: Pager<Port>
    ) -> Int {
        // Nothing ever left from elsewhere, and looking there would cost memory.
        guard region.chunks.isWatched(chunk) else { return 0 }
        var dropped = 0
        for page in region.pages(ofChunk: chunk) where dropped < wanted {
            let entry = region.table[page]
            if entry.namesCopy, pager.giveUpCopy(region, page, entry) { dropped += 1 }
        }
        return dropped
    }
}
