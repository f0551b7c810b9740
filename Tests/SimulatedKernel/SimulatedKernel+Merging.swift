import Kernel

/// Same-page merging (KSM), of private memory: a merged page is not armed any more, and
/// cannot be moved.
extension SimulatedKernel {
    public func merge(_ space: Space, _ page: Int) {
        scheduler.step()
        guard space[page].state == .present, space[page].pins == 0, !space.isShared else { return }
        space.split(page)
        space[page].isMerged = true
        space[page].armed = false
        note("merge", page)
    }

    public func isMerged(_ address: UInt64) -> Bool {
        scheduler.step()
        let space = space(at: address)
        return space[space.pages(address, UInt64(pageSize)).lowerBound].isMerged
    }
}
