import Kernel

extension Worker {
    /// Brings back what is in the store, a huge page at a time. Returns the pages asked for.
    func bringBack() -> Int {
        var wanted = 0
        for (slot, index) in pager.holdingPassLock({ allHugePages() }) {
            guard pager.settings.mode == .drain else { break }
            let runs = pager.holdingPassLock { storedRuns(slot, index) }
            // Without the lock: it may last for as long as the store cannot be read, and
            // a detach must not wait for that. A block that is gone by then has nothing
            // of ours to populate.
            for run in runs {
                _ = pager.kernel.populate(start: run.lowerBound, length: run.upperBound - run.lowerBound)
                wanted += Int(run.upperBound - run.lowerBound) / pageSize
            }
        }
        dropCopies()
        pager.store.trim()
        measureMetadata()
        return wanted
    }

    private func storedRuns(_ slot: Int, _ hugePage: Int) -> [Range<UInt64>] {
        guard let region = pager.regions[slot], hugePage < region.hugePageCount else { return [] }
        var runs: [Range<UInt64>] = []
        for page in region.pages(ofHugePage: hugePage) where region.table[page].state == .stored {
            let start = region.address(of: page)
            if let last = runs.last, last.upperBound == start {
                runs[runs.count - 1] = last.lowerBound..<start + UInt64(pageSize)
            } else {
                runs.append(start..<start + UInt64(pageSize))
            }
        }
        return runs
    }
}
