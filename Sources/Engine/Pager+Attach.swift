import Kernel

extension Pager {
    public enum AttachFailure: Error, Equatable {
        /// All of `RegionList.capacity` slots are taken.
        case tooManyBlocks
        case register(Errno)
    }

    /// Takes a block under management. Nothing may have been evicted from it, and no
    /// other userfaultfd may hold it. Control thread.
    public func attach(_ region: Region) throws(AttachFailure) {
        if let errno = watch(region, 0..<region.pageCount) {
            throw .register(errno)
        }
        // That proved that the range can be watched; watching starts chunk by chunk.
        if let errno = kernel.unregister(start: region.start, length: region.length) {
            throw .register(errno)
        }
        if tracking, let errno = kernel.track(start: region.start, length: region.length) {
            throw .register(errno)
        }
        guard withWorkerPaused({ regions.insert(region) }) else {
            _ = kernel.unregister(start: region.start, length: region.length)
            throw .tooManyBlocks
        }
        count(region, 1)
    }

    /// Gives a block up and drops what was evicted from it. The memory must be about
    /// to go: after this, evicted pages read as zeros. Waits for what is under way with its pages:
    /// a batch that the worker has in hand, and fetches. Control thread.
    public func detach(_ region: Region) {
        guard let removed = unsafe takeOffList(region) else {
            preconditionFailure("the block is not attached")
        }
        waitForServer()
        while region.fetchesInFlight.load(ordering: .acquiring) > 0 { kernel.pause() }
        _ = kernel.unregister(start: region.start, length: region.length)
        dropAll(region)
        count(region, -1)
        unsafe removed.release()
    }

    /// While the worker has none of its pages in hand: then none is in a short state but by the
    /// server.
    private func takeOffList(_ region: Region) -> Unmanaged<Region>? {
        unsafe withWorkerHeldBack {
            while true {
                let removed: Unmanaged<Region>?? = unsafe holdingPassLock {
                    let isInHand = region.inHand.load(ordering: .relaxed) > 0
                    return unsafe isInHand ? nil : .some(regions.remove(region))
                }
                if let removed = unsafe removed { return unsafe removed }
                kernel.pause()
            }
        }
    }

    private func count(_ region: Region, _ change: Int) {
        counters.attachedPages.add(change * region.pageCount, ordering: .relaxed)
        counters.blocks.add(change, ordering: .relaxed)
        if region.guard.isShared { counters.sharedBlocks.add(change, ordering: .relaxed) }
        if isZapped(region) { counters.zappedBlocks.add(change, ordering: .relaxed) }
    }

    /// Returns when the fault server no longer uses what it found in `regions`, or among the
    /// tiers, before.
    func waitForServer() {
        let epoch = serverEpoch.load(ordering: .sequentiallyConsistent)
        if epoch % 2 == 0 { return }
        while serverEpoch.load(ordering: .sequentiallyConsistent) == epoch { kernel.pause() }
    }

    private func dropAll(_ region: Region) {
        for chunk in 0..<region.chunks.count where region.chunks.isWatched(chunk) {
            for page in region.pages(ofChunk: chunk) {
                let entry = region.table[page]
                if entry.state == .resident { dropCopy(entry) }
                guard entry.state == .stored else { continue }
                let locator = Locator(payload: entry.payload)
                store.drop(locator)
                counters.stored(locator.tier, change: -1)
            }
        }
    }
}
