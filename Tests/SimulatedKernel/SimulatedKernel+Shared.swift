import Kernel

/// Shared memory: pages are in a file, and mapped or not; the calls that tell the two apart.
extension SimulatedKernel {
    public func zap(start: UInt64, length: UInt64) -> Errno? {
        scheduler.step()
        let space = space(at: start)
        let pages = space.pages(start, length)
        if !space.isShared { scheduler.fail("private memory is zapped: its contents would be lost") }
        // The second mapping has no page table here.
        if space.viewContains(start) { return nil }
        // Not of poison: whoever locks memory so that it can't be zapped has it all present.
        let isPoisoned = pages.contains { space[$0].state == .poisoned }
        if !isPoisoned, strikes(\.zapFailure) { return .invalid }
        inPieces(pages) { page in
            if sabotage == .zapLeavesMapped { return }
            // A touch since the last scan is lost.
            if space[page].touchedAt > space[page].scannedAt { space[page].touchedAt = space[page].idleSince }
            space.unmap(page)
            if sabotage == .zapLosesContents { space.clear(page) }
        }
        note("zap", pages.lowerBound, pages.count)
        return nil
    }

    public func inCore(
        start: UInt64, length: UInt64, into cached: UnsafeMutableBufferPointer<UInt8>
    ) -> Errno? {
        scheduler.step()
        let space = space(at: start)
        let pages = space.pages(start, length)
        for (index, page) in pages.enumerated() {
            // A page may be swapped out when nobody has it mapped, and comes back by itself.
            let isSwapped = space[page].state != .present && strikes(\.swappedOut)
            cached[index] = space[page].cached && !isSwapped ? 1 : 0
        }
        note("in core", pages.lowerBound, pages.count)
        return nil
    }

    public func mapCached(_ target: UInt64) -> Placement {
        scheduler.step()
        let placement = continueAt(target)
        scheduler.step()
        return placement
    }

    private func continueAt(_ target: UInt64) -> Placement {
        let space = space(at: target)
        let page = space.pages(target, UInt64(pageSize)).lowerBound
        if strikes(\.placementBusy) { return .busy }
        guard space[page].missing, space.isShared else { return .failed(.noSuchEntry) }
        if strikes(\.placementFailure) { return .failed(.noMemory) }
        if space[page].state != .absent {
            onSettled(space, page)
            return .alreadyThere
        }
        if !space[page].cached { return .failed(.badAddress) }
        if sabotage == .continueMapsNothing { return .placed }
        space.fill(page)
        space[page].unpunched = false
        settle(space, page)
        return .placed
    }

    public func punch(start: UInt64, length: UInt64) -> Errno? {
        scheduler.step()
        let space = space(at: start)
        let pages = space.pages(start, length)
        if !space.viewContains(start) { scheduler.fail("a hole is punched where faults would be") }
        note("punch", pages.lowerBound, pages.count)
        if strikes(\.punchFailure) {
            for page in pages where space[page].cached { space[page].unpunched = true }
            return .notPermitted
        }
        inPieces(pages) { page in
            onLeaving(space, page)
            if sabotage == .punchDoesNothing { return }
            let stays = space[page].cached && strikes(\.punchOnlyErases)
            space.clear(page)
            space[page].cached = stays
            space[page].unpunched = stays
        }
        return nil
    }

    /// The kernel goes over page tables and files piece by piece.
    private func inPieces(_ pages: Range<Int>, _ body: (Int) -> Void) {
        var next = pages.lowerBound
        while next < pages.upperBound {
            let end = min(pages.upperBound, next + 1 + scheduler.random.below(64))
            for page in next..<end { body(page) }
            next = end
            scheduler.step()
        }
    }
}
