import Kernel
import Synchronization

/// What becomes of an access whose page the store cannot give back.
public enum ReadErrorAction: Sendable {
    /// It waits; the host program stops the VM; the read is tried again.
    case stop
    /// The page is poisoned: a vCPU takes a machine check.
    case machineCheck
}

/// What the fault server, the worker and the control thread share: the kernel, the
/// attached blocks, the store, settings and counters. It has no thread of its own.
public final class Pager<Port: KernelPort>: Sendable {
    public let kernel: Port
    public let store: Store<Port>
    public let settings: Settings
    public let guestClock = GuestClock()
    public let host: Host
    /// Guest memory is registered with RWP.
    public let tracking: Bool
    /// Touches of shared memory are found by unmapping it, reads included.
    public let zapsShared: Bool
    public let readErrorAction: ReadErrorAction
    public let regions = RegionList()
    public let counters = Counters()
    public let faultTimes = FaultTimes()
    let recalls = Recalls()
    public let staging: Staging
    let stuckMove: StuckMove
    /// Held by the worker for a look at memory, for each huge page's eviction and for each step
    /// between tiers, but not while it waits for a device (`lettingControlIn`); and by control calls.
    let passLock = PassLock()
    /// Control calls that wait for `passLock`: the worker lets them go first.
    let controlWaiting = Atomic<Int>(0)
    /// The limit was passed since the worker last looked.
    let limitPassed = Atomic<Bool>(false)
    /// Freeing evicted memory failed, and the host program knows.
    let punchFailed = Atomic<Bool>(false)
    /// Accesses to armed pages wait; worker only.
    let isFrozen = Atomic<Bool>(false)
    /// Switching to that, or back, failed, and the host program knows.
    let freezeFailed = Atomic<Bool>(false)
    /// The kernel did not say which pages a move has taken, and the host program knows.
    let scanFailed = Atomic<Bool>(false)
    /// Wakes the worker before its time.
    let wakeWorker: @Sendable () -> Void
    /// When the last look at memory ended, on the kernel's clock.
    let lookedAt = Atomic<UInt64>(0)
    /// What a page touched now is stamped with.
    let currentStamp = Atomic<UInt8>(AgeMap.stamps.lowerBound)
    /// A transfer ended that never began; said once.
    let unmatchedTransfer = Atomic<Bool>(false)
    /// Where pages are leaving at this moment: the first one's address; 0 for nowhere.
    let leavingFrom = Atomic<UInt64>(0)
    /// The huge page whose parts the fault server reads at this moment: its address, 0 for none.
    let wholeInHand = Atomic<UInt64>(0)
    /// Even while the fault server is between two batches of messages.
    let serverEpoch = Atomic<UInt64>(0)

    public init(
        port: Port, store: Store<Port>, settings: Settings, host: Host,
        tracking: Bool, zapsShared: Bool = false, readErrorAction: ReadErrorAction,
        wakeWorker: @escaping @Sendable () -> Void, wakeMoveWatch: @escaping @Sendable () -> Void = {}
    ) throws(Errno) {
        kernel = port
        staging = try Staging()
        if let errno = kernel.watch(
            start: staging.start, length: UInt64(staging.length), tracked: false, shared: false)
        {
            throw errno
        }
        self.wakeWorker = wakeWorker
        stuckMove = StuckMove(wakeWatch: wakeMoveWatch)
        self.store = store
        self.settings = settings
        self.host = host
        self.tracking = tracking
        self.zapsShared = zapsShared
        self.readErrorAction = readErrorAction
    }

    /// The guest's clock, read now.
    var guestTime: UInt64 { guestClock.now(kernel.now()) }

    /// The VM runs, or stands still. Control thread.
    public func setRunning(_ isRunning: Bool) { guestClock.setRunning(isRunning, at: kernel.now()) }

    /// Host memory that the guest's RAM costs now, in bytes.
    public var cost: Int {
        (counters.residentPages.value + counters.stagedPages.value) * pageSize + store.heldBytes
    }

    /// A page could not be read from a tier, for whatever purpose. Fault and worker thread, before
    /// its place is dropped.
    func noteUnreadable(_ tier: TierIndex) {
        counters.readErrors.increment()
        store.noteReadError(tier)
    }

    /// The same of a page that no access waits for; the host program is told by and by.
    func noteUnreadable(_ tier: TierIndex, unawaited errno: Errno) {
        noteUnreadable(tier)
        store.noteUnawaitedReadError(tier, errno)
    }

    /// A page could not be written anew within a tier, and stays where it is there. Worker thread only.
    func noteUnwritten(_ tier: TierIndex) {
        counters.writeErrors.increment()
        store.noteWriteError(tier)
    }

    /// A page, or what arrives together with it, came into guest memory: it counts, and it
    /// is as hot as can be.
    @inline(__always)
    func arrived(_ region: Region, _ page: Int) {
        touched(region, page)
        counters.residentPages.add(region.unitPages, ordering: .relaxed)
        let limit = settings.limit
        guard limit != 0, settings.mode == .active, cost > Int(limit) else { return }
        if !limitPassed.exchange(true, ordering: .relaxed) { wakeWorker() }
    }

    /// A page of guest memory was touched, as a fault told.
    @inline(__always)
    func touched(_ region: Region, _ page: Int) {
        setAge(region, page, currentStamp.load(ordering: .relaxed))
        region.visits.wake(region.hugePage(of: page))
    }

    /// Gives a page, and what leaves together with it, an age.
    @inline(__always)
    func setAge(_ region: Region, _ head: Int, _ stamp: UInt8) {
        if region.unitPages == 1 {
            region.ages[head] = stamp
        } else {
            region.ages.set(region.unit(of: head), stamp)
        }
    }

    /// Runs `body` between two steps of the worker.
    func withWorkerPaused<Result>(_ body: () -> Result) -> Result {
        withWorkerHeldBack { holdingPassLock(body) }
    }

    /// The worker begins no step until `body` has ended.
    func withWorkerHeldBack<Result>(_ body: () -> Result) -> Result {
        controlWaiting.add(1, ordering: .relaxed)
        defer { controlWaiting.subtract(1, ordering: .relaxed) }
        return body()
    }

    /// Runs `body` when no other thread is at the ages and the list of blocks.
    func holdingPassLock<Result>(_ body: () -> Result) -> Result {
        while !passLock.take() { kernel.pause() }
        defer { passLock.letGo() }
        return body()
    }

    /// Runs `body`, which may wait for a device for as long as that takes, while control calls go
    /// on: they are made by threads that may not wait so long. What the worker has in hand then,
    /// they leave right:
    /// - A block of which it has pages stays, because `detach` waits for `Region.inHand`.
    ///   Other blocks go, and such that come are met by the next step.
    /// - Pages being evicted are `staged`. Ages that are exported or taken over count them as not in
    ///   RAM; whoever ends their stay sets their age.
    /// - Stored pages that are being moved belong to whoever takes their entry first, as always.
    ///
    /// Tiers come and go without the pass lock. Worker thread; without the lock, nothing but `body`.
    func lettingControlIn<Result>(_ body: () -> Result) -> Result {
        guard passLock.isMine else { return body() }
        passLock.letGo()
        defer { while !passLock.take() { kernel.pause() } }
        return body()
    }

    /// Moves a page's entry, giving the simulation a chance to get in between.
    @inline(__always)
    func transition(_ region: Region, _ page: Int, from old: PageEntry, to new: PageEntry) -> Bool {
        kernel.interleave()
        return region.table.exchange(page, from: old, to: new)
    }
}
