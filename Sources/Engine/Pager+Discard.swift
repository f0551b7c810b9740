import Kernel

/// A discard: the guest gave memory back. It wins over whatever is in flight, and
/// waits for nothing but a system call under way. Between begin and end the page
/// has no contents and an access to it waits, so contents from before the begin can
/// never reappear after the end.
extension Pager {
    /// Any thread. The range may not overlap another open discard of the block.
    public func beginDiscard(_ region: Region, pages: Range<Int>) {
        forEachChunk(region, pages) { chunk, part in
            guard region.chunks.beginDiscard(chunk) else { return }
            for head in heads(region, part) { markDiscarded(region, head) }
        }
    }

    /// Any thread, after the kernel dropped the range.
    public func endDiscard(_ region: Region, pages: Range<Int>) {
        forEachChunk(region, pages) { chunk, part in
            // What fills the hole has an age of its own, also where holes fill unnoticed.
            region.ages.forget(part)
            if tracking, region.guard.leavesWhole { removeMarks(region, part) }
            guard region.chunks.endDiscard(chunk) else { return }
            for page in heads(region, part) {
                let entry = region.table[page]
                precondition(entry.state == .discarding, "a discard ended that never began")
                let changed = transition(region, page, from: entry, to: entry.becoming(.resident, payload: 0))
                precondition(changed, "only its own end leaves the discarding state")
            }
            // An access in between was left waiting; now it finds a hole.
            kernel.wake(
                start: region.address(of: part.lowerBound), length: UInt64(part.count * pageSize))
        }
    }

    /// An armed huge page of hugetlbfs leaves a mark in the page table when it is unmapped. Where
    /// holes do not fault to us, Linux fills one over the mark with a page that looks armed, on
    /// which reads go unnoticed, and writes fault for ever without a message
    /// (`hugetlb_no_page`, `hugetlb_wp`). Disarming removes the mark, and mends such a page.
    private func removeMarks(_ region: Region, _ pages: Range<Int>) {
        let start = region.address(of: pages.lowerBound)
        let length = UInt64(pages.count * pageSize)
        var tries = 0
        while true {
            switch kernel.disarm(start: start, length: length) {
            case .placed, .alreadyThere: return
            case .busy: break
            case .failed(let errno):
                tries += 1
                guard tries < Self.disarmsMax else {
                    return host.log(
                        .warning, "\(region.name): cannot disarm discarded memory (\(errno.text))")
                }
            }
            kernel.pause()
        }
    }

    private static var disarmsMax: Int { 100 }

    /// The pages whose entries speak for a range.
    private func heads(_ region: Region, _ pages: Range<Int>) -> StrideTo<Int> {
        precondition(
            pages.lowerBound % region.unitPages == 0 && pages.count % region.unitPages == 0,
            "a part of a huge page cannot be discarded")
        return stride(from: pages.lowerBound, to: pages.upperBound, by: region.unitPages)
    }

    private func forEachChunk(
        _ region: Region, _ pages: Range<Int>, _ body: (Int, Range<Int>) -> Void
    ) {
        precondition(pages.lowerBound >= 0 && pages.upperBound <= region.pageCount)
        guard !pages.isEmpty else { return }
        for chunk in region.chunk(of: pages.lowerBound)...region.chunk(of: pages.upperBound - 1) {
            body(chunk, pages.clamped(to: region.pages(ofChunk: chunk)))
        }
    }

    private func dropStored(_ region: Region, _ page: Int, _ entry: PageEntry) {
        if region.guard.leavesWhole { return dropParts(region, page, entry) }
        let locator = Locator(payload: entry.payload)
        store.drop(locator)
        counters.stored(locator.tier, change: -1)
    }

    private func markDiscarded(_ region: Region, _ page: Int) {
        while true {
            let entry = region.table[page]
            if entry.state.isShort {
                kernel.pause()
                continue
            }
            precondition(entry.state != .discarding, "two discards of one page at a time")
            let discarding = entry.becoming(.discarding, payload: 0)
            guard transition(region, page, from: entry, to: discarding) else { continue }
            switch entry.state {
            case .resident:
                dropCopy(entry)
            case .stored:
                dropStored(region, page, entry)
                counters.discardedPages.increment(by: UInt64(region.unitPages))
            case .staged:
                // The worker holds the contents and finds the entry changed.
                dropCopy(entry)
                counters.discardedPages.increment(by: UInt64(region.unitPages))
            case .arriving:
                // So does the fault server.
                counters.discardedPages.increment(by: UInt64(region.unitPages))
            case .poisoned where region.guard.isShared:
                // A hole punched into the file leaves the poison where it is.
                _ = kernel.zap(start: region.address(of: page), length: region.unitLength)
            case .poisoned, .leaving, .wanted, .rescuing, .placing, .filling, .punching,
                .discarding:
                break
            }
            return
        }
    }
}
