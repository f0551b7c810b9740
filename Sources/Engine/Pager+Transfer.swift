import Kernel

/// Transfers that go past the guest's page tables: device I/O of the host program, or of
/// the kernel for it, which looks memory up once and then goes on using it. Any thread.
extension Pager {
    /// No page in the range leaves from now on, until `endTransfer`.
    public func beginTransfer(_ region: Region, pages: Range<Int>) {
        guard let hugePages = hugePages(region, pages) else { return }
        region.transfers.begin(hugePages)
        // Pages that the worker is taking at this moment: once they are gone, looking
        // them up faults, and the fault brings them back to stay.
        while let leaving = leavingHugePage(of: region), hugePages.contains(leaving) {
            kernel.pause()
        }
    }

    public func endTransfer(_ region: Region, pages: Range<Int>) {
        guard let hugePages = hugePages(region, pages) else { return }
        if region.transfers.end(hugePages) { return }
        if unmatchedTransfer.exchange(true, ordering: .relaxed) { return }
        host.log(
            .warning,
            "\(region.name): a device gave back memory that it had not taken; what it uses "
                + "may be evicted meanwhile")
    }

    private func hugePages(_ region: Region, _ pages: Range<Int>) -> ClosedRange<Int>? {
        precondition(pages.lowerBound >= 0 && pages.upperBound <= region.pageCount)
        guard let last = pages.last else { return nil }
        return region.hugePage(of: pages.lowerBound)...region.hugePage(of: last)
    }

    private func leavingHugePage(of region: Region) -> Int? {
        let address = leavingFrom.load(ordering: .sequentiallyConsistent)
        guard address != 0, region.contains(address) else { return nil }
        return region.hugePage(at: address)
    }
}
