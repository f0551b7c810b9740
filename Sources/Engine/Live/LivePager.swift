import Kernel
import Synchronization

/// A pager on the real kernel with its threads: the fault server on an event loop of its own, the
/// worker, and the watch over its moves. What the C functions call.
public final class LivePager: Sendable {
    public let pager: Pager<LinuxKernel>
    /// Of the tiers' devices, by index.
    let watches = Lock([TierIndex: [FaultLoop.Watch]]())
    let loop: FaultLoop
    private let worker: Worker<LinuxKernel>
    private let wakeUp: WakeUpReference
    /// Signalled when the fault server has been asked for pages; in its loop.
    private let recallSignal: WakeUpReference
    private let stopping = Atomic<Bool>(false)
    /// Settings have changed since the worker last looked. The limit wakes it, too.
    private let isNews = Atomic<Bool>(false)
    private let threads: Lock<Threads>
    private let moveWatch: MoveWatch
    private let readWatch = Lock(ReadWatch())
    public let tracking: PageTracking
    private let trackerChoice: PagerOptions.TrackerChoice
    private let guardChoice: PagerOptions.GuardChoice
    /// Where the keys of tiers that are added come from.
    let keySource: Sealer.KeySource
    private static let tickNanoseconds: UInt64 = 1_000_000_000
    /// At least this long after a pass that evicted nothing, however far beyond its
    /// limit the guest is: a full store must not cost a CPU as well.
    private static let fruitlessPause: UInt64 = 100_000_000

    private struct Threads {
        var server: Thread?
        var worker: Thread?
        var moveWatch: Thread?
    }

    private final class WakeUpReference: Sendable {
        let wakeUp: WakeUp
        init() throws(Errno) { wakeUp = try WakeUp() }
    }

    /// Checks the options, probes the kernel, opens the store, starts the threads.
    public init(_ options: PagerOptions, host: Host) throws(SetupFailure) {
        let settings: Settings
        do {
            settings = try Settings(limit: options.limit, idleAge: options.idleAge)
            try settings.setStallBudget(millionths: options.stallBudget)
            try settings.setVCPUCount(UInt64(options.vcpuCount))
            settings.setMode(options.mode)
        } catch {
            throw SetupFailure(.invalid, error.reason)
        }
        let features = try Setup.probeKernel()
        let tracking = try Setup.chooseTracking(options, features, host)
        if options.readErrorAction == .machineCheck, !features.poison {
            throw SetupFailure(
                .notSupported,
                "read-error machine-check needs UFFDIO_POISON, which this kernel lacks; "
                    + "use read-error stop, or Linux 6.6 or later")
        }
        let tiers = try Setup.tiers(options)
        let backings = try Setup.openAll(tiers, options.keySource, host)
        do {
            let reference = try WakeUpReference()
            let moveWatch = try MoveWatch()
            self.moveWatch = moveWatch
            let port = try LinuxKernel(tracking: tracking)
            let store = try Store<LinuxKernel>(tiers: backings, pagesMax: Self.pagesMax)
            let pager = try Pager(
                port: port, store: store, settings: settings, host: host,
                tracking: tracking != .none,
                zapsShared: Setup.zapsShared(options.tracker, tracking, features),
                readErrorAction: options.readErrorAction,
                wakeWorker: { reference.wakeUp.signal() }, wakeMoveWatch: { moveWatch.wake() })
            let server = try FaultServer(pager: pager, answerMax: options.answerMax)
            let recallSignal = try WakeUpReference()
            loop = try FaultLoop {
                server.noticeRecalls { recallSignal.wakeUp.clear() }
                return Self.dispatch(server)
            }
            self.recallSignal = recallSignal
            worker = try Worker(pager: pager, compaction: options.compaction)
            self.pager = pager
            self.tracking = tracking
            wakeUp = reference
        } catch {
            throw SetupFailure(error, "cannot set up the pager: \(error.text)")
        }
        trackerChoice = options.tracker
        guardChoice = options.guard
        keySource = options.keySource
        threads = Lock(Threads())
        if let name = sealName { host.log(.info, "what is stored on the device is sealed: \(name)") }
        for tier in pager.store.tiers where tier.kind == .compressed {
            if let cipher = tier.backing.cipher {
                host.log(.info, "compressed memory is sealed: \(cipher.name)")
            }
        }
        try start()
    }

    /// Pages that could ever be out at once.
    private static let pagesMax = 1 << 28

    /// The event loop's body: faults while they come, and a retry every tick.
    private static func dispatch(_ server: FaultServer<LinuxKernel>) -> UInt64 {
        server.serveUntilQuiet()
        server.retryWaitingIfDue(every: tickNanoseconds)
        server.noteHungDevices()
        return server.pause(tick: tickNanoseconds)
    }

    private func start() throws(SetupFailure) {
        loop.watch(descriptor: pager.kernel.faultDescriptor)
        loop.watch(descriptor: recallSignal.wakeUp.number)
        for tier in pager.store.tiers { watch(tier) }
        worker.onTierRemoved = { [unowned self] tier in unwatch(tier) }
        worker.onRecall = { [unowned self] in
            // In this order: what is noticed has been signalled, so that it can be cleared.
            recallSignal.wakeUp.signal()
            pager.recalls.areNew.store(true, ordering: .releasing)
        }
        do {
            let server = try Thread(name: "frostline-fault") { [loop] in
                loop.run()
            }
            threads.withLock { $0.server = server }
            let worker = try Thread(name: "frostline-evict") { [self] in work() }
            threads.withLock { $0.worker = worker }
            let watch = try Thread(name: "frostline-move") { [pager, moveWatch] in moveWatch.run(pager) }
            threads.withLock { $0.moveWatch = watch }
        } catch {
            stop()
            throw SetupFailure(error, "cannot start a thread: \(error.text)")
        }
    }

    private func work() {
        while !stopping.load(ordering: .acquiring) {
            _ = worker.round()
            workUntilPassIsDue()
        }
    }

    /// What the worker's thread does between two rounds; at which moment, `Worker` has a table of.
    private enum Next {
        case round, relieve, adjust, tidyUp
    }

    private func workUntilPassIsDue() {
        var adjustedAt = monotonicNow()
        while true {
            readWatch.withLock { $0.look(pager.store.tiers, at: monotonicNow(), pager.host) }
            switch next(adjustedAt: adjustedAt) {
            case .round: return
            case .relieve:
                if worker.relieve() == 0 { Kernel.sleep(nanoseconds: Self.fruitlessPause) }
            case .adjust:
                adjustedAt = monotonicNow()
                _ = worker.adjust()
            case .tidyUp: worker.tidyUp()
            }
        }
    }

    /// Waits until there is something to do, a tick at most, and says what.
    private func next(adjustedAt: UInt64) -> Next {
        _ = wakeUp.wakeUp.wait(nanoseconds: pause)
        if isNews.exchange(false, ordering: .acquiring) { return .round }
        let now = monotonicNow()
        let mayRetry = worker.retryAt.map { now >= $0 } ?? false
        let isDue = worker.untilPass == 0
        if pager.limitPassed.load(ordering: .relaxed) || mayRetry { return isDue ? .round : .relieve }
        if isDue { return .round }
        return now &- adjustedAt >= Self.tickNanoseconds ? .adjust : .tidyUp
    }

    private var pause: UInt64 {
        if worker.isUnfinished { return 0 }
        let now = monotonicNow()
        let next = min(worker.retryAt ?? .max, worker.tidyAt ?? .max)
        return min(next > now ? next - now : 0, worker.untilPass ?? .max, Self.tickNanoseconds)
    }

    /// Lets the worker go by new settings at once. Control thread.
    public func settingsChanged() {
        isNews.store(true, ordering: .releasing)
        wakeUp.wakeUp.signal()
    }

    /// What evicts given pages, as the worker does, and answers how many left: for who measures that
    /// alone. Pages and thread as with `Evictor.evict`, while the worker evicts nothing.
    /// `overlapping`: as with the worker, a batch ends with the next call, or one without pages.
    public func makeEvictor(
        overlapping: Bool = false
    ) -> (_ region: Region, _ pages: ArraySlice<Int>) -> Int {
        let evictor = Evictor(pager: pager)
        return { region, pages in evictor.evict(region, pages, overlapping: overlapping) }
    }

    /// Ends the threads. No block may be attached. Control thread.
    public func stop() {
        precondition(pager.regions.isEmpty, "a block is still attached")
        stopping.store(true, ordering: .releasing)
        settingsChanged()
        loop.stop()
        threads.withLock { threads in
            threads.worker.take()?.join()
            threads.server.take()?.join()
            moveWatch.end()
            threads.moveWatch.take()?.join()
        }
    }

    /// Takes a block under management, whose memory is in pages of `pageBytes`; `mayMerge` leaves
    /// merging (KSM) to the host program. Control thread.
    public func attach(
        name: String, start: UInt64, length: UInt64, pageBytes: Int = pageSize, mayMerge: Bool = false
    ) throws(SetupFailure) -> Region {
        guard pageBytes == pageSize || pageBytes == hugePageSize else {
            throw SetupFailure(
                .notSupported,
                "block \(name) has pages of \(pageBytes) bytes; 4096 is supported, and 2097152 in hugetlbfs")
        }
        guard start % UInt64(pageBytes) == 0, length % UInt64(pageBytes) == 0, length > 0 else {
            throw SetupFailure(
                .invalid, "block \(name) is not a whole number of \(pageBytes)-byte pages, page-aligned")
        }
        let region = try makeRegion(
            name: name, start: start, length: length, pageBytes: pageBytes, mayMerge: mayMerge)
        do {
            try pager.attach(region)
        } catch {
            throw Self.describe(error, name)
        }
        return region
    }

    private func makeRegion(
        name: String, start: UInt64, length: UInt64, pageBytes: Int, mayMerge: Bool
    ) throws(SetupFailure) -> Region {
        func checked<Value>(_ body: () throws(Errno) -> Value) throws(SetupFailure) -> Value {
            do {
                return try body()
            } catch .noSuchEntry {
                throw SetupFailure(
                    .noSuchEntry,
                    "cannot map block \(name) a second time: no descriptor of its file is open in this "
                        + "process; keep one open while it is attached")
            } catch {
                throw SetupFailure(error, "cannot attach block \(name): \(error.text)")
            }
        }
        let kind = try checked { () throws(Errno) in try MemoryKind(start: start, length: length) }
        try Setup.checkPages(of: pageBytes, for: kind, block: name)
        if kind == .sharedHuge { try Setup.checkHuge(tracking, block: name, pager.kernel.features) }
        try Setup.checkTracker(trackerChoice, for: kind, block: name)
        let chosen = try Setup.chooseGuard(guardChoice, for: kind, block: name, pager.kernel.features)
        if mayMerge { try Setup.checkMerging(under: chosen, block: name) }
        let region = try checked { () throws(Errno) in
            if !mayMerge, kind != .sharedHuge, let errno = forbidMerging(start: start, length: length) {
                throw errno
            }
            return try Region(
                name: name, start: start, length: length, guard: chosen,
                mayMerge: mayMerge && kind != .sharedHuge)
        }
        let tracker =
            !pager.isZapped(region)
            ? "" : "; tracker zap: its touches, reads among them, are found by unmapping it"
        pager.host.log(.info, "block \(name) is \(chosen.memory): guard \(chosen.name)\(tracker)")
        return region
    }

    /// A block's hotness, as bytes. Control thread.
    public func exportHotness(_ region: Region) throws(SetupFailure) -> [UInt8] {
        do {
            return try worker.exportHotness(region)
        } catch {
            throw Self.describe(error, "export", region.name)
        }
    }

    /// Takes over what `image` says of a block's hotness. Control thread.
    public func importHotness(_ image: [UInt8], into region: Region) throws(SetupFailure) {
        do {
            try worker.importHotness(image, into: region)
        } catch {
            throw Self.describe(error, "import", region.name)
        }
    }

    private static func describe(
        _ failure: Worker<LinuxKernel>.HotnessFailure, _ verb: String, _ name: String
    ) -> SetupFailure {
        let what = "cannot \(verb) the hotness of block \(name)"
        switch failure {
        case .noLook:
            return SetupFailure(.inputOutput, "\(what): the kernel does not let us look at its memory")
        case .flaw(.version(let version)):
            return SetupFailure(.notSupported, "\(what): \(HotnessImage.Flaw.version(version).reason)")
        case .flaw(let flaw):
            return SetupFailure(.invalid, "\(what): \(flaw.reason)")
        }
    }

    /// How devices are sealed; nil where none is. Any thread.
    public var sealName: StaticString? {
        pager.store.reading {
            for tier in pager.store.tiers {
                if case .log(let log) = tier.backing, let cipher = log.cipher { return cipher.name }
            }
            return nil
        }
    }

    /// The trackers of the attached blocks; any thread.
    public var trackerNames: StaticString {
        let counters = pager.counters
        if trackerChoice == .zapping { return "zap" }
        switch tracking {
        case .none: return "none"
        case .readWriteProtection: return "rwp"
        case .writeProtection, .synchronousWriteProtection:
            let zapped = counters.zappedBlocks.value
            if zapped == 0 { return "wp" }
            return zapped < counters.blocks.value ? "wp,zap" : "zap"
        }
    }

    /// The guards of the attached blocks; any thread.
    public var guardNames: StaticString {
        switch guardChoice {
        case .freeze: return Guard.freeze.name
        case .writeProtect: return Guard.writeProtect.name
        case .automatic, .move, .minor: break
        }
        let counters = pager.counters
        if counters.sharedBlocks.value == 0 { return Guard.move.name }
        return counters.sharedBlocks.value < counters.blocks.value ? "move,minor" : Guard.minor.name
    }

    private static func describe(
        _ failure: Pager<LinuxKernel>.AttachFailure, _ name: String
    ) -> SetupFailure {
        switch failure {
        case .tooManyBlocks:
            SetupFailure(.busy, "block \(name) is one too many; a pager takes \(RegionList.capacity)")
        case .register(.busy):
            SetupFailure(.busy, "the memory of block \(name) is registered with another userfaultfd")
        case .register(let errno):
            SetupFailure(errno, "cannot register block \(name) with userfaultfd: \(errno.text)")
        }
    }
}
