import Kernel
import SeededRandom

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
        if !space.isWhole(pages) { scheduler.fail("a part of a huge page is zapped") }
        inPieces(space, pages) { page in
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
        if space.isHugetlb { scheduler.fail("mincore is asked about hugetlbfs, of which it knows nothing") }
        for (index, page) in pages.enumerated() {
            // A page may be swapped out when nobody has it mapped, and comes back by itself.
            let isSwapped = space[page].state != .present && strikes(\.swappedOut)
            cached[index] = space[page].cached && !isSwapped ? 1 : 0
        }
        note("in core", pages.lowerBound, pages.count)
        return nil
    }

    public func mapCached(_ target: UInt64, length: UInt64) -> Placement {
        scheduler.step()
        let placement = continueAt(target, length)
        scheduler.step()
        return placement
    }

    private func continueAt(_ target: UInt64, _ length: UInt64) -> Placement {
        let space = space(at: target)
        let pages = space.pages(target, length)
        let page = pages.lowerBound
        if !space.isWhole(pages) { return .failed(.invalid) }
        if strikes(\.placementBusy) { return .busy }
        guard space[page].missing, space.isShared else { return .failed(.noSuchEntry) }
        if strikes(\.placementFailure) { return .failed(.noMemory) }
        if space[page].state != .absent {
            onSettled(space, page)
            return .alreadyThere
        }
        if !space[page].cached { return .failed(.badAddress) }
        if sabotage == .continueMapsNothing { return .placed }
        for page in pages {
            space.fill(page)
            space[page].unpunched = false
        }
        settle(space, pages)
        return .placed
    }

    public func copyCached(from start: UInt64, length: UInt64, to buffer: UnsafeMutableRawPointer) {
        scheduler.step()
        let space = space(at: start)
        let pages = space.pages(start, length)
        if !space.viewContains(start) { scheduler.fail("a huge page is read where faults would be") }
        var next = pages.lowerBound
        while next < pages.upperBound {
            let end = min(pages.upperBound, next + 1 + scheduler.random.below(256))
            for page in next..<end {
                if !space[page].cached { scheduler.fail("a hole of hugetlbfs is read: page \(page)") }
                let isLost = sabotage == .hugePagesAreReadInPart && page > pages.lowerBound
                let target = buffer + (page - pages.lowerBound) * pageSize
                if isLost {
                    target.initializeMemory(as: UInt8.self, repeating: 0, count: pageSize)
                } else {
                    target.copyMemory(from: space.memory(page), byteCount: pageSize)
                }
            }
            next = end
            scheduler.step()
        }
    }

    public func fillView(start: UInt64, length: UInt64) -> Errno? {
        scheduler.step()
        let space = space(at: start)
        let pages = space.pages(start, length)
        if space[pages.lowerBound].cached { return nil }
        if strikes(\.poolEmpty) { return .badAddress }
        for page in pages { space[page].cached = true }
        note("fill view", pages.lowerBound)
        return nil
    }

    public func punch(start: UInt64, length: UInt64) -> Errno? {
        scheduler.step()
        let space = space(at: start)
        let pages = space.pages(start, length)
        if !space.viewContains(start) { scheduler.fail("a hole is punched where faults would be") }
        note("punch", pages.lowerBound, pages.count)
        if !space.isWhole(pages) { scheduler.fail("a part of a huge page is punched") }
        if strikes(\.punchFailure) {
            for page in pages where space[page].cached { space[page].unpunched = true }
            return .notPermitted
        }
        inPieces(space, pages) { page in
            onLeaving(space, page)
            if sabotage == .punchDoesNothing { return }
            let stays = space[page].cached && !space.isHugetlb && strikes(\.punchOnlyErases)
            space.clear(page)
            space[page].cached = stays
            space[page].unpunched = stays
        }
        return nil
    }

    /// The kernel goes over page tables and files piece by piece.
    func inPieces(_ space: Space, _ pages: Range<Int>, _ body: (Int) -> Void) {
        var next = pages.lowerBound
        while next < pages.upperBound {
            let last = min(pages.upperBound - 1, next + scheduler.random.below(64))
            let end = space.unit(of: last).upperBound
            for page in next..<end { body(page) }
            next = end
            scheduler.step()
        }
    }
}
