import Kernel

/// The host's own reclaim, of private memory: pages go to its swap, keep their arming, and
/// come back when they are touched.
extension SimulatedKernel {
    public func swapOut(_ space: Space, _ page: Int) {
        scheduler.step()
        guard space[page].state == .present, space[page].pins == 0, !space.isShared else { return }
        if space[page].isMerged { return }
        space.split(page)
        space[page].state = .swapped
        space[page].swappedAt = scheduler.now
        note("swap out", page)
    }

    /// All swap is taken away: its pages come back, untouched.
    public func swapOff(_ space: Space) {
        for page in 0..<space.pageCount where space[page].state == .swapped {
            scheduler.step()
            if space[page].state == .swapped { swapIn(space, page) }
        }
    }

    func swapIn(_ space: Space, _ page: Int) {
        space[page].state = .present
        note("swap in", page)
    }

    /// What the pager saw in the host's swap is left there. It may go there since.
    func requireNotKnownSwapped(_ space: Space, _ page: Int) {
        if space.isGuest, space[page].state == .swapped, space[page].swappedAt < space[page].scannedAt {
            scheduler.fail("page \(page) is taken out of the host's swap")
        }
    }
}
