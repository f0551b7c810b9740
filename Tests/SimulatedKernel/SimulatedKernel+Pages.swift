import Kernel
import SeededRandom

/// The calls that put pages somewhere.
extension SimulatedKernel {
    public func move(from source: UInt64, to target: UInt64, length: UInt64) -> MoveResult {
        scheduler.step()
        let result = moveRun(from: source, to: target, length: length)
        note("move", Int(length) / pageSize, Int(result.moved) / pageSize)
        scheduler.step()
        return result
    }

    private func moveRun(from source: UInt64, to target: UInt64, length: UInt64) -> MoveResult {
        let from = space(at: source)
        let to = space(at: target)
        let sources = from.pages(source, length)
        let targets = to.pages(target, length)
        for page in targets where !to[page].missing { return MoveResult(moved: 0, stop: .failed(.invalid)) }
        if strikes(\.moveFailure) { return MoveResult(moved: 0, stop: .failed(.noMemory)) }
        var moved: UInt64 = 0
        var isCounting = true
        for (page, place) in zip(sources, targets) {
            if strikes(\.moveUncounted) { isCounting = false }
            if stuckMoves < Self.stuckMovesMax, strikes(\.moveStuck) {
                stuckMoves += 1
                // Or until whoever holds the page lets it go.
                let isLetGo = scheduler.random.chance(300)
                let end = isLetGo ? scheduler.now + scheduler.random.next() % 10_000_000 : .max
                scheduler.block(until: end) { [self] in
                    to[place].state != .absent || mischief.moveStuck == 0
                }
            }
            if let stop = obstacle(from, page, to, place) {
                // Linux says what stopped it only when nothing was moved before.
                return MoveResult(moved: moved, stop: moved > 0 ? .again : stop)
            }
            if from.isGuest { onLeaving(from, page) }
            requireNotKnownSwapped(from, page)
            moveOne(from, page, to, place)
            if isCounting { moved += UInt64(pageSize) }
        }
        // Linux looks at the same page once more, and finds a hole.
        if !isCounting { return MoveResult(moved: moved, stop: moved > 0 ? .again : .hole) }
        wakeSleepers(to, targets)
        return MoveResult(moved: moved, stop: .none)
    }

    private func obstacle(_ from: Space, _ page: Int, _ to: Space, _ place: Int) -> MoveStop? {
        if to[place].state != .absent { return .failed(.exists) }
        if from[page].state != .present, from[page].state != .swapped { return .hole }
        if from[page].isMerged { return .pinned }
        if from[page].pins > 0, sabotage != .moveIgnoresPins { return .pinned }
        return strikes(\.moveAgain) ? .again : nil
    }

    private func moveOne(_ from: Space, _ page: Int, _ to: Space, _ place: Int) {
        if sabotage != .moveLosesContents {
            to.memory(place).copyMemory(from: from.memory(page), byteCount: pageSize)
        }
        to[place].state = from[page].state
        to[place].armed = to[place].tracked
        to[place].version = from[page].version
        from.clear(page)
    }

    public func copy(from source: UnsafeRawPointer, to target: UInt64, length: UInt64) -> Placement {
        scheduler.step()
        let placement = place(at: target, length) { space, page in
            if sabotage == .copyPlacesNothing { return .absent }
            let offset = Int(space.address(of: page) - target)
            if sabotage == .hugePagesArriveInPart, offset > 0 { return .present }
            if sabotage != .copyPlacesZeros {
                requirePresent(source)
                space.memory(page).copyMemory(from: source + offset, byteCount: pageSize)
            }
            return .present
        }
        scheduler.step()
        return placement
    }

    public func zero(_ target: UInt64) -> Placement {
        scheduler.step()
        let placement =
            space(at: target).isHugetlb
            ? .failed(.invalid) : place(at: target, UInt64(pageSize)) { _, _ in .present }
        scheduler.step()
        return placement
    }

    public func poison(_ target: UInt64, length: UInt64) -> Placement {
        scheduler.step()
        // A mark in the page table: whether the file has the page does not matter.
        let placement = place(at: target, length, isPoison: true) { _, _ in
            poisoned += 1
            return .poisoned
        }
        scheduler.step()
        return placement
    }

    private func place(
        at target: UInt64, _ length: UInt64, isPoison: Bool = false, _ fill: (Space, Int) -> PTE.State
    ) -> Placement {
        let space = space(at: target)
        let pages = space.pages(target, length)
        let page = pages.lowerBound
        if !space.isWhole(pages) { return .failed(.invalid) }
        if strikes(\.placementBusy) { return .busy }
        guard space[page].missing else { return .failed(.noSuchEntry) }
        if strikes(\.placementFailure) { return .failed(.noMemory) }
        if space[page].state != .absent {
            onSettled(space, page)
            return .alreadyThere
        }
        if isPoison ? space[page].isMarked : space[page].cached { return .alreadyThere }
        // So says Linux when no huge page is free.
        if space.isHugetlb, !isPoison, strikes(\.poolEmpty) { return .alreadyThere }
        for page in pages {
            let state = fill(space, page)
            if state == .present { space.fill(page) } else { space[page].state = state }
        }
        settle(space, pages)
        return .placed
    }

    /// Pages are where they were wanted: their waiters are woken.
    func settle(_ space: Space, _ pages: Range<Int>) {
        for page in pages {
            space[page].armed = false
            space[page].touchedAt = scheduler.now
            onSettled(space, page)
        }
        if sabotage != .placementWakesNobody { wakeSleepers(space, pages) }
        note("place", pages.lowerBound, Int(space[pages.lowerBound].state.rawValue))
    }

    /// Reading a staging page that is gone would read zeros.
    private func requirePresent(_ source: UnsafeRawPointer) {
        let address = UInt64(UInt(bitPattern: source))
        guard let space = spaces.first(where: { $0.contains(address) }) else { return }
        let page = Int(address - space.start) / pageSize
        if !space.holds(page) { scheduler.fail("a page was copied out of empty staging") }
    }

    public func discard(start: UInt64, length: UInt64) -> Errno? {
        scheduler.step()
        let space = space(at: start)
        let pages = space.pages(start, length)
        if space.isShared { scheduler.fail("shared memory is discarded: it would stay in its file") }
        note("discard", pages.lowerBound, pages.count)
        let fails = strikes(\.discardFailure)
        let end = fails ? pages.lowerBound + scheduler.random.below(pages.count) : pages.upperBound
        for page in pages.lowerBound..<end where sabotage != .discardDoesNothing {
            onLeaving(space, page)
            space.clear(page)
        }
        scheduler.step()
        return fails ? .invalid : nil
    }

    public func release(start: UInt64, length: UInt64) {
        scheduler.step()
        let space = space(at: start)
        for page in space.pages(start, length) { space.clear(page) }
        note("release", Int(length) / pageSize)
    }
}
