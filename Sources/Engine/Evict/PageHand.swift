import Kernel

/// A hand that goes round all pages that ever left, a bounded part of the way at a time.
/// Worker thread only, under the pass lock.
struct PageHand {
    private var slot = 0
    private var page = 0
    /// Entries looked at in one go, at most: so many take a fraction of a millisecond.
    static let entriesMax = 64 << 10

    /// Shows entries to `body` until it answers false. True when the hand has come round.
    mutating func advance<Port: KernelPort>(
        in pager: Pager<Port>, _ body: (Region, Int, PageEntry) -> Bool
    ) -> Bool {
        var looked = 0
        while looked < Self.entriesMax {
            guard let region = pager.regions[slot], page < region.pageCount else {
                page = 0
                slot = (slot + 1) % RegionList.capacity
                if slot == 0 { return true }
                continue
            }
            let chunk = region.chunk(of: page)
            guard region.chunks.isWatched(chunk) else {
                // Nothing ever left from there, and looking would cost memory.
                page = max(page + 1, region.pages(ofChunk: chunk).upperBound)
                looked += 1
                continue
            }
            let goesOn = body(region, page, region.table[page])
            page += 1
            looked += 1
            if !goesOn { return false }
        }
        return false
    }
}
