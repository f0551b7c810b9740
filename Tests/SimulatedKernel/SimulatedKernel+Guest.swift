import Kernel
import SeededRandom

/// A guest's own accesses and calls.
extension SimulatedKernel {
    public enum Access: Sendable { case done, machineCheck }

    /// A vCPU's access of a whole page. Sleeps while the page is missing; then `body`
    /// runs with the page there, before anybody else does anything.
    public func access(
        _ space: Space, _ page: Int, isWrite: Bool, _ body: () -> Void
    ) -> Access {
        scheduler.step()
        while true {
            switch space[page].state {
            case .present:
                if let kind = obstacle(space, page, isWrite: isWrite) {
                    sleep(Sleeper(space, page, kind, isWrite: isWrite))
                    continue
                }
                if space[page].isStale {
                    if isWrite {
                        faultForever(space, page)
                        continue
                    }
                    for page in space.unit(of: page) { space[page].touchedAt = scheduler.now }
                    body()
                    return .done
                }
                // Reads leave a page that is protected against writes as it is.
                if protection == .readWrite || isWrite { space.touch(page, at: scheduler.now) }
                if isWrite { space[page].isMerged = false }
                body()
                return .done
            case .swapped:
                swapIn(space, page)
            case .poisoned:
                return .machineCheck
            case .absent where !space[page].missing:
                space.fillUnit(of: page)
            case .absent:
                let kind: FaultKind = space[page].cached ? .minor : .missing
                sleep(Sleeper(space, space.unit(of: page).lowerBound, kind, isWrite: isWrite))
            }
        }
    }

    /// A write to a page that Linux filled over a mark repeats until somebody mends that.
    private func faultForever(_ space: Space, _ page: Int) {
        note("faults on", page)
        let last = scheduler.steps + 20_000
        let scheduler = scheduler
        scheduler.block { !space[page].isStale || scheduler.steps > last }
        if space[page].isStale { scheduler.fail("a write to page \(page) does not end") }
    }

    private func sleep(_ sleeper: Sleeper) {
        note("sleeps", sleeper.page)
        sleepers.append(sleeper)
        let scheduler = scheduler
        var signalAt = UInt64.max
        if strikes(\.signal) { signalAt = scheduler.now + scheduler.random.next() % 50_000_000 }
        scheduler.block(until: signalAt) { sleeper.isAwake }
        if !sleeper.isAwake {
            sleepers.removeAll { $0 === sleeper }
            note("signalled", sleeper.page)
        }
    }

    /// Fills pages of a guest that runs without a pager yet.
    public func populate(_ space: Space, _ page: Int, _ body: () -> Void) {
        if space[page].state == .absent {
            for page in space.unit(of: page) { space.fill(page) }
        }
        for page in space.unit(of: page) { space[page].touchedAt = scheduler.now }
        body()
    }

    /// The host program drops a range (MADV_DONTNEED, for shared memory MADV_REMOVE), pins
    /// or no pins. Not atomic: the kernel zaps page tables piece by piece.
    public func drop(_ space: Space, _ pages: Range<Int>) {
        var next = pages.lowerBound
        while next < pages.upperBound {
            scheduler.step()
            let last = min(pages.upperBound - 1, next + scheduler.random.below(64))
            let end = space.unit(of: last).upperBound
            for page in next..<end {
                // Hugetlbfs takes poison along.
                let isPoisoned = space[page].state == .poisoned && !space.isHugetlb
                space.clear(page)
                // A hole in the file does not take poison out of the page table.
                if isPoisoned, space.isShared { space[page].state = .poisoned }
                space[page].pins = 0
                space[page].version = 0
                onSettled(space, page)
            }
            note("drop", next, end - next)
            next = end
        }
    }
}
