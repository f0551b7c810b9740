import Kernel
import SeededRandom

/// Arming, scanning, and accesses to armed pages that wait.
extension SimulatedKernel {
    public func arm(start: UInt64, length: UInt64) -> Errno? {
        scheduler.step()
        let space = space(at: start)
        let pages = space.pages(start, length)
        if strikes(\.armFailure) { return .again }
        if !space.isWhole(pages) { return .invalid }
        for page in pages where !space[page].tracked { return .noSuchEntry }
        for page in pages where space[page].isHuge {
            if let whole = space.hugePage(of: page), whole != whole.clamped(to: pages) { space.split(page) }
        }
        for page in pages where space[page].state == .present || space[page].state == .swapped {
            if sabotage == .armingDropsPages, !space.isShared { space.clear(page) }
            // There is no atomic scan-and-arm: a touch since the scan goes unnoticed.
            if space[page].touchedAt > space[page].scannedAt { space[page].touchedAt = space[page].idleSince }
            space[page].armed = true
            space[page].isStale = false
        }
        note("arm", pages.lowerBound, pages.count)
        return nil
    }

    public func scan(
        start: UInt64, end: UInt64, tracked: Bool, into runs: UnsafeMutableBufferPointer<ScanRun>
    ) -> ScanResult {
        scheduler.step()
        let space = space(at: start)
        vanish(space)
        let capacity = strikes(\.shortScan) ? 1 : runs.count
        var count = 0
        for page in space.pages(start, end - start) {
            // What is not mapped was not touched, which is news as well.
            space[page].idleSince = space[page].touchedAt
            space[page].scannedAt = scheduler.now
            space[page].wasThere = space[page].state != .absent || space[page].cached
            guard space[page].state != .absent || space[page].isMarked else { continue }
            // The kernel does not tell a mark in the page table from a place in its swap.
            let isSwapped = space[page].state != .present
            let touched =
                tracked && space[page].tracked && !space[page].armed && sabotage != .scanMissesTouches
            let isHuge = space[page].isHuge
            let address = space.address(of: page)
            if count > 0,
                runs[count - 1].end == address && runs[count - 1].touched == touched
                    && runs[count - 1].isHuge == isHuge && runs[count - 1].isSwapped == isSwapped
            {
                runs[count - 1].end = address + UInt64(pageSize)
                continue
            }
            if count == capacity { return .runs(count: count, walkedTo: runs[count - 1].end) }
            runs[count] = ScanRun(
                start: address, end: address + UInt64(pageSize), touched: touched, isHuge: isHuge,
                isSwapped: isSwapped)
            count += 1
        }
        note("scan", count)
        return .runs(count: count, walkedTo: end)
    }

    public func disarm(start: UInt64, length: UInt64) -> Placement {
        scheduler.step()
        let space = space(at: start)
        let pages = space.pages(start, length)
        if strikes(\.placementBusy) { return .busy }
        if strikes(\.placementFailure) { return .failed(.noMemory) }
        for page in pages where !space[page].tracked { return .failed(.noSuchEntry) }
        if !space.isWhole(pages) { return .failed(.invalid) }
        for page in pages {
            if !space.isHugetlb { space.split(page) }
            space[page].armed = false
            space[page].isMarked = false
            space[page].isStale = false
            // Whoever waited for that faults again, if it is not all that stops it.
            onSettled(space, page)
        }
        if sabotage != .disarmingWakesNobody { wakeSleepers(space, pages) }
        note("disarm", pages.lowerBound, pages.count)
        scheduler.step()
        return .placed
    }

    public func setSynchronous(_ isSynchronous: Bool) -> Errno? {
        scheduler.step()
        if protection == .write { scheduler.fail("a mode is switched that cannot be") }
        if strikes(\.modeFailure) { return .noMemory }
        note("mode", isSynchronous ? 1 : 0)
        if !isSynchronous {
            // All who wait for anything are woken, and fault again.
            for sleeper in sleepers {
                if sabotage == .modeLosesWaiters { sleeper.isReported = true } else { sleeper.isAwake = true }
            }
            sleepers.removeAll(where: \.isAwake)
        }
        if sabotage != .modeStaysAsynchronous { self.isSynchronous = isSynchronous }
        scheduler.step()
        return nil
    }

    /// Why an access to a present page waits, if it does.
    func obstacle(_ space: Space, _ page: Int, isWrite: Bool) -> FaultKind? {
        guard isSynchronous, space[page].armed else { return nil }
        switch protection {
        case .readWrite: return .readWriteProtected
        case .write: return isWrite && sabotage != .writesPassProtection ? .writeProtected : nil
        }
    }

    /// The host takes a page of shared memory out of the guest's page table, to swap it out
    /// say. Whether it had been touched is forgotten.
    private func vanish(_ space: Space) {
        guard space.isShared, !space.isHugetlb, strikes(\.vanishes) else { return }
        let page = scheduler.random.below(space.pageCount)
        guard space[page].state == .present, space[page].missing, space[page].pins == 0 else { return }
        if space[page].touchedAt > space[page].scannedAt { space[page].touchedAt = space[page].idleSince }
        space.unmap(page)
        note("vanish", page)
    }

    /// The pager would wait for itself.
    func checkOwnRead(_ memory: UInt64, _ length: Int) {
        guard let space = spaces.first(where: { $0.contains(memory) }) else { return }
        for page in space.pages(memory, UInt64(length)) where obstacle(space, page, isWrite: false) != nil {
            scheduler.fail("the pager reads page \(page), which it froze")
        }
    }
}
