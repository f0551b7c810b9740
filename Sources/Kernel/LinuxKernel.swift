import CLinux

/// The real kernel: one userfaultfd and this process's pagemap.
public final class LinuxKernel: Sendable {
    let faults: Descriptor
    let pagemap: Descriptor
    let tracking: PageTracking
    public let features: KernelFeatures

    /// Opens a userfaultfd with exactly the features the pager will use.
    ///
    /// Faults of the kernel itself (KVM, device I/O) must reach us too, so the
    /// descriptor is never opened with UFFD_USER_MODE_ONLY.
    public init(tracking: PageTracking) throws(Errno) {
        let features = try KernelFeatures.probe()
        let number = clinux_uffd_open()
        if let errno = Errno.from(number) { throw errno }
        let faults = Descriptor(adopting: number)
        var wanted = CLINUX_UFFD_FEATURE_MOVE | tracking.features
        if features.poison { wanted |= CLINUX_UFFD_FEATURE_POISON }
        if features.minorShared {
            wanted |= CLINUX_UFFD_FEATURE_MISSING_SHMEM | CLINUX_UFFD_FEATURE_MINOR_SHMEM
        }
        if features.minorHuge {
            wanted |= CLINUX_UFFD_FEATURE_MISSING_HUGETLBFS | CLINUX_UFFD_FEATURE_MINOR_HUGETLBFS
        }
        var offered: UInt64 = 0
        if let errno = unsafe Errno.from(clinux_uffd_api(number, wanted, &offered)) { throw errno }
        let map = clinux_pagemap_open()
        if let errno = Errno.from(map) { throw errno }
        self.faults = faults
        pagemap = Descriptor(adopting: map)
        self.tracking = tracking
        self.features = features
    }

    /// What an event loop polls to learn of faults.
    public var faultDescriptor: Int32 { faults.number }
}

extension LinuxKernel: KernelPort {
    public typealias Device = LinuxDevice

    public func track(start: UInt64, length: UInt64) -> Errno? {
        .from(clinux_uffd_register(faults.number, start, length, tracking.registerMode))
    }

    public func watch(start: UInt64, length: UInt64, tracked: Bool, shared: Bool) -> Errno? {
        // Registering again without RWP is refused (EBUSY): always name all modes.
        let mode =
            CLINUX_UFFD_REGISTER_MISSING | (tracked ? tracking.registerMode : 0)
            | (shared ? CLINUX_UFFD_REGISTER_MINOR : 0)
        return .from(clinux_uffd_register(faults.number, start, length, mode))
    }

    public func unregister(start: UInt64, length: UInt64) -> Errno? {
        .from(clinux_uffd_unregister(faults.number, start, length))
    }

    public func arm(start: UInt64, length: UInt64) -> Errno? {
        switch tracking {
        case .none: .invalid
        case .readWriteProtection: .from(clinux_uffd_arm(faults.number, start, length))
        case .writeProtection, .synchronousWriteProtection:
            .from(clinux_uffd_arm_writes(faults.number, start, length))
        }
    }

    public func disarm(start: UInt64, length: UInt64) -> Placement {
        switch tracking {
        case .none: .failed(.invalid)
        case .readWriteProtection:
            Self.placement(clinux_uffd_disarm(faults.number, start, length, true))
        case .writeProtection, .synchronousWriteProtection:
            Self.placement(clinux_uffd_disarm_writes(faults.number, start, length, true))
        }
    }

    public func setSynchronous(_ isSynchronous: Bool) -> Errno? {
        guard tracking == .readWriteProtection else { return .invalid }
        return .from(
            clinux_uffd_set_mode(
                faults.number, isSynchronous ? 0 : CLINUX_UFFD_FEATURE_RWP_ASYNC,
                isSynchronous ? CLINUX_UFFD_FEATURE_RWP_ASYNC : 0))
    }

    public func collapse(start: UInt64) -> Errno? {
        if let errno = disarmQuietly(start: start, length: UInt64(hugePageSize)) { return errno }
        let address = unsafe UnsafeMutableRawPointer(bitPattern: UInt(start))
        return .from(unsafe clinux_collapse(address, UInt64(hugePageSize)))
    }

    /// MADV_COLLAPSE refuses armed pages (EINVAL). Whoever waits is woken by the answer to
    /// its message.
    private func disarmQuietly(start: UInt64, length: UInt64) -> Errno? {
        switch tracking {
        case .none: nil
        case .readWriteProtection: .from(clinux_uffd_disarm(faults.number, start, length, false))
        case .writeProtection, .synchronousWriteProtection:
            .from(clinux_uffd_disarm_writes(faults.number, start, length, false))
        }
    }

    public func scan(
        start: UInt64, end: UInt64, tracked: Bool, into runs: UnsafeMutableBufferPointer<ScanRun>
    ) -> ScanResult {
        unsafe withUnsafeTemporaryAllocation(of: clinux_page_region.self, capacity: runs.count) { regions in
            var walkedTo = start
            let count = unsafe clinux_pagemap_scan(
                pagemap.number, start, end, CLINUX_PAGE_IS_PRESENT | CLINUX_PAGE_IS_SWAPPED,
                CLINUX_PAGE_IS_PRESENT | CLINUX_PAGE_IS_HUGE | (tracked ? tracking.touchedCategory : 0),
                regions.baseAddress!, Int32(regions.count), &walkedTo)
            if let errno = Errno.from(count) { return .failed(errno) }
            for index in 0..<Int(count) {
                let region = unsafe regions[index]
                unsafe runs[index] = ScanRun(
                    start: region.start, end: region.end,
                    touched: region.categories & tracking.touchedCategory != 0,
                    isHuge: region.categories & CLINUX_PAGE_IS_HUGE != 0,
                    isSwapped: region.categories & CLINUX_PAGE_IS_PRESENT == 0)
            }
            // Linux fills the vector 512 regions at a time, and when it fills up exactly
            // with the end of the range, walk_end is left at an earlier portion: the
            // last region tells how far the walk really came.
            if count > 0 { walkedTo = max(walkedTo, unsafe regions[Int(count) - 1].end) }
            return .runs(count: Int(count), walkedTo: walkedTo)
        }
    }

    public func move(from source: UInt64, to target: UInt64, length: UInt64) -> MoveResult {
        var moved: UInt64 = 0
        let answer = unsafe clinux_uffd_move(faults.number, target, source, length, &moved)
        let stop: MoveStop =
            switch Errno.from(answer) {
            case nil: .none
            case .busy?: .pinned
            case .noSuchEntry?: .hole
            case .again?: .again
            case let errno?: .failed(errno)
            }
        return MoveResult(moved: moved, stop: stop)
    }

    public func discard(start: UInt64, length: UInt64) -> Errno? {
        unsafe .from(clinux_release(UnsafeMutableRawPointer(bitPattern: UInt(start)), length))
    }

    public func isMerged(_ address: UInt64) -> Bool {
        clinux_pagemap_shares(pagemap.number, address) == 1
    }

    public func zap(start: UInt64, length: UInt64) -> Errno? {
        unsafe .from(clinux_release(UnsafeMutableRawPointer(bitPattern: UInt(start)), length))
    }

    public func inCore(
        start: UInt64, length: UInt64, into pages: UnsafeMutableBufferPointer<UInt8>
    ) -> Errno? {
        precondition(Int(length) / pageSize <= pages.count)
        let address = unsafe UnsafeMutableRawPointer(bitPattern: UInt(start))
        return unsafe .from(clinux_in_core(address, length, pages.baseAddress))
    }

    public func mapCached(_ target: UInt64, length: UInt64) -> Placement {
        Self.placement(clinux_uffd_continue(faults.number, target, length))
    }

    public func copyCached(from start: UInt64, length: UInt64, to buffer: UnsafeMutableRawPointer) {
        unsafe buffer.copyMemory(from: UnsafeRawPointer(bitPattern: UInt(start))!, byteCount: Int(length))
    }

    public func fillView(start: UInt64, length: UInt64) -> Errno? {
        .from(unsafe clinux_populate_write(UnsafeMutableRawPointer(bitPattern: UInt(start)), length))
    }

    public func punch(start: UInt64, length: UInt64) -> Errno? {
        unsafe .from(clinux_punch(UnsafeMutableRawPointer(bitPattern: UInt(start)), length))
    }

    public func copy(from source: UnsafeRawPointer, to target: UInt64, length: UInt64) -> Placement {
        let from = UInt64(UInt(bitPattern: source))
        return Self.placement(clinux_uffd_copy(faults.number, target, from, length))
    }

    public func zero(_ target: UInt64) -> Placement {
        Self.placement(clinux_uffd_zero(faults.number, target, UInt64(pageSize)))
    }

    public func poison(_ target: UInt64, length: UInt64) -> Placement {
        Self.placement(clinux_uffd_poison(faults.number, target, length))
    }

    @inline(__always)
    private static func placement(_ answer: Int32) -> Placement {
        switch Errno.from(answer) {
        case nil: .placed
        case .exists?: .alreadyThere
        case .again?: .busy
        case let errno?: .failed(errno)
        }
    }

    public func wake(start: UInt64, length: UInt64) {
        let answer = clinux_uffd_wake(faults.number, start, length)
        precondition(answer == 0, "UFFDIO_WAKE fails only for a malformed range")
    }

    public func readFaults(into faults: UnsafeMutableBufferPointer<FaultMessage>) -> Int {
        unsafe withUnsafeTemporaryAllocation(of: clinux_fault.self, capacity: faults.count) { raw in
            let count = unsafe clinux_uffd_read(self.faults.number, raw.baseAddress!, Int32(raw.count))
            precondition(count >= 0, "reading our own userfaultfd failed")
            for index in 0..<Int(count) {
                let flags = unsafe raw[index].flags
                unsafe faults[index] = FaultMessage(
                    address: raw[index].address, kind: Self.kind(flags),
                    isWrite: flags & CLINUX_UFFD_FAULT_WRITE != 0)
            }
            return Int(count)
        }
    }

    @inline(__always)
    private static func kind(_ flags: UInt64) -> FaultKind {
        if flags & CLINUX_UFFD_FAULT_WP != 0 { return .writeProtected }
        if flags & CLINUX_UFFD_FAULT_RWP != 0 { return .readWriteProtected }
        return flags & CLINUX_UFFD_FAULT_MINOR != 0 ? .minor : .missing
    }

    public func release(start: UInt64, length: UInt64) {
        let answer = unsafe clinux_release(UnsafeMutableRawPointer(bitPattern: UInt(start)), length)
        precondition(answer == 0, "MADV_DONTNEED of our own mapping cannot fail")
    }

    public func now() -> UInt64 { clinux_now() }
    public func threadTime() -> UInt64 { clinux_thread_time() }
    public func pause() { clinux_yield() }
    @inlinable public func interleave() {}
}

/// Switches kernel same-page merging off for a range: merged pages cannot be moved
/// (UFFDIO_MOVE answers EBUSY) and lose their arming.
public func forbidMerging(start: UInt64, length: UInt64) -> Errno? {
    unsafe .from(clinux_forbid_merging(UnsafeMutableRawPointer(bitPattern: UInt(start)), length))
}
