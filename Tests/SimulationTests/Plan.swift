import Engine
import Kernel
import SeededRandom
import SimulatedKernel

/// The guards that a pager may be told to use.
enum GuardChoice: CaseIterable { case automatic, freeze, writeProtect }

/// What a tier keeps its pages in.
enum TierPlan {
    /// Its ceiling in pages; nil for none.
    case memory(pages: Int?)
    /// Pages that it has room for.
    case disk(pages: Int)

    static func disk(for pageCount: Int, _ random: inout SplitMix) -> TierPlan {
        .disk(pages: random.pick([16, pageCount / 2 + 8, pageCount, pageCount * 2]))
    }
}

/// What a seed stands for: the whole set-up of one simulated run.
struct Plan {
    var pageCount: Int
    /// Pages between a huge page's boundary and the block.
    var leadingPages: Int
    var tracking: Bool
    /// What guard is demanded of the pager.
    var guardChoice: GuardChoice
    /// Touches of shared memory are found by unmapping it.
    var zapsShared: Bool
    /// In the order in which pages are offered to them.
    var tiers: [TierPlan]
    /// Of each disk.
    var readLimits: RateLimits
    var writeLimits: RateLimits
    /// Adds and removes tiers meanwhile.
    var hasStorekeeper: Bool
    /// What is stored on the device is sealed.
    var isSealed: Bool
    /// Bytes.
    var blockSize: Int
    var segmentSize: Int
    /// Of the compressed store.
    var compressed: CompressedStoreOptions
    var sealsMemory: Bool
    /// Compaction begins for nothing, and does very little at a time.
    var compaction: CompactionLimits
    var readErrorAction: ReadErrorAction
    /// Bytes.
    var limit: UInt64
    /// Nanoseconds.
    var idleAge: UInt64
    /// Millionths.
    var stallBudget: UInt64
    /// How often, per mille, a pass comes before its time.
    var earlyPasses: Int
    var contents: PageContents
    /// Per cent of the pages in use that are written before the pager comes.
    var populated: Int
    /// Shared memory instead of private anonymous memory.
    var isShared: Bool
    /// Of huge pages of hugetlbfs.
    var isHugetlb: Bool
    /// Starts with huge pages, where whole ones fit in.
    var isHuge: Bool
    var guests: Int
    var discarders: Int
    /// Discards aim at single pages that are on their way, one after the other.
    var isStorm: Bool
    var devices: Int
    /// Devices whose use of memory the kernel knows nothing of.
    var transfers: Int
    /// Attaches and detaches a second block meanwhile.
    var hasHotplug: Bool
    /// Changes the mode meanwhile.
    var hasOperator: Bool
    /// The host swaps pages out by itself.
    var hasSwap: Bool
    /// Exports and imports hotness meanwhile.
    var hasArchivist: Bool
    var operations: Int
    /// Shares of turns: an actor with a small one is interrupted for long.
    var weights: [Int]
    var scheduling: Scheduler.Settings
    var mischief: Mischief

    init(from random: inout SplitMix) {
        pageCount = random.pick([24, 64, 64, 200, 600, 1100])
        leadingPages = random.chance(300) ? 0 : random.below(512)
        guardChoice = random.pick([.automatic, .automatic, .freeze, .writeProtect])
        // Both stand on it.
        tracking = guardChoice != .automatic || random.chance(750)
        zapsShared = guardChoice == .automatic && random.chance(500)
        tiers = Self.tiers(pageCount, &random)
        hasStorekeeper = random.chance(400)
        let isLimited = random.chance(200)
        readLimits = RateLimits(transfers: isLimited ? random.pick([0, 20, 300]) : 0)
        writeLimits = RateLimits(
            transfers: isLimited ? random.pick([0, 20, 300]) : 0,
            bytes: isLimited ? UInt64(random.pick([0, 100]) * pageSize) : 0)
        isSealed = random.chance(800)
        blockSize = random.pick([512, 4096])
        segmentSize = random.pick([8 << 10, 16 << 10])
        readErrorAction = random.chance(500) ? .stop : .machineCheck
        limit = random.chance(600) ? UInt64((random.below(120) + 8) * pageSize) : 0
        idleAge = limit == 0 || random.chance(500) ? random.pick([1, 2, 4]) * 1_000_000_000 : 0
        earlyPasses = random.pick([0, 0, 300, 1000])
        contents = random.pick([
            PageContents(zero: 10, sameFilled: 10, compressible: 60),
            PageContents(zero: 0, sameFilled: 0, compressible: 100),
            PageContents(zero: 0, sameFilled: 50, compressible: 0),
            PageContents(zero: 50, sameFilled: 10, compressible: 30),
        ])
        populated = random.pick([0, 50, 100])
        isShared = guardChoice != .writeProtect && random.chance(500)
        isHugetlb = isShared && guardChoice == .automatic && tracking && random.chance(400)
        if isHugetlb {
            pageCount = 512 * random.pick([1, 2, 3])
            leadingPages = 0
            zapsShared = false
            if limit > 0 { limit = UInt64(random.below(pageCount) * pageSize + pageSize) }
            let sizes = [400, pageCount / 2, pageCount * 2]
            tiers = tiers.map { (tier: TierPlan) -> TierPlan in
                guard case .disk = tier else { return tier }
                return .disk(pages: random.pick(sizes))
            }
        }
        isHuge = pageCount >= 512 && random.chance(300) && !isShared
        guests = 1 + random.below(3)
        discarders = random.below(3)
        isStorm = discarders > 0 && random.chance(300)
        // The kernel refuses to move pinned pages; it punches and drops them.
        devices = isShared || guardChoice == .writeProtect ? 0 : random.below(2)
        transfers = random.below(3)
        hasHotplug = random.chance(300)
        hasOperator = random.chance(300)
        hasSwap = random.chance(300)
        hasArchivist = random.chance(400)
        operations = 40 + random.below(160)
        var weights: [Int] = []
        for _ in 0..<18 { weights.append(random.pick([1, 4, 4, 16])) }
        self.weights = weights
        scheduling = Scheduler.Settings(
            // A run in which age alone evicts must last for seconds.
            stepTimeMax: random.pick(
                limit == 0 ? [5_000_000, 20_000_000] : [20_000, 2_000_000, 20_000_000]),
            stickiness: random.pick([0, 300, 700, 900]),
            backgroundRate: random.pick([20, 200, 700]), stepsMax: 400_000)
        mischief = Mischief(from: &random)
        compressed = CompressedStoreOptions(
            compression: random.pick([.lz4, .lz4, .zstd(level: 1), .zstd(level: 3)]),
            incompressible: random.chance(500) ? .refuse : .keepRaw)
        compaction = CompactionLimits()
        compaction.gainMin = 1
        compaction.gainShare = .max
        compaction.pagesPerGain = .max
        compaction.pagesPerStep = random.pick([16, 300, 10_000])
        compaction.movesPerStep = random.pick([1, 8, 10_000])
        compaction.pagesPerLock = random.pick([1, 16, 512])
        stallBudget = random.chance(250) ? Settings.stallBudgetMax : 0
        if stallBudget > 0, limit == 0, random.chance(700) { idleAge = 0 }
        if isHugetlb { mischief.spareReads() }
        sealsMemory = random.chance(300)
    }

    /// One tier, as in most set-ups, or up to three.
    private static func tiers(_ pageCount: Int, _ random: inout SplitMix) -> [TierPlan] {
        if random.chance(500) {
            return [
                random.chance(500)
                    ? .disk(for: pageCount, &random) : .memory(pages: random.pick([24, 150, nil]))
            ]
        }
        var tiers: [TierPlan] = []
        if random.chance(800) { tiers.append(.memory(pages: random.pick([24, 24, 100]))) }
        for _ in 0..<1 + random.below(2) { tiers.append(.disk(for: pageCount, &random)) }
        return tiers
    }
}
