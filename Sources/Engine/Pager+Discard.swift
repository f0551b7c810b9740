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
            for page in part { markDiscarded(region, page) }
        }
    }

    /// Any thread, after the kernel dropped the range.
    public func endDiscard(_ region: Region, pages: Range<Int>) {
        forEachChunk(region, pages) { chunk, part in
            // What fills the hole has an age of its own, also where holes fill unnoticed.
            region.ages.forget(part)
            guard region.chunks.endDiscard(chunk) else { return }
            for page in part {
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

    private func forEachChunk(
        _ region: Region, _ pages: Range<Int>, _ body: (Int, Range<Int>) -> Void
    ) {
        precondition(pages.lowerBound >= 0 && pages.upperBound <= region.pageCount)
        guard !pages.isEmpty else { return }
        for chunk in region.chunk(of: pages.lowerBound)...region.chunk(of: pages.upperBound - 1) {
            body(chunk, pages.clamped(to: region.pages(ofChunk: chunk)))
        }
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
                let locator = Locator(payload: entry.payload)
                store.drop(locator)
                counters.stored(locator.tier, change: -1)
                counters.discardedPages.increment()
            case .staged:
                // The worker holds the contents and finds the entry changed.
                dropCopy(entry)
                counters.discardedPages.increment()
            case .arriving:
                // So does the fault server.
                counters.discardedPages.increment()
            case .poisoned where region.guard.isShared:
                // A hole punched into the file leaves the poison where it is.
                _ = kernel.zap(start: region.address(of: page), length: UInt64(pageSize))
            case .poisoned, .leaving, .wanted, .rescuing, .placing, .filling, .punching,
                .discarding:
                break
            }
            return
        }
    }
}
