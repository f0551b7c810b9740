import Engine
import Kernel
import SimulatedKernel

/// What design.md says must always hold.
extension World {
    /// After every step. The contents themselves are checked by whoever reads a page.
    func checkInvariants() {
        for block in blocks {
            let region = block.region
            let space = block.space
            for page in 0..<region.pageCount {
                let entry = region.table[region.head(of: page)]
                // Nearly all pages; the rest is worth a call.
                if entry.state == .resident,
                    space[page].state == .present
                        || space[page].state == .absent && (space[page].version == 0 || space[page].cached)
                {
                    continue
                }
                check(block, page, entry)
            }
        }
        if pager.counters.stagedPages.value * pageSize > pager.staging.length {
            scheduler.fail("more is staged than staging holds")
        }
        for tier in pager.store.tiers where tier.maxBytes > 0 && tier.backing.cost > tier.maxBytes {
            scheduler.fail("tier \(tier.index.number) costs more than its ceiling")
        }
    }

    private func check(_ block: Block, _ page: Int, _ entry: PageEntry) {
        let pte = block.space[page]
        func require(_ holds: Bool, _ rule: StaticString) {
            if holds { return }
            scheduler.fail("page \(page), \(entry.state), \(pte.state): \(rule)")
        }
        switch entry.state {
        case .resident:
            require(pte.state != .poisoned, "a resident page is poisoned")
            require(block.space.holds(page) || pte.version == 0, "a page lost its contents")
        case .leaving, .wanted:
            require(
                block.space.holds(page) || pte.version == 0 || isStaged(block, page),
                "a page is lost on its way")
        case .staged:
            require(pte.state == .absent || isProtected(block, page), "a staged page is in the guest")
            require(isStaged(block, page), "a staged page is not where it was taken to")
        case .rescuing:
            require(
                pte.state == .present || pte.state == .swapped || isStaged(block, page),
                "a page was freed while it is put back")
        case .punching:
            require(
                pte.state == .absent || isProtected(block, page), "a page is in the guest while it is punched"
            )
        case .stored, .arriving:
            require(pte.state == .absent, "a stored page is in the guest")
            require(!pte.cached || pte.unpunched, "a stored page is still in its file")
        case .filling:
            require(
                pte.state != .absent || pte.version == 0 || pte.cached,
                "zeros are placed over contents")
        case .placing, .discarding: break
        case .poisoned:
            require(pte.state != .present, "a poisoned page is in the guest")
        }
    }

    /// The page is where it was, and a write to it waits.
    private func isProtected(_ block: Block, _ page: Int) -> Bool {
        switch block.region.guard {
        case .move, .minor, .minorHuge, .freeze: false
        case .freezeShared, .writeProtect: block.space[page].armed && kernel.isSynchronous
        }
    }

    private func isStaged(_ block: Block, _ page: Int) -> Bool {
        if block.space.isShared { return block.space[page].cached }
        if block.region.guard == .writeProtect { return block.space.holds(page) }
        guard let staging = kernel.spaces.first(where: { !$0.isGuest }) else { return false }
        let pte = staging[Int(pager.staging.address(of: block.region, page) - staging.start) / pageSize]
        return pte.state != .absent && pte.version == block.space[page].version
    }

    /// A page may not leave younger than the idle age, or than the stall budget takes pages,
    /// when there is no limit.
    func checkIdle(_ space: Space, _ page: Int) {
        guard plan.tracking, plan.limit == 0 else { return }
        if space === block.space, coldByWord.contains(page) { return }
        let idle = space[page].scannedAt - min(space[page].idleSince, space[page].scannedAt)
        let least = plan.idleAge == 0 ? Worker<SimulatedKernel>.surplusAgeMin : plan.idleAge
        if idle < least { scheduler.fail("page \(page) leaves after \(idle) ns") }
    }

    /// What hotness says of a page may not be more than the simulated kernel saw, and what is
    /// in the store is out.
    func checkHotness(_ image: [UInt8]) {
        guard let reader = try? HotnessReader(image, pageCount: block.region.pageCount) else {
            scheduler.fail("exported hotness is no image")
        }
        reader.forEachRun { value, pages in
            guard value != HotnessImage.unknown, value != HotnessImage.out, plan.tracking else { return }
            let least = reader.scale.leastIdle[Int(value) - 1]
            for page in pages where block.region.table[page].state == .resident && !coldByWord.contains(page)
            {
                let pte = block.space[page]
                // One that came after the scan has the age of the one that was dropped there before:
                // it may leave early, which costs a fault.
                guard pte.wasThere else { continue }
                let idle = pte.scannedAt - min(pte.idleSince, pte.scannedAt)
                if idle < least {
                    scheduler.fail("page \(page) is called idle for \(least) ns after \(idle) ns")
                }
            }
        }
    }

    func noteEvicted(in image: [UInt8]) {
        guard let reader = try? HotnessReader(image, pageCount: block.region.pageCount) else { return }
        reader.forEachRun { value, pages in
            if value == HotnessImage.out { coldByWord.formUnion(pages) }
        }
    }

    /// Poison is the answer to a read error and to nothing else.
    func checkPoison(_ page: Int) {
        // A transfer that was not taken is no reason.
        if plan.readErrorAction != .machineCheck || disks.allSatisfy({ $0.failedReads == 0 }) {
            scheduler.fail("page \(page) is poisoned for no reason")
        }
    }

    /// When nothing is under way, the counters say what the page table says.
    func checkCounters() {
        var pages: [TierIndex: Int] = [:]
        var copies: [TierIndex: Int] = [:]
        var sectors: [TierIndex: Int] = [:]
        for page in 0..<block.region.pageCount {
            let entry = block.region.table[page]
            let locator = Locator(payload: entry.payload)
            if entry.namesCopy { copies[locator.tier, default: 0] += 1 }
            if entry.namesCopy || entry.state == .stored && locator.tier != .sameFilled {
                sectors[locator.tier, default: 0] += LogPlace(locator.place).sectors
            }
            if entry.state == .stored {
                pages[locator.tier, default: 0] += 1
            } else if entry.state != .resident && entry.state != .poisoned {
                scheduler.fail("page \(page) is \(entry.state) although nothing is under way")
            }
        }
        let counters = pager.counters
        for tier in (0...TierIndex.tiersMax).map(TierIndex.init) {
            expect(counters.pages(in: tier), pages[tier, default: 0], "pages of a tier")
        }
        expect(counters.keptCopies.value, copies.values.reduce(0, +), "kept copies")
        for tier in pager.store.tiers {
            let objects = pages[tier.index, default: 0] + copies[tier.index, default: 0]
            expect(tier.objectCount, objects, "objects of a tier")
            if case .log(let log) = tier.backing {
                expect(log.segments.liveSectors, sectors[tier.index, default: 0], "sectors in use")
            }
        }
        expect(counters.stagedPages.value, 0, "staged pages")
        expect(counters.waitingPages.value, 0, "waiting pages")
        // Memory of our own can be read.
        if disks.isEmpty { expect(Int(counters.readErrors.value), 0, "failed reads") }
        // Those of tiers that are gone are not known any more.
        if tiersRemoved == 0 {
            let failed = pager.store.tiers.map { Int($0.readErrors.value) }.reduce(0, +)
            expect(Int(counters.readErrors.value), failed, "failed reads, and those of the tiers,")
        }
        expect(block.region.fetchesInFlight.load(ordering: .relaxed), 0, "fetches in flight")
    }

    /// Nothing may stay in the store once nothing is evicted.
    func checkNothingStored() {
        expect(pager.counters.evictedPages, 0, "evicted pages")
        expect(pager.store.words.usedBytes, 0, "bytes of same-filled pages")
        for tier in pager.store.tiers {
            expect(tier.objectCount, 0, "objects of a tier")
            expect(tier.backing.payload, 0, "bytes in a tier")
        }
    }

    func expect(_ value: Int, _ wanted: Int?, _ name: StaticString) {
        if value != wanted { scheduler.fail("\(name): \(value) instead of \(wanted ?? 0)") }
    }
}
