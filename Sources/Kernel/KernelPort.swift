/// What an access was stopped by.
public enum FaultKind: Sendable {
    /// No page is there.
    case missing
    /// Shared memory: the page is in its file, and not mapped.
    case minor
    /// The page is write-protected, and the access a write.
    case writeProtected
    /// The page is protected against any access.
    case readWriteProtected

    /// The page was there, and only protected.
    public var isProtection: Bool { self == .writeProtected || self == .readWriteProtected }
}

/// What one fault message says.
public struct FaultMessage: Sendable {
    /// Page-aligned.
    public var address: UInt64
    public var kind: FaultKind
    /// The access was a write. False says nothing: KVM may ask for write access later.
    public var isWrite: Bool

    public init(address: UInt64, kind: FaultKind = .missing, isWrite: Bool) {
        self.address = address
        self.kind = kind
        self.isWrite = isWrite
    }
}

/// What the kernel answered to the placing of one page. Every case is ordinary.
public enum Placement: Equatable, Sendable {
    case placed
    /// EEXIST: a page is there, the kernel changed nothing. The waiter still wants a wake.
    case alreadyThere
    /// EAGAIN: the address space is changing; repeat.
    case busy
    case failed(Errno)
}

/// Why a move ended before its length.
public enum MoveStop: Equatable, Sendable {
    /// It did not: all was moved.
    case none
    /// EBUSY: the next page is pinned, merged or shared after fork, and stays where it is.
    case pinned
    /// ENOENT: the next source page does not exist.
    case hole
    /// EAGAIN: the address space is changing, or a pinned page follows; repeat.
    case again
    case failed(Errno)
}

public struct MoveResult: Equatable, Sendable {
    /// Bytes moved before the stop.
    public var moved: UInt64
    public var stop: MoveStop

    public init(moved: UInt64, stop: MoveStop) {
        self.moved = moved
        self.stop = stop
    }
}

/// A run of pages that are present, or that are all swapped out; all touched or all
/// untouched since they were armed.
public struct ScanRun: Sendable {
    public var start: UInt64
    public var end: UInt64
    public var touched: Bool
    /// Mapped by huge pages: touched or not as wholes.
    public var isHuge: Bool
    /// Not present: their page-table entries say where in the host's swap they are. Arming
    /// and moving such entries does not bring the pages back. So looks a poisoned page, too.
    public var isSwapped: Bool

    public init(
        start: UInt64, end: UInt64, touched: Bool, isHuge: Bool = false, isSwapped: Bool = false
    ) {
        self.start = start
        self.end = end
        self.touched = touched
        self.isHuge = isHuge
        self.isSwapped = isSwapped
    }
}

public enum ScanResult: Sendable {
    /// `count` runs were written; addresses below `walkedTo` are done.
    case runs(count: Int, walkedTo: UInt64)
    case failed(Errno)
}

/// The operating system as the pager uses it. `LinuxKernel` is the real one; the
/// simulated one follows the same rules with a seeded scheduler and injected errors.
///
/// All ranges are page-aligned addresses of this process, in hugetlbfs whole huge pages: what
/// is said of a page holds for a huge page there. Any thread may call
/// anything, except where a requirement names one thread. Answers are values,
/// not thrown, so that the hot path has no error plumbing.
public protocol KernelPort: AnyObject, Sendable {
    /// What keeps evicted pages outside RAM.
    associatedtype Device: CountedDevice

    /// Registers guest memory for tracking, without missing faults.
    func track(start: UInt64, length: UInt64) -> Errno?
    /// Makes touches of missing pages fault to us, and in shared memory touches of
    /// pages that are not mapped; `tracked` when `track` covers the range.
    func watch(start: UInt64, length: UInt64, tracked: Bool, shared: Bool) -> Errno?
    func unregister(start: UInt64, length: UInt64) -> Errno?

    /// Arms present and swapped pages: their next touch is noted (UFFDIO_RWPROTECT, or
    /// UFFDIO_WRITEPROTECT where only writes are). Holes are skipped.
    func arm(start: UInt64, length: UInt64) -> Errno?
    /// Lifts the protection of pages, armed or not, and wakes whoever waits for them
    /// (UFFDIO_RWPROTECT or UFFDIO_WRITEPROTECT, mode 0). Holes are skipped.
    func disarm(start: UInt64, length: UInt64) -> Placement
    /// From now on an access to an armed page waits and is a message, on the whole
    /// userfaultfd; or, with false, is only noted again, which wakes all who wait
    /// (UFFDIO_SET_MODE). Where only writes are tracked it is fixed at the start.
    func setSynchronous(_ isSynchronous: Bool) -> Errno?
    /// Makes a huge page of 512 present pages (MADV_COLLAPSE). They count as touched.
    func collapse(start: UInt64) -> Errno?
    /// Reports present and swapped pages in runs. Without tracking every run is untouched.
    func scan(
        start: UInt64, end: UInt64, tracked: Bool, into runs: UnsafeMutableBufferPointer<ScanRun>
    ) -> ScanResult

    /// UFFDIO_MOVE: pages change their address, atomically and without a copy.
    /// The target must be registered with the same userfaultfd and empty there.
    func move(from source: UInt64, to target: UInt64, length: UInt64) -> MoveResult
    /// MADV_DONTNEED on private memory of the guest: the pages are gone. Wakes nobody. On
    /// failure some may be gone.
    func discard(start: UInt64, length: UInt64) -> Errno?
    /// Whether a present page is mapped elsewhere as well. In private memory that no fork
    /// shares, it is merged with an equal one then (KSM).
    func isMerged(_ address: UInt64) -> Bool
    /// MADV_DONTNEED on a mapping of shared memory: the pages are not mapped there any
    /// more, and stay in their file.
    func zap(start: UInt64, length: UInt64) -> Errno?
    /// Which pages of a mapping of shared memory are in RAM, mapped or not (mincore):
    /// 1 for each that is, 0 for holes and for what the host has swapped out.
    func inCore(start: UInt64, length: UInt64, into pages: UnsafeMutableBufferPointer<UInt8>) -> Errno?
    /// UFFDIO_CONTINUE of one page of shared memory: maps it as it is in its file, and
    /// wakes its waiters. EFAULT: it is not there.
    func mapCached(_ target: UInt64, length: UInt64) -> Placement
    /// Copies a huge page that is in its file out of a second mapping. It must be there and
    /// stay meanwhile: a hole would be filled, or be a SIGBUS where no huge page is free.
    func copyCached(from start: UInt64, length: UInt64, to buffer: UnsafeMutableRawPointer)
    /// Makes a huge page present and writable in a second mapping, with zeros if its file has
    /// a hole there (MADV_POPULATE_WRITE). EFAULT: no huge page is free.
    func fillView(start: UInt64, length: UInt64) -> Errno?
    /// MADV_REMOVE on a mapping of shared memory: the pages leave their file and every
    /// mapping of it. Wakes nobody.
    func punch(start: UInt64, length: UInt64) -> Errno?
    /// UFFDIO_COPY of one page; wakes its waiters. In hugetlbfs it is `alreadyThere`, too,
    /// when no huge page is free.
    func copy(from source: UnsafeRawPointer, to target: UInt64, length: UInt64) -> Placement
    /// UFFDIO_ZEROPAGE of one page; wakes its waiters. Not in hugetlbfs.
    func zero(_ target: UInt64) -> Placement
    /// UFFDIO_POISON of one page; wakes its waiters. In hugetlbfs a page that was armed when
    /// it was unmapped is `alreadyThere` until it is disarmed.
    func poison(_ target: UInt64, length: UInt64) -> Placement
    func wake(start: UInt64, length: UInt64)

    /// Takes waiting fault messages without blocking. Fault thread only.
    func readFaults(into faults: UnsafeMutableBufferPointer<FaultMessage>) -> Int

    /// Gives memory of our own back to the host (MADV_DONTNEED).
    func release(start: UInt64, length: UInt64)

    /// Monotonic nanoseconds.
    func now() -> UInt64
    /// CPU time that the calling thread has used, in nanoseconds.
    func threadTime() -> UInt64
    /// Lets another thread run; called while waiting for one that is inside a short call.
    func pause()
    /// Where another thread might get in between; only the simulation does anything here.
    func interleave()
}

extension KernelPort {
    /// UFFDIO_COPY of one page of ordinary size.
    @inline(__always)
    public func copy(from source: UnsafeRawPointer, to target: UInt64) -> Placement {
        unsafe copy(from: source, to: target, length: UInt64(pageSize))
    }
}
