import Kernel

/// Huge pages of hugetlbfs leave and come back whole: the kernel maps, unmaps and frees
/// nothing less. Their contents are in the store page by page.
///
/// The entry of a huge page's first page, its head, speaks for all 512: state, generation, and
/// the place of the first. The others' entries say where their contents are while the head is
/// `stored`, and are `stored` themselves then: a compaction may change them like those of other
/// pages. So whoever takes the head from `stored` takes them one by one before he looks where
/// they are: the fault server to `arriving`, a discard to `resident`. Everything else is a plain
/// store of whoever has the head in a state that only he leaves. The fault server alone gives
/// up the parts of a huge page that was discarded while it was `arriving`; until it has, the
/// worker leaves that huge page alone (`Pager.wholeInHand`).
extension Pager {
    /// Takes the parts of a huge page from `stored`, for whoever took its head from there,
    /// `entry` being what that was; says where they are.
    func takeParts(
        of region: Region, _ head: Int, _ entry: PageEntry, to state: PageState, _ body: (Locator) -> Void
    ) {
        body(Locator(payload: entry.payload))
        for page in region.unit(of: head).dropFirst() {
            while true {
                let part = region.table[page]
                precondition(part.state == .stored, "a huge page was stored in part")
                let payload = state == .resident ? 0 : part.payload
                guard region.table.exchange(page, from: part, to: part.becoming(state, payload: payload))
                else { continue }
                body(Locator(payload: part.payload))
                break
            }
        }
    }

    /// The parts have no contents of their own any more: the head says where they are.
    func clearParts(_ region: Region, _ head: Int) {
        for page in region.unit(of: head).dropFirst() {
            region.table.replace(page, by: region.table[page].becoming(.resident, payload: 0))
        }
    }

    /// The parts, taken to `arriving`, stay in the store.
    func returnParts(_ region: Region, _ head: Int) {
        for page in region.unit(of: head).dropFirst() {
            region.table.replace(page, by: region.table[page].becoming(.stored))
        }
    }

    /// Drops a huge page, which a discard took from `stored`, from the store.
    func dropParts(_ region: Region, _ head: Int, _ entry: PageEntry) {
        takeParts(of: region, head, entry, to: .resident) {
            store.drop($0)
            counters.stored($0.tier, change: -1)
        }
    }

    /// Puts a huge page into the guest, and wakes whoever waits for it. Without `contents` it
    /// is a hole, and will hold zeros.
    ///
    /// Linux answers EEXIST not only when the huge page is in its file, because it could not be
    /// freed, but also when none is free (hugetlb_mfill_atomic_pte): then the fault must wait.
    func placeWhole(_ contents: UnsafeRawPointer, _ region: Region, _ head: Int, isHole: Bool) -> Placement {
        let address = region.address(of: head)
        var placement = Placement.busy
        while placement == .busy {
            placement = unsafe kernel.copy(from: contents, to: address, length: region.unitLength)
            if placement == .busy { kernel.pause() }
        }
        guard placement == .alreadyThere else { return placement }
        // In the state that it is in, nobody maps it, and nobody takes it out of its file.
        let view = region.viewAddress(of: head)
        if let errno = kernel.fillView(start: view, length: region.unitLength) {
            return .failed(errno == .badAddress ? .noMemory : errno)
        }
        if !isHole {
            unsafe UnsafeMutableRawPointer(bitPattern: UInt(view))!.copyMemory(
                from: contents, byteCount: Int(region.unitLength))
        }
        let mapped = map(region, head)
        // It stays in the store: not to be paid for twice until the next try.
        if !isHole, case .failed = mapped { _ = kernel.punch(start: view, length: region.unitLength) }
        return mapped
    }
}
