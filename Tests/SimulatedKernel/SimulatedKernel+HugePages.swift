import Kernel

/// Mappings by huge pages. A huge page is armed, touched and scanned as a whole; a call
/// for a part of it splits it.
extension SimulatedKernel {
    public func collapse(start: UInt64) -> Errno? {
        scheduler.step()
        let space = space(at: start)
        let first = Int(start - space.start) / pageSize
        guard let pages = space.hugePage(of: first), pages.lowerBound == first else {
            scheduler.fail("a huge page that is not all in the block is to be made whole")
        }
        // Two calls: the pages are disarmed first, whatever the other answers.
        for page in pages where space[page].tracked { space[page].armed = false }
        scheduler.step()
        for page in pages where space[page].state == .swapped {
            requireNotKnownSwapped(space, page)
            swapIn(space, page)
        }
        for page in pages {
            let pte = space[page]
            if pte.state != .present || pte.armed { return .invalid }
            if pte.pins > 0 || pte.isMerged { return .again }
        }
        for page in pages { space[page].isHuge = true }
        note("collapse", first)
        return nil
    }

    /// Maps every huge page whose pages are all there as one.
    public func makeHuge(_ space: Space) {
        for page in 0..<space.pageCount where space.hugePage(of: page)?.lowerBound == page {
            _ = collapse(start: space.address(of: page))
        }
    }
}
