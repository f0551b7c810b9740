import Kernel

/// Huge pages of hugetlbfs on their way out: all of one, or nothing. Worker thread only.
///
/// The head is `leaving` while its huge page is unmapped from the guest and copied out. An
/// access in between waits, and so does a discard, so the huge page is in its file
/// throughout: reading a hole through the second mapping would take a huge page from the
/// pool, or end the process. From then on the copy is what the store gets, and an access, which
/// is a minor fault, has the huge page mapped again as it is.
extension Evictor {
    /// Evicts the huge page whose first page is `head`, if it can be; it is watched for faults.
    /// `evenTouched`: even if it was touched since the last look. Returns how many pages went to the store.
    func evictWhole(_ region: Region, _ head: Int, evenTouched: Bool) -> Int {
        guard let buffer = makeWholeBuffer() else { return 0 }
        batch.removeAll()
        var isTaken = false
        unlessTransferring(region, head) {
            isTaken = takeWhole(region, head, buffer, evenTouched: evenTouched)
        }
        guard isTaken else { return 0 }
        let isStored = storeWhole(region, head, buffer)
        let isCommitted = isStored && commitWhole(region, head)
        if !isCommitted { dropPut() }
        waitUntilSettled(region, head)
        pager.counters.stagedPages.subtract(region.unitPages, ordering: .relaxed)
        return isCommitted ? region.unitPages : 0
    }

    private func makeWholeBuffer() -> WholeBuffer? {
        if wholeBuffer == nil { wholeBuffer = try? WholeBuffer() }
        return wholeBuffer
    }

    /// True when the huge page is, or was, `staged`: it does not count as resident.
    private func takeWhole(
        _ region: Region, _ head: Int, _ buffer: WholeBuffer, evenTouched: Bool
    ) -> Bool {
        let entry = region.table[head]
        guard entry.state == .resident else { return false }
        let leaving = PageEntry(.leaving, generation: entry.generation &+ 1, payload: 0)
        guard pager.transition(region, head, from: entry, to: leaving) else { return false }
        claimedAt = pager.kernel.now()
        let start = region.address(of: head)
        // What is mapped is in its file, and stays there while it is `leaving`.
        guard pager.wholeInHand.load(ordering: .sequentiallyConsistent) != start,
            isMapped(region, head, evenTouched: evenTouched),
            pager.kernel.zap(start: start, length: region.unitLength) == nil
        else {
            settleLeft(region, head)
            return false
        }
        unsafe pager.kernel.copyCached(
            from: region.viewAddress(of: head), length: region.unitLength, to: buffer.mapping.base)
        pager.counters.residentPages.subtract(region.unitPages, ordering: .relaxed)
        pager.counters.stagedPages.add(region.unitPages, ordering: .relaxed)
        if pager.transition(region, head, from: leaving, to: leaving.becoming(.staged)) { return true }
        rescueWanted(region, head)
        return true
    }

    /// An access came while it was `leaving`.
    private func rescueWanted(_ region: Region, _ head: Int) {
        defer { noteHeldUp() }
        let wanted = region.table[head]
        precondition(wanted.state == .wanted, "a leaving page was taken by another thread")
        let staged = wanted.becoming(.staged)
        pager.settle(region, head, from: wanted, to: staged)
        switch pager.rescue(region, head, from: staged) {
        case .rescued: pager.counters.rescues.increment(by: UInt64(region.unitPages))
        case .overtaken: break
        case .failed: pager.kernel.wake(start: region.address(of: head), length: region.unitLength)
        }
    }

    private func isMapped(_ region: Region, _ head: Int, evenTouched: Bool) -> Bool {
        var isMapped = false
        let start = region.address(of: head)
        let errno = pager.forEachRun(from: start, to: start + region.unitLength) { run in
            // An unmapped huge page may leave a mark that looks like swap.
            isMapped = !run.isSwapped && (evenTouched || !run.touched)
            return false
        }
        return errno == nil && isMapped
    }

    /// Pages that are put at a time. An access to the huge page in the meantime is likely, where
    /// it is a limit that makes it leave: then the rest is not compressed in vain.
    private static var pagesPerPut: Int { 128 }

    /// Puts the copy into the store, page by page. True when it has all of them; otherwise the
    /// huge page goes back, and `dropPut` must follow.
    private func storeWhole(_ region: Region, _ head: Int, _ buffer: WholeBuffer) -> Bool {
        for first in stride(from: 0, to: region.unitPages, by: Self.pagesPerPut) {
            guard region.table[head].state == .staged,
                storePart(region, head, buffer, first..<first + Self.pagesPerPut)
            else { return false }
        }
        return true
    }

    private func storePart(
        _ region: Region, _ head: Int, _ buffer: WholeBuffer, _ part: Range<Int>
    ) -> Bool {
        batch.toStore.removeAll(keepingCapacity: true)
        batch.puts.removeAll(keepingCapacity: true)
        for index in part {
            let contents = unsafe buffer.contents(of: index)
            let word = unsafe sameFilledWord(contents).flatMap { pager.store.words.put($0) }
            batch.locators.append(word.map { Locator(tier: .sameFilled, place: $0) })
            guard word == nil else { continue }
            batch.toStore.append(index)
            batch.puts.append(
                PagePut(
                    address: UInt64(UInt(bitPattern: contents)), identity: region.identity(of: head + index)))
        }
        guard !batch.toStore.isEmpty else { return true }
        logCompactor.makeRoom(for: batch.toStore.count, in: pager)
        batch.beginPut(into: pager)
        batch.endPut(into: pager)
        return settlePut(region, head)
    }

    private func settlePut(_ region: Region, _ head: Int) -> Bool {
        noteAnswers(region)
        var hasFailed = false
        var isIncompressible = false
        for (position, index) in batch.toStore.enumerated() {
            switch batch.outcomes[position] {
            case .stored(let locator): batch.locators[index] = locator
            case .refused(.incompressible): isIncompressible = true
            case .refused(.full), .refused(.failed): hasFailed = true
            case .refused(.notNow): break
            }
        }
        if hasFailed { pager.counters.writeErrors.increment() }
        guard batch.locators.contains(nil) else { return true }
        giveBackWhole(region, head)
        // Not worth another try before it is touched.
        if !hasFailed, isIncompressible { keepWhole(region, head) }
        return false
    }

    private func giveBackWhole(_ region: Region, _ head: Int) {
        let entry = region.table[head]
        guard entry.state == .staged, case .rescued = pager.rescue(region, head, from: entry) else { return }
        pager.counters.returnedPages.increment(by: UInt64(region.unitPages))
    }

    private func keepWhole(_ region: Region, _ head: Int) {
        guard region.table[head].state == .resident, pager.tracking else { return }
        let errno = pager.kernel.arm(start: region.address(of: head), length: region.unitLength)
        if errno == nil { pager.setAge(region, head, AgeMap.kept) }
    }

    /// The store has the huge page: takes it out of its file. False when it was rescued or
    /// discarded meanwhile.
    private func commitWhole(_ region: Region, _ head: Int) -> Bool {
        let entry = region.table[head]
        guard entry.state == .staged, let first = batch.locators[0] else { return false }
        let punching = entry.becoming(.punching, payload: first.payload)
        guard pager.transition(region, head, from: entry, to: punching) else { return false }
        for (index, locator) in batch.locators.enumerated() {
            guard let locator else { preconditionFailure("a huge page was stored in part") }
            pager.counters.stored(locator.tier, change: 1)
            guard index > 0 else { continue }
            region.table.replace(
                head + index,
                by: PageEntry(.stored, generation: entry.generation, payload: locator.payload))
        }
        pager.counters.evictions.increment(by: UInt64(region.unitPages))
        pager.setAge(region, head, AgeMap.absent)
        let view = region.viewAddress(of: head)
        // One that stayed in its file costs memory, and is overwritten when it is fetched.
        if let errno = pager.kernel.punch(start: view, length: region.unitLength) {
            pager.unfreed(region, errno)
        }
        pager.settle(region, head, from: punching, to: punching.becoming(.stored))
        pager.kernel.wake(start: region.address(of: head), length: region.unitLength)
        return true
    }

    /// Drops what the store has of a huge page that stays.
    private func dropPut() {
        for case let locator? in batch.locators { pager.store.drop(locator) }
    }

    private func waitUntilSettled(_ region: Region, _ head: Int) {
        while region.table[head].state == .rescuing || region.table[head].state == .staged {
            if region.table[head].state == .staged { giveBackWhole(region, head) }
            pager.kernel.pause()
        }
    }
}

/// A private copy of a huge page.
@safe final class WholeBuffer: @unchecked Sendable {
    let mapping: Mapping

    init() throws(Errno) { mapping = try Mapping(length: hugePageSize) }

    /// Gives its memory back, until it is used again.
    func release() { mapping.release(offset: 0, length: mapping.length) }

    @inline(__always)
    func contents(of page: Int) -> UnsafeMutableRawPointer { unsafe mapping.base + page * pageSize }
}
