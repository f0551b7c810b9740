import Engine
import Kernel
import SeededRandom
import SimulatedKernel

/// A block of guest memory, what the pager knows of it, and which pages of it this
/// run uses: a few runs, and many holes.
final class Block {
    let space: Space
    let region: Region
    let pagesInUse: [Int]
    /// Ranges between the begin and the end of a discard.
    var openDiscards: [Range<Int>] = []
    var discardCount = 0
    /// Unreadable pages that the host program was told of, and that are not back yet.
    var unreadable: [Int] = []
    /// Being detached: who waits for a page of it is let go, and is no vCPU.
    var isLeaving = false

    init(
        name: String, pageCount: Int, leadingPages: Int, isShared: Bool, isHugetlb: Bool = false,
        _ choice: GuardChoice, _ random: inout SplitMix
    ) throws(Errno) {
        space = try Space(
            name: name, pageCount: pageCount, leadingPages: leadingPages, isShared: isShared,
            isHugetlb: isHugetlb)
        let chosen = isHugetlb ? .minorHuge : Self.chooseGuard(choice, isShared: isShared)
        region = try Region(
            name: name, start: space.start, length: space.length, guard: chosen,
            mayMerge: random.chance(300) && chosen != .writeProtect)
        if isShared { space.viewStart = region.viewAddress(of: 0) }
        var isUsed = [Bool](repeating: false, count: pageCount)
        for _ in 0..<6 {
            let first = random.below(pageCount)
            for page in first..<min(pageCount, first + 1 + random.below(24)) { isUsed[page] = true }
        }
        // The ends of the block, and of its chunks, are where ranges are cut.
        let boundary = (hugePageSize / pageSize - leadingPages) % (hugePageSize / pageSize)
        for page in [0, pageCount - 1, boundary - 1, boundary] where (0..<pageCount).contains(page) {
            isUsed[page] = true
        }
        pagesInUse = (0..<pageCount).filter { isUsed[$0] }
    }

    private static func chooseGuard(_ choice: GuardChoice, isShared: Bool) -> Guard {
        switch choice {
        case .automatic: isShared ? .minor : .move
        case .freeze: isShared ? .freezeShared : .freeze
        case .writeProtect: .writeProtect
        }
    }
}

/// One simulated machine: the production pager over a simulated kernel, the actors
/// that use it, and what they may expect. Everything but `run` is for the holder of
/// the scheduler's token.
final class World: @unchecked Sendable {
    let plan: Plan
    let scheduler: Scheduler
    let kernel: SimulatedKernel
    /// Those of tiers that are gone included.
    private(set) var disks: [SimulatedDisk] = []
    let settings: Engine.Settings
    private(set) var pager: Pager<SimulatedKernel>!
    var worker: Worker<SimulatedKernel>!
    let block: Block
    var hotplugged: Block?
    /// Guests, devices and discarders that have not finished.
    var busyActors = 0
    var isEnding = false
    /// The VM is stopped: guests and devices stand still as soon as they can.
    var isStopped = false
    /// Guests and devices that do not.
    var moving = 0
    /// Pages that are colder than the simulated kernel's record has them: hotness taken over
    /// calls them evicted, or the pager put them back while the VM was stopped, which is no
    /// touch of the guest's.
    var coldByWord: Set<Int> = []
    var isWorkerAwake = false
    var isServerAwake = false
    var isWorkerResting = false
    var isServerResting = false

    struct Outcome {
        var seed: UInt64
        var violation: String?
        var hash: UInt64
        var steps: Int
        var evictions: UInt64
        var fetches: UInt64
        var rescues: UInt64
        var cleanEvictions: UInt64
        var rewrittenBytes: UInt64
        var compactionMoves: UInt64
        /// Of pages that leave and come back whole.
        var wholeFetches: UInt64
        var demotions: UInt64
        var tiersRemoved: Int
    }

    /// What removed tiers did is theirs no more.
    var workOfRemovedTiers: (demotions: UInt64, rewritten: UInt64) = (0, 0)
    var tiersRemoved = 0

    init(seed: UInt64, sabotage: Sabotage? = nil, trace: Trace) throws {
        var random = SplitMix(seed: seed)
        plan = Plan(from: &random)
        scheduler = Scheduler(random: random, settings: plan.scheduling, trace: trace)
        kernel = SimulatedKernel(
            scheduler: scheduler, mischief: .none, sabotage: sabotage,
            protection: plan.guardChoice == .writeProtect ? .write : .readWrite)
        settings = Settings(unchecked: plan.limit, idleAge: plan.idleAge)
        try settings.setStallBudget(millionths: plan.stallBudget)
        block = try Block(
            name: "ram", pageCount: plan.pageCount, leadingPages: plan.leadingPages,
            isShared: plan.isShared, isHugetlb: plan.isHugetlb, plan.guardChoice, &scheduler.random)
        kernel.add(block.space)
        pager = try Pager(
            port: kernel, store: try makeStore(), settings: settings, host: host,
            tracking: plan.tracking, zapsShared: plan.tracking && plan.zapsShared,
            readErrorAction: plan.readErrorAction,
            wakeWorker: { [unowned self] in isWorkerAwake = true })
        kernel.onSettled = { [unowned self] space, page in noteSettled(space, page) }
        kernel.onLeaving = { [unowned self] space, page in checkIdle(space, page) }
        scheduler.invariants = { [unowned self] in checkInvariants() }
        scheduler.background = { [unowned self] in progressOfDisks() }
        for page in block.pagesInUse where scheduler.random.below(100) < plan.populated {
            populate(block, page)
        }
        if plan.isHuge {
            for page in 0..<plan.pageCount where block.space[page].state == .absent { populate(block, page) }
            kernel.makeHuge(block.space)
        }
        try pager.attach(block.region)
        kernel.mischief = plan.mischief
    }

    private func makeStore() throws(Errno) -> Store<SimulatedKernel> {
        var tiers: [Store<SimulatedKernel>.Setup] = []
        for tier in plan.tiers { tiers.append(try makeTier(tier, TierIndex(tiers.count + 1))) }
        return try Store(tiers: tiers, pagesMax: scheduler.random.pick([8, 4096]))
    }

    func makeTier(_ tier: TierPlan, _ index: TierIndex) throws(Errno) -> Store<SimulatedKernel>.Setup {
        switch tier {
        case .memory(let pages):
            var options = plan.compressed
            options.bytesMax = pages.map { $0 * pageSize }
            // With a seal, what sabotage mixes up would be lost instead of wrong.
            let isSealed = plan.sealsMemory && kernel.sabotage == nil
            let store = try CompressedStore(options, tier: index, sealer: isSealed ? try Sealer() : nil)
            return .init(.compressed(store), maxBytes: options.bytesMax ?? 0)
        case .disk(let pages):
            let disk = try SimulatedDisk(
                slots: pages, blockSize: plan.blockSize, detectsDamage: plan.isSealed, kernel: kernel)
            disks.append(disk)
            let isSealed = plan.isSealed && kernel.sabotage != .deviceIsNotSealed
            let log = try LogStore(
                device: disk, size: disk.size, tier: index, sealer: isSealed ? try Sealer() : nil,
                segmentSize: plan.segmentSize,
                times: LogTimes(
                    spare: 0,
                    doubt: kernel.sabotage == .doubtedSegmentsAreUsed ? 0 : 2 * SimulatedDisk.lateMax),
                clock: { [scheduler] in scheduler.now })
            var setup = Store<SimulatedKernel>.Setup(.log(log), maxBytes: Int(disk.size))
            setup.readLimits = plan.readLimits
            setup.writeLimits = plan.writeLimits
            return setup
        }
    }

    /// Finishes some transfer of some disk. False when there is none.
    private func progressOfDisks() -> Bool {
        guard !disks.isEmpty else { return false }
        let first = scheduler.random.below(disks.count)
        for step in disks.indices where disks[(first + step) % disks.count].progress() { return true }
        return false
    }

    func populate(_ block: Block, _ page: Int) {
        kernel.populate(block.space, page) { write(block, page) }
    }

    // MARK: The host program's side

    private var host: Engine.Host {
        Engine.Host(
            report: { [unowned self] event in note(event) },
            log: { [unowned self] _, message in scheduler.trace.note("log", message) })
    }

    private func note(_ event: HostEvent) {
        switch event {
        case .readFailed(_, _, let region, let page, poisoned: false):
            scheduler.trace.note("host", "read failed, page \(page)")
            block(of: region)?.unreadable.append(page)
        case .readFailed(_, _, _, let page, poisoned: true):
            scheduler.trace.note("host", "poisoned page \(page)")
        case .readRecovered:
            scheduler.trace.note("host", "read recovered")
            for block in blocks {
                for page in block.unreadable where !block.isLeaving && kernel.sleeps(on: block.space, page) {
                    scheduler.fail("the host resumes the VM, but page \(page) is not back")
                }
                block.unreadable = []
            }
        case .writeFailed: scheduler.trace.note("host", "write failed")
        case .writeRecovered: scheduler.trace.note("host", "write recovered")
        case .unawaitedReadFailed: scheduler.trace.note("host", "unawaited read failed")
        }
    }

    var blocks: [Block] { hotplugged.map { [block, $0] } ?? [block] }
    private func block(of region: Region) -> Block? { blocks.first { $0.region === region } }

    private func noteSettled(_ space: Space, _ page: Int) {
        if isStopped, space === block.space { coldByWord.insert(page) }
        for block in blocks where block.space === space && !block.unreadable.isEmpty {
            block.unreadable.removeAll { $0 == page }
        }
    }

    // MARK: The guest's side

    /// Writes the page's next version. The page must be there.
    func write(_ block: Block, _ page: Int) {
        block.space[page].version += 1
        plan.contents.write(
            page: page, version: block.space[page].version, to: block.space.memory(page))
    }

    /// Checks that the page holds what was last written. The page must be there.
    func verify(_ block: Block, _ page: Int) {
        let version = block.space[page].version
        if !plan.contents.matches(page: page, version: version, block.space.memory(page)) {
            scheduler.fail("page \(page) does not hold its version \(version)")
        }
    }

    func readPage(_ block: Block, _ page: Int) -> SimulatedKernel.Access {
        kernel.access(block.space, page, isWrite: false) { verify(block, page) }
    }

    func writePage(_ block: Block, _ page: Int) -> SimulatedKernel.Access {
        kernel.access(block.space, page, isWrite: true) {
            verify(block, page)
            write(block, page)
        }
    }

    /// A discard as a host program does it: begin, drop, end.
    func discard(_ block: Block, _ pages: Range<Int>) {
        block.openDiscards.append(pages)
        block.discardCount += 1
        scheduler.trace.note(scheduler.actorName, "discard", pages.lowerBound, pages.count)
        pager.beginDiscard(block.region, pages: pages)
        kernel.drop(block.space, pages)
        scheduler.step()
        pager.endDiscard(block.region, pages: pages)
        block.openDiscards.removeAll { $0 == pages }
    }
}
