import Engine
import Kernel
import SimulatedKernel

/// Compaction that does not mind who else is at a page: proof that the checks would notice.
extension World {
    private var isReckless: Bool {
        switch kernel.sabotage {
        case .compactionOverwritesEntries, .compactionTellsTooEarly: true
        default: false
        }
    }

    /// For the worker: where compaction is reckless, the pager's own never begins.
    var compactionLimits: CompactionLimits {
        var limits = plan.compaction
        if isReckless { limits.gainMin = .max }
        return limits
    }

    /// Worker only.
    func compactRecklessly() {
        if kernel.sabotage == .relocationOverwritesEntries { return relocateRecklessly() }
        guard isReckless, case .compressed(let store) = pager.store.tier(TierIndex(1))?.backing,
            store.compaction.begin(gainMin: 1)
        else { return }
        for page in 0..<plan.pageCount { moveRecklessly(page, store) }
        store.compaction.end()
    }

    /// What the log's compaction does, but for the comparing.
    private func relocateRecklessly() {
        guard case .log(let log) = pager.store.tier(TierIndex(1))?.backing, log.chooseVictims() else {
            return
        }
        defer { log.endCompaction() }
        let region = block.region
        for page in 0..<plan.pageCount {
            let entry = region.table[page]
            let old = Locator(payload: entry.payload)
            guard entry.state == .stored, old.tier == TierIndex(1), log.isVictim(old.place) else { continue }
            var relocations = [
                Relocation(
                    place: old.place, identity: PageIdentity(block: region.serial, page: UInt32(page)))
            ]
            log.relocate(&relocations)
            guard case .stored(let place) = relocations[0].outcome else { continue }
            scheduler.trace.note("worker", "relocates recklessly", page)
            let moved = entry.becoming(.stored, payload: Locator(tier: old.tier, place: place).payload)
            overwrite(page, from: entry, to: moved) { log.drop(old.place) }
        }
    }

    private func moveRecklessly(_ page: Int, _ store: CompressedStore) {
        let region = block.region
        let entry = region.table[page]
        guard entry.state == .stored else { return }
        let old = Locator(payload: entry.payload)
        guard old.tier == TierIndex(1), store.compaction.concerns(old.place),
            let place = store.compaction.copy(old.place)
        else { return }
        scheduler.trace.note("worker", "moves recklessly", page)
        let moved = entry.becoming(
            .stored, payload: Locator(tier: old.tier, place: place).payload)
        if kernel.sabotage == .compactionTellsTooEarly {
            tellTooEarly(page, from: entry, to: moved, store)
        } else {
            overwrite(page, from: entry, to: moved) { store.drop(old.place) }
        }
    }

    /// The bytes come after the entry says where they are.
    private func tellTooEarly(
        _ page: Int, from entry: PageEntry, to moved: PageEntry, _ store: CompressedStore
    ) {
        let data = store.pool.data(Locator(payload: moved.payload).place)
        let bytes = [UInt8](data)
        data.initializeMemory(as: UInt8.self, repeating: 0)
        guard block.region.table.exchange(page, from: entry, to: moved) else {
            return store.drop(Locator(payload: moved.payload).place)
        }
        for _ in 0..<4 { scheduler.step() }
        data.copyBytes(from: bytes)
        store.drop(Locator(payload: entry.payload).place)
    }

    /// The entry says where the object is now, whatever it said meanwhile.
    private func overwrite(
        _ page: Int, from entry: PageEntry, to moved: PageEntry, drop: () -> Void
    ) {
        for _ in 0..<4 { scheduler.step() }
        while true {
            let now = block.region.table[page]
            // That the pager would notice by itself, and end the process.
            guard !now.state.isShort, now.state != .discarding else { return }
            guard block.region.table.exchange(page, from: now, to: moved) else { continue }
            if now == entry { drop() }
            return
        }
    }
}
