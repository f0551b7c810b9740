import Kernel

extension Pager {
    /// Once everything is back in the guest, gives back the memory that told where it had been.
    /// Worker thread, with nothing in hand, under the pass lock.
    ///
    /// The generations of the pages begin anew then, so no read for an earlier stay may be under
    /// way. Only the worker makes pages `stored`: once none is, and the fault server has
    /// done what it had begun, no read can begin, and those under way are counted.
    func forgetStays() {
        guard counters.evictedPages == 0 else { return }
        regions.forEach { region in
            // As a rule nothing ever left, or all has been given back.
            guard region.table.residentBytes > 0 else { return }
            waitForServer()
            // A read that fails puts its page back before it counts as finished.
            guard region.fetchesInFlight.load(ordering: .acquiring) == 0, counters.evictedPages == 0
            else { return }
            region.table.trim()
        }
    }
}
