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
    public let host: Host
    /// Guest memory is registered with RWP.
    public let tracking: Bool
    /// Touches of shared memory are found by unmapping it, reads included.
    public let zapsShared: Bool
    public let readErrorAction: ReadErrorAction
    public let regions = RegionList()
    public let counters = Counters()
    public let faultTimes = FaultTimes()
    public let staging: Staging
    /// Held by the worker for a pass and for each huge page's eviction, and by control calls.
    let passLock = Lock(())
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
    /// Wakes the worker before its time.
    let wakeWorker: @Sendable () -> Void
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
        wakeWorker: @escaping @Sendable () -> Void
    ) throws(Errno) {
        kernel = port
        staging = try Staging()
        if let errno = kernel.watch(
            start: staging.start, length: UInt64(staging.length), tracked: false, shared: false)
        {
            throw errno
        }
        self.wakeWorker = wakeWorker
        self.store = store
        self.settings = settings
        self.host = host
        self.tracking = tracking
        self.zapsShared = zapsShared
        self.readErrorAction = readErrorAction
    }

    /// Host memory that the guest's RAM costs now, in bytes.
    public var cost: Int {
        (counters.residentPages.value + counters.stagedPages.value) * pageSize + store.heldBytes
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
        controlWaiting.add(1, ordering: .relaxed)
        defer { controlWaiting.subtract(1, ordering: .relaxed) }
        return holdingPassLock(body)
    }

    /// Runs `body` when no other thread is at the ages and the list of blocks.
    func holdingPassLock<Result>(_ body: () -> Result) -> Result {
        while true {
            // Not a blocking lock: what the holder waits for may be a thread that the
            // simulation runs only when this one pauses.
            if let result = passLock.withLockIfAvailable({ _ in body() }) { return result }
            kernel.pause()
        }
    }

    /// Moves a page's entry, giving the simulation a chance to get in between.
    @inline(__always)
    func transition(_ region: Region, _ page: Int, from old: PageEntry, to new: PageEntry) -> Bool {
        kernel.interleave()
        return region.table.exchange(page, from: old, to: new)
    }
}
