import Engine
import Kernel
import SeededRandom
import SimulatedKernel

/// Tiers that come and go, and demotion that does not mind who else is at a page: proof that
/// the checks would notice.
extension World {
    /// Somebody who cannot make up his mind about tiers.
    func changeTiers() {
        for _ in 0..<5 {
            pauseStorekeeper()
            let tiers = pager.store.tiers
            if scheduler.random.chance(500), let free = pager.freeTierIndex {
                let hasMemory = tiers.contains { if case .compressed = $0.backing { true } else { false } }
                let kind =
                    !hasMemory && scheduler.random.chance(500)
                    ? TierPlan.memory(pages: 24) : .disk(for: plan.pageCount, &scheduler.random)
                guard let tier = try? makeTier(kind, free) else {
                    scheduler.fail("no memory for the simulation")
                }
                // To open a device takes its time, in which others may be gone.
                if scheduler.random.chance(300) { pauseStorekeeper() }
                pager.addTier(tier, at: free)
                scheduler.trace.note("storekeeper", "adds", free.number)
            } else {
                let index = scheduler.random.pick(tiers).index
                let isRemoved = pager.removeTier(index) == nil
                scheduler.trace.note("storekeeper", isRemoved ? "removes" : "keeps", index.number)
            }
            isWorkerAwake = true
        }
        busyActors -= 1
    }

    private func pauseStorekeeper() {
        let time = scheduler.random.next() % (plan.scheduling.stepTimeMax * 100)
        scheduler.block(until: scheduler.now + time) { false }
    }

    func noteRemoved(_ tier: Tier<SimulatedKernel>) {
        scheduler.trace.note("worker", "tier is gone", tier.index.number)
        expect(pager.counters.pages(in: tier.index), 0, "pages of a tier that is gone")
        expect(tier.objectCount, 0, "objects of a tier that is gone")
        tiersRemoved += 1
        workOfRemovedTiers.demotions += tier.demotions.load(ordering: .relaxed)
        workOfRemovedTiers.rewritten += rewrittenBytes(tier)
    }

    func rewrittenBytes(_ tier: Tier<SimulatedKernel>) -> UInt64 {
        if case .log(let log) = tier.backing { log.rewrittenBytes.load(ordering: .relaxed) } else { 0 }
    }

    /// No disk did more than it may, but for one batch that began in time.
    func checkRates() {
        for disk in disks {
            check(disk.traffic.reads.load(ordering: .relaxed), plan.readLimits.transfers, batch: 130)
            check(disk.traffic.writes.load(ordering: .relaxed), plan.writeLimits.transfers, batch: 600)
            check(
                disk.traffic.writtenBytes.load(ordering: .relaxed), plan.writeLimits.bytes,
                batch: 600 * UInt64(pageSize))
        }
    }

    private func check(_ done: UInt64, _ rate: UInt64, batch: UInt64) {
        let seconds = scheduler.now / 1_000_000_000 + 2
        if rate > 0, done > rate * seconds + batch {
            scheduler.fail("\(done) were done in \(seconds) s, at a rate of \(rate)")
        }
    }

    /// Worker only.
    func demoteRecklessly() {
        switch kernel.sabotage {
        case .demotionDropsFirst, .demotionOverwritesEntries, .demotionLosesContents: break
        default: return
        }
        guard let buffer = try? Mapping(length: 3 * pageSize) else { return }
        for page in 0..<plan.pageCount { demoteRecklessly(page, buffer.base) }
    }

    private func demoteRecklessly(_ page: Int, _ memory: UnsafeMutableRawPointer) {
        let region = block.region
        let entry = region.table[page]
        let old = Locator(payload: entry.payload)
        guard entry.state == .stored, old.tier != .sameFilled, pager.store.tiers.count > 1 else { return }
        let identity = PageIdentity(block: region.serial, page: UInt32(page))
        let buffer = FetchBuffer(page: memory, raw: memory + pageSize)
        // A disk's answer would come to the fault server.
        guard case .compressed = pager.store.tier(old.tier)?.backing,
            case .ready = pager.store.get(old, identity, into: buffer, token: 0)
        else { return }
        if kernel.sabotage == .demotionLosesContents {
            memory.initializeMemory(as: UInt8.self, repeating: 0, count: pageSize)
        }
        let puts = [PagePut(address: UInt64(UInt(bitPattern: memory)), identity: identity)]
        var outcomes = [StoreOutcome.refused(.full)]
        puts.withUnsafeBufferPointer { puts in
            outcomes.withUnsafeMutableBufferPointer {
                pager.store.put(puts, outcomes: $0, below: old.tier, at: scheduler.now)
            }
        }
        guard case .stored(let new) = outcomes[0] else { return }
        scheduler.trace.note("worker", "demotes recklessly", page)
        let moved = entry.becoming(.stored, payload: new.payload)
        switch kernel.sabotage {
        case .demotionDropsFirst:
            // What has been dropped by others meanwhile is not ours to spoil.
            guard region.table[page] == entry else { return pager.store.drop(new) }
            reuse(old)
            for _ in 0..<4 { scheduler.step() }
            let isMoved = region.table.exchange(page, from: entry, to: moved)
            pager.store.drop(isMoved ? old : new)
        case .demotionOverwritesEntries: overwrite(page, from: entry, to: moved)
        default:
            let isMoved = region.table.exchange(page, from: entry, to: moved)
            pager.store.drop(isMoved ? old : new)
        }
    }

    /// What would become of a place that was dropped. Not dropped in fact: to drop it once more
    /// would end the process.
    private func reuse(_ locator: Locator) {
        guard case .compressed(let store) = pager.store.tier(locator.tier)?.backing else { return }
        store.pool.data(locator.place).initializeMemory(as: UInt8.self, repeating: 0)
    }

    /// The entry names the new place, whatever it named meanwhile.
    private func overwrite(_ page: Int, from entry: PageEntry, to moved: PageEntry) {
        for _ in 0..<4 { scheduler.step() }
        while true {
            let now = block.region.table[page]
            // That the pager would notice by itself, and end the process.
            guard !now.state.isShort, now.state != .discarding else { return }
            guard block.region.table.exchange(page, from: now, to: moved) else { continue }
            if now == entry { pager.store.drop(Locator(payload: entry.payload)) }
            return
        }
    }
}
