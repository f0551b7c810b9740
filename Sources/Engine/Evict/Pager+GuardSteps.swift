import Kernel

/// The parts of which the guards are made.
extension Pager {
    // MARK: Taking

    func takeByMove(_ region: Region, _ pages: Range<Int>) -> Taken {
        let (result, moved, isStuck) = moveToStaging(region, pages)
        if region.guard == .freeze, moved > 0 {
            // Whoever waited for a frozen page sleeps on: MOVE wakes only where it moves to.
            kernel.wake(start: region.address(of: pages.lowerBound), length: UInt64(moved * pageSize))
        }
        if isStuck { return Taken(pages: moved, stop: .stuck) }
        let stop: TakeStop =
            switch result.stop {
            case .none: .none
            case .again: .again
            // Without its first page the rest would be a part, and stuck.
            case .pinned: moved == 0 && isMappedHuge(region, pages.lowerBound) ? .held : .pinned
            case .hole, .failed: .left
            }
        return Taken(pages: moved, stop: moved == pages.count ? .none : stop)
    }

    /// How many of the pages that a MOVE was to take it has taken, from the first on: those that
    /// staging has and the guest has not. A MOVE that ends early may have moved more than it says:
    /// Linux 6.18 at least does not count the pages that follow one it had to wait for, under
    /// migration say (`move_pages` kept the EAGAIN; 7.3 does not). Pages that are in staging
    /// and count as resident would be lost.
    func movedPages(_ region: Region, _ pages: Range<Int>) -> Int {
        let staged = staging.address(of: region, pages.lowerBound)
        var there = staged
        sureRuns(from: staged, to: staged + UInt64(pages.count * pageSize)) { run in
            guard run.start == there else { return false }
            there = run.end
            return true
        }
        let start = region.address(of: pages.lowerBound)
        var left = start + (there - staged)
        sureRuns(from: start, to: left) { run in
            left = run.start
            return false
        }
        return Int(left - start) / pageSize
    }

    /// As `forEachRun`, until the kernel has an answer: to go on without one would lose pages.
    private func sureRuns(from start: UInt64, to end: UInt64, _ body: (ScanRun) -> Bool) {
        var next = start
        while let errno = forEachRun(
            from: next, to: end, tracked: false,
            { run in
                next = run.end
                return body(run)
            })
        {
            noteScanFailed(errno)
            kernel.pause()
        }
    }

    /// Only what is in RAM can be read without filling a hole. Asked after the pages were
    /// unmapped or frozen, since until then the guest may fill holes by itself; a page that
    /// the host has swapped out stays with the host.
    func takeCached(_ region: Region, _ pages: Range<Int>) -> Taken {
        unsafe withUnsafeTemporaryAllocation(of: UInt8.self, capacity: pages.count) { inCore in
            let errno = unsafe kernel.inCore(
                start: region.viewAddress(of: pages.lowerBound),
                length: UInt64(pages.count * pageSize), into: inCore)
            if errno != nil { return Taken(pages: 0, stop: .left) }
            let cached = unsafe inCore.firstIndex(of: 0) ?? pages.count
            return Taken(pages: cached, stop: cached == pages.count ? .none : .left)
        }
    }

    /// Protects pages against writes, and takes those that are present: a write waits from
    /// now on, a read goes on.
    ///
    /// The worker then reads the pages where the guest has them. It cannot come to wait for
    /// itself: a present page that is protected against writes is read without a message,
    /// and one that the host swaps out meanwhile is brought back by the kernel. Only a
    /// discard makes a hole of a taken page. Then the read is a missing fault, and waits for
    /// the end of that discard and for the fault server, neither of which waits for the
    /// worker: no page is in a short state of the worker's while it reads, and it holds no
    /// lock but `passLock`, for which they do not ask. What it reads in the end, zeros, is
    /// dropped, as the page is not `staged` any more.
    func takeProtected(_ region: Region, _ pages: Range<Int>) -> Taken {
        let start = region.address(of: pages.lowerBound)
        let end = region.address(of: pages.upperBound)
        if kernel.arm(start: start, length: end - start) != nil { return Taken(pages: 0, stop: .left) }
        var protected = start
        let answer = forEachRun(from: start, to: end) { run in
            guard run.start == protected, !run.touched, !run.isSwapped else { return false }
            protected = run.end
            return true
        }
        // What was protected in vain stays so: it looks untouched, and a write lifts it.
        let count = answer == nil ? Int(protected - start) / pageSize : 0
        return Taken(pages: count, stop: count == pages.count ? .none : .left)
    }

    /// Marks, by their positions in their huge page, those of neighbours that somebody can access
    /// without waiting: present ones that are not armed, and what the host has swapped out. Looked at
    /// while the guest is frozen, since what was seen before that may have been touched since; and
    /// once, since a touched page's PTE may vanish before a second look. `evenTouched`: they are
    /// armed first.
    func markUnfrozen(
        _ region: Region, _ pages: Range<Int>, evenTouched: Bool, in isUnfrozen: inout [Bool]
    ) {
        let start = region.address(of: pages.lowerBound)
        if evenTouched { _ = kernel.arm(start: start, length: UInt64(pages.count * pageSize)) }
        func mark(_ pages: Range<Int>) {
            for page in pages { isUnfrozen[region.positionInHugePage(page)] = true }
        }
        let errno = forEachRun(from: start, to: region.address(of: pages.upperBound)) { run in
            if run.touched || run.isSwapped {
                mark(region.page(at: run.start)..<region.page(at: run.end - 1) + 1)
            }
            return true
        }
        if errno != nil { mark(pages) }
    }

    /// Goes through the runs of present and swapped pages in a range until `body` answers false.
    /// `tracked`: whether they tell what was touched.
    func forEachRun(
        from start: UInt64, to end: UInt64, tracked: Bool = true, _ body: (ScanRun) -> Bool
    ) -> Errno? {
        unsafe withUnsafeTemporaryAllocation(of: ScanRun.self, capacity: Self.runsPerScan) { runs in
            var address = start
            while address < end {
                let result = unsafe kernel.scan(start: address, end: end, tracked: tracked, into: runs)
                guard case .runs(let count, let walkedTo) = result, walkedTo > address else {
                    if case .failed(let errno) = result { return errno }
                    return .again
                }
                for index in 0..<count {
                    if unsafe !body(runs[index]) { return nil }
                }
                address = walkedTo
            }
            return nil
        }
    }

    private static var runsPerScan: Int { 64 }

    // MARK: Freezing

    /// Accesses to armed pages wait from now on, until `thaw`. Linux waits for faults that it
    /// is resolving by itself at this moment. The pager itself reads no armed page: it reads
    /// staging and the I/O view, which are not tracked.
    func freeze() -> Bool {
        if let errno = kernel.setSynchronous(true) {
            noteFreezeFailed(errno)
            return false
        }
        isFrozen.store(true, ordering: .relaxed)
        return true
    }

    /// Ends `freeze`. Linux wakes all who wait, for whatever page: some fault again and are
    /// reported twice.
    func thaw() {
        guard isFrozen.load(ordering: .relaxed) else { return }
        while let errno = kernel.setSynchronous(false) {
            // Accesses to armed pages are answered one by one until it succeeds.
            noteFreezeFailed(errno)
            kernel.pause()
        }
        isFrozen.store(false, ordering: .relaxed)
    }

    private func noteScanFailed(_ errno: Errno) {
        if scanFailed.exchange(true, ordering: .relaxed) { return }
        host.log(
            .warning, "cannot see which pages a move has taken: \(errno.text); eviction waits until it can")
    }

    private func noteFreezeFailed(_ errno: Errno) {
        if freezeFailed.exchange(true, ordering: .relaxed) { return }
        host.log(.warning, "cannot switch the userfaultfd's mode: \(errno.text)")
    }

    // MARK: Putting

    func map(_ region: Region, _ page: Int) -> Placement {
        let address = region.address(of: page)
        return wakingIfThere(address, region.unitLength) {
            kernel.mapCached(address, length: region.unitLength)
        }
    }

    /// The page is in its file although it was punched: punching a part of a huge page
    /// that somebody refers to, for I/O say, only fills that part with zeros. Nobody has
    /// it mapped, since every access faults to us and waits.
    func overwrite(_ region: Region, _ page: Int, with contents: UnsafeRawPointer) -> Placement {
        let view = unsafe UnsafeMutableRawPointer(bitPattern: UInt(region.viewAddress(of: page)))!
        unsafe view.copyMemory(from: contents, byteCount: pageSize)
        return map(region, page)
    }

    /// Repeats while the address space is changing.
    @inline(__always)
    func wakingIfThere(
        _ address: UInt64, _ length: UInt64 = UInt64(pageSize), _ attempt: () -> Placement
    ) -> Placement {
        while true {
            let placement = attempt()
            switch placement {
            case .busy:
                kernel.pause()
            case .alreadyThere:
                // EEXIST wakes nobody.
                kernel.wake(start: address, length: length)
                return placement
            case .placed, .failed:
                return placement
            }
        }
    }

    // MARK: Letting go

    func unfreed(_ region: Region, _ errno: Errno) {
        if punchFailed.exchange(true, ordering: .relaxed) { return }
        host.log(
            .warning,
            "\(region.name): cannot free the memory of evicted pages (\(errno.text)); "
                + "they cost RAM as well as store")
    }

    /// The kernel did not free all of these neighbours, in state `punching`. What is left in
    /// the guest must not change unnoticed, so it stays there, and its stored copy is dropped.
    func keepUnfreed(_ region: Region, _ pages: Range<Int>, _ errno: Errno) {
        unfreed(region, errno)
        for page in pages {
            let entry = region.table[page]
            if !isThere(region, page) {
                settle(region, page, from: entry, to: entry.becoming(.stored))
                kernel.wake(start: region.address(of: page), length: UInt64(pageSize))
                continue
            }
            let locator = Locator(payload: entry.payload)
            store.drop(locator)
            counters.stored(locator.tier, change: -1)
            arrived(region, page)
            settle(region, page, from: entry, to: entry.becoming(.resident, payload: 0))
            // Still protected, perhaps: the access that is woken has that lifted.
            kernel.wake(start: region.address(of: page), length: UInt64(pageSize))
        }
    }

    /// Whether a page that was taken in place is still there.
    private func isThere(_ region: Region, _ page: Int) -> Bool {
        if region.guard.isShared { return takeCached(region, page..<page + 1).pages == 1 }
        var isPresent = false
        let start = region.address(of: page)
        _ = forEachRun(from: start, to: start + UInt64(pageSize)) { _ in
            isPresent = true
            return false
        }
        return isPresent
    }
}
