import Engine
import Kernel
import SeededRandom
import SimulatedKernel

/// Who takes part in a run. Each function is one thread's whole life.
extension World {
    /// The fault server's; short where steps are, or a run would wait more than work.
    private var tick: UInt64 { min(1_000_000_000, plan.scheduling.stepTimeMax * 100) }

    /// Runs the simulation to its end.
    func run(seed: UInt64, cpu: Int) throws -> Outcome {
        // Some hosts are told of reads that take no longer than usual.
        let server = try FaultServer(
            pager: pager, waitingMax: scheduler.random.pick([1, 3, 1024]),
            answerMax: scheduler.random.pick([1, FaultServer<SimulatedKernel>.answerMaxDefault]))
        let worker = try Worker(pager: pager, compaction: compactionLimits)
        worker.onTierRemoved = { [unowned self] tier in noteRemoved(tier) }
        worker.onRecall = { [unowned self] in isServerAwake = true }
        self.worker = worker
        var weights = plan.weights[...]
        func spawn(_ name: String, _ body: @escaping @Sendable () -> Void) {
            scheduler.spawn(name, weight: weights.popFirst()!, cpu: cpu, body)
        }
        spawn("server") { [self] in serve(server) }
        spawn("worker") { [self] in work(worker) }
        spawn("watch") { [self] in watchMoves() }
        for index in 0..<plan.guests { spawn("vcpu\(index)") { [self] in useMemory() } }
        for index in 0..<plan.discarders { spawn("balloon\(index)") { [self] in balloon() } }
        if plan.devices > 0 { spawn("device") { [self] in transferDirectly() } }
        for index in 0..<plan.transfers { spawn("transfer\(index)") { [self] in transferUnnoticed() } }
        if plan.hasHotplug { spawn("hotplug") { [self] in plugAndUnplug() } }
        if plan.hasOperator { spawn("operator") { [self] in changeModes() } }
        if plan.hasSwap { spawn("host") { [self] in reclaim() } }
        if plan.hasArchivist { spawn("archivist") { [self] in exportAndImport() } }
        if plan.hasStorekeeper { spawn("storekeeper") { [self] in changeTiers() } }
        moving = plan.guests + plan.devices + plan.transfers
        busyActors =
            plan.guests + plan.discarders + plan.devices + plan.transfers
            + (plan.hasHotplug ? 1 : 0) + (plan.hasOperator ? 1 : 0) + (plan.hasSwap ? 1 : 0)
            + (plan.hasArchivist ? 1 : 0) + (plan.hasStorekeeper ? 1 : 0)
        spawn("director") { [self] in direct() }
        scheduler.run()
        let counters = pager.counters
        return Outcome(
            seed: seed, violation: scheduler.violation, hash: scheduler.trace.hash,
            steps: scheduler.steps, evictions: counters.evictions.value,
            fetches: counters.fetches.value, rescues: counters.rescues.value,
            cleanEvictions: counters.cleanEvictions.value,
            rewrittenBytes: pager.store.tiers.reduce(workOfRemovedTiers.rewritten) {
                $0 + rewrittenBytes($1)
            },
            compactionMoves: counters.compactionMoves.value,
            wholeFetches: plan.isHugetlb ? counters.fetches.value : 0,
            demotions: pager.store.tiers.reduce(workOfRemovedTiers.demotions) {
                $0 + $1.demotions.load(ordering: .relaxed)
            }, tiersRemoved: tiersRemoved)
    }

    /// Where a guest or device stands still while the VM is stopped.
    private func standStill() {
        guard isStopped else { return }
        moving -= 1
        scheduler.block { [self] in !isStopped }
        moving += 1
    }

    private func sleep(_ nanoseconds: UInt64) {
        scheduler.block(until: scheduler.now + nanoseconds) { false }
    }

    /// Long enough for pages to turn cold, where a run has time for that.
    private func doze() { sleep(scheduler.random.next() % (plan.scheduling.stepTimeMax * 200)) }

    private func serve(_ server: FaultServer<SimulatedKernel>) {
        var idleTurns = 0
        while !isEnding {
            let worked = server.turn()
            server.retryWaitingIfDue(every: tick)
            let pause = server.pause(tick: tick)
            // Time may pass what it is to wait for while it looks, now and then.
            idleTurns = worked || pause > 0 ? 0 : idleTurns + 1
            if idleTurns == 10 { scheduler.fail("the fault server does not sleep, and has nothing to do") }
            if worked { continue }
            isServerResting = true
            scheduler.block(until: scheduler.now + pause) { [self] in
                kernel.hasFaults || disks.contains { $0.hasFinished(.fetch) } || isServerAwake
                    || isEnding
            }
            isServerResting = false
            isServerAwake = false
        }
    }

    /// Ends moves that do not end, and now and then one that would have.
    private func watchMoves() {
        while !isEnding {
            scheduler.block(until: scheduler.now + tick) { [self] in isEnding }
            pager.endStuckMove(after: scheduler.random.pick([tick / 100, tick]))
        }
    }

    private func work(_ worker: Worker<SimulatedKernel>) {
        var wasWoken = false
        while !isEnding {
            // Woken for the limit, it evicts by the ages it has, or looks anew.
            let relieves = wasWoken && scheduler.random.next() % 2 == 0
            let adjusts = !wasWoken && scheduler.random.next() % 4 == 0
            let evicted = relieves ? worker.relieve() : adjusts ? worker.adjust() : worker.round()
            scheduler.trace.note("worker", relieves ? "relieve" : adjusts ? "adjust" : "round", evicted)
            compactRecklessly()
            demoteRecklessly()
            // As on every tick in between.
            repeat { worker.tidyUp() } while worker.isUnfinished && scheduler.random.chance(800)
            isWorkerResting = true
            if evicted == 0 { sleep(10_000_000) }
            // Settings that change wake it early.
            let isEarly = scheduler.random.chance(plan.earlyPasses)
            let rest = isEarly ? scheduler.random.next() % worker.interval : worker.interval
            scheduler.block(until: scheduler.now + rest) { [self] in
                isWorkerAwake || isEnding
            }
            isWorkerResting = false
            wasWoken = isWorkerAwake
            isWorkerAwake = false
        }
    }

    /// A vCPU: most accesses fall on few pages, so the others turn cold.
    private func useMemory() {
        for _ in 0..<plan.operations {
            let pages = block.pagesInUse
            let hot = max(1, pages.count / 5)
            var page =
                scheduler.random.chance(700)
                ? pages[scheduler.random.below(hot)] : pages[scheduler.random.below(pages.count)]
            if scheduler.random.chance(300) { page = pageOnItsWay(from: page) }
            // Now and then through neighbours, one after the other.
            let length = scheduler.random.chance(80) ? 1 + scheduler.random.below(40) : 1
            for next in page..<min(page + length, plan.pageCount) {
                _ = scheduler.random.chance(500) ? writePage(block, next) : readPage(block, next)
            }
            if scheduler.random.chance(100) { doze() }
            standStill()
        }
        moving -= 1
        busyActors -= 1
    }

    /// A page that is between the guest and the store at this moment, where the races
    /// are; or the one given, when none is.
    private func pageOnItsWay(from page: Int) -> Int {
        let region = block.region
        return block.pagesInUse.first {
            guard $0 >= page else { return false }
            let state = region.table[region.head(of: $0)].state
            return state != .resident && state != .stored
        } ?? page
    }

    /// Free-page reporting, a balloon, or a reset: discards of any size.
    private func balloon() {
        for _ in 0..<(plan.isStorm ? plan.operations : plan.operations / 8) {
            let longest = plan.isStorm ? 1 : scheduler.random.pick([1, 8, 64, plan.pageCount])
            var first = scheduler.random.below(plan.pageCount)
            if plan.isStorm || scheduler.random.chance(300) { first = pageOnItsWay(from: 0) }
            let last = min(plan.pageCount - 1, first + scheduler.random.below(longest))
            let space = block.space
            let pages = space.unit(of: first).lowerBound..<space.unit(of: last).upperBound
            if !block.openDiscards.contains(where: { $0.overlaps(pages) }) { discard(block, pages) }
            if scheduler.random.chance(plan.isStorm ? 50 : 1000) { doze() }
        }
        busyActors -= 1
    }

    /// Device I/O: pins pages and writes into them past the page tables.
    private func transferDirectly() {
        for _ in 0..<plan.operations / 8 {
            let page = scheduler.random.pick(block.pagesInUse)
            let space = block.space
            let access = kernel.access(space, page, isWrite: true) { space[page].pins += 1 }
            guard access == .done else { continue }
            for _ in 0..<scheduler.random.below(30) {
                scheduler.step()
                // A discard takes the page from the device as well: what it writes is lost.
                if space[page].pins == 0 { break }
                if space[page].state != .present {
                    scheduler.fail("page \(page) left the guest while pinned")
                }
                if scheduler.random.chance(200) { write(block, page) }
            }
            if space[page].pins > 0 { space[page].pins -= 1 }
            standStill()
        }
        moving -= 1
        busyActors -= 1
    }

    /// Somebody who tries what there is.
    private func changeModes() {
        for _ in 0..<6 {
            doze()
            let mode = scheduler.random.pick(Mode.allCases)
            settings.setMode(mode)
            scheduler.trace.note("operator", "\(mode)")
            isWorkerAwake = true
        }
        settings.setMode(.active)
        busyActors -= 1
    }

    /// Device I/O by plain page references, which the kernel does not mind: only the
    /// pager's own word keeps the pages where the device found them.
    private func transferUnnoticed() {
        for _ in 0..<plan.operations / 8 {
            let first = scheduler.random.pick(block.pagesInUse)
            let pages = first..<min(plan.pageCount, first + 1 + scheduler.random.below(4))
            pager.beginTransfer(block.region, pages: pages)
            let page = first + scheduler.random.below(pages.count)
            // A discard takes the page from the device as well.
            let discardsBefore = block.openDiscards.isEmpty ? block.discardCount : -1
            // What a device will write is looked up for writing.
            let isWrite = scheduler.random.chance(500)
            let access = kernel.access(block.space, page, isWrite: isWrite) { verify(block, page) }
            for _ in 0..<scheduler.random.below(30) where access == .done {
                scheduler.step()
                if block.discardCount != discardsBefore { break }
                if !block.space.holds(page) {
                    scheduler.fail("page \(page) left the guest during a transfer")
                }
                if isWrite, scheduler.random.chance(200) { write(block, page) }
            }
            pager.endTransfer(block.region, pages: pages)
            if scheduler.random.chance(300) { doze() }
            standStill()
        }
        moving -= 1
        busyActors -= 1
    }

    /// Somebody who writes hotness down and takes it over again: as it was, while the VM is
    /// stopped, or damaged, at any time.
    private func exportAndImport() {
        for _ in 0..<4 {
            doze()
            guard let image = try? worker.exportHotness(block.region) else { continue }
            checkHotness(image)
            importDamaged(image)
            isStopped = true
            scheduler.block { [self] in moving == 0 }
            if let image = try? worker.exportHotness(block.region) {
                if scheduler.random.chance(300) { doze() }
                noteEvicted(in: image)
                let isTaken = (try? worker.importHotness(image, into: block.region)) != nil
                scheduler.trace.note("archivist", isTaken ? "import" : "no import", image.count)
            }
            isStopped = false
        }
        busyActors -= 1
    }

    /// The host is short of memory itself, and has swap.
    private func reclaim() {
        for _ in 0..<plan.operations {
            for _ in 0..<scheduler.random.below(8) {
                kernel.swapOut(block.space, scheduler.random.pick(block.pagesInUse))
            }
            if scheduler.random.chance(20) { kernel.swapOff(block.space) }
            if block.region.mayMerge {
                kernel.merge(block.space, scheduler.random.pick(block.pagesInUse))
            }
            if scheduler.random.chance(100) { doze() }
        }
        busyActors -= 1
    }

    private func importDamaged(_ image: [UInt8]) {
        var damaged = image
        damaged[scheduler.random.below(image.count)] ^= 1 << UInt8(scheduler.random.below(8))
        do {
            try worker.importHotness(damaged, into: block.region)
            scheduler.fail("damaged hotness was taken over")
        } catch {
            if error == .noLook { scheduler.fail("damaged hotness was not refused as such") }
        }
    }

    /// A second block comes, is used and goes, several times.
    private func plugAndUnplug() {
        for _ in 0..<3 {
            let pageCount = 16 + scheduler.random.below(80)
            let leadingPages = scheduler.random.below(512)
            guard
                let block = try? Block(
                    name: "dimm", pageCount: pageCount, leadingPages: leadingPages,
                    isShared: plan.guardChoice != .writeProtect && scheduler.random.chance(500),
                    plan.guardChoice, &scheduler.random)
            else { scheduler.fail("no memory for the simulation") }
            kernel.add(block.space)
            hotplugged = block
            for page in block.pagesInUse { populate(block, page) }
            doze()
            if (try? pager.attach(block.region)) != nil {
                for _ in 0..<scheduler.random.below(plan.operations) {
                    _ = readPage(block, scheduler.random.pick(block.pagesInUse))
                    if scheduler.random.chance(100) { doze() }
                }
                scheduler.trace.note("hotplug", "detach")
                block.isLeaving = true
                pager.detach(block.region)
            }
            hotplugged = nil
            kernel.remove(block.space)
        }
        busyActors -= 1
    }

    /// When all is done: the world is well again, and everything must add up.
    private func direct() {
        scheduler.block { [self] in busyActors == 0 }
        kernel.mischief = .none
        scheduler.trace.note("director", "settle")
        isWorkerAwake = true
        scheduler.block { [self] in !pager.store.tiers.contains { $0.state == .draining } }
        for page in 0..<plan.pageCount where readPage(block, page) == .machineCheck {
            checkPoison(page)
        }
        settle()
        checkCounters()
        if scheduler.random.chance(300) {
            settings.setMode(.drain)
            isWorkerAwake = true
            scheduler.block { [self] in
                pager.counters.evictedPages == 0 && pager.counters.keptCopies.value == 0
            }
            settle()
            checkCounters()
            checkNothingStored()
        }
        if scheduler.random.chance(500) {
            discard(block, 0..<plan.pageCount)
            settle()
            checkNothingStored()
        }
        pager.detach(block.region)
        checkNothingStored()
        checkRates()
        isEnding = true
    }

    /// Waits until nothing is under way.
    private func settle() {
        // Unreadable pages come back with the next tick.
        sleep(2 * tick)
        scheduler.block { [self] in
            isWorkerResting && isServerResting && !kernel.hasSleepers && disks.allSatisfy(\.isIdle)
                // A rate may hold up what nobody waits for.
                && !(0..<plan.pageCount).contains { block.region.table[$0].state == .arriving }
        }
    }
}
