import Kernel

/// What the guards do differently, and the only place that knows: how pages are taken
/// from the guest, where their contents are read meanwhile, how they are put back, and
/// how they are let go once the store has them. `Pager+GuardSteps.swift` has the parts.
///
///                 `move`, `freeze`          `minor`, `freeze` shared     `write-protect`
///     before      freeze: SET_MODE, armed   freeze: the same             –
///                 pages wait if accessed
///     take        freeze: but for pages     minor: MADV_DONTNEED of      UFFDIO_WRITEPROTECT
///                 touched by now;           the guest's mapping;
///                 UFFDIO_MOVE to staging    freeze: all but pages
///                                           touched by now, in place
///     taken, is   missing                   minor: not mapped, a minor   readable; writes wait
///                                           fault; freeze: frozen
///     read at     staging                   the I/O view                 the guest's address
///     put back    UFFDIO_COPY               minor: UFFDIO_CONTINUE;      UFFDIO_WRITEPROTECT 0
///                                           freeze: UFFDIO_RWPROTECT 0
///     let go      – (it has left already)   MADV_REMOVE through the      MADV_DONTNEED, wake
///                                           I/O view, wake
///     clean up    MADV_DONTNEED of staging  MADV_DONTNEED of the view    –
///     thaw        freeze: once all are      freeze: once none is in      –
///                 moved                     the guest any more
///
/// `minor` of huge pages is in `Evictor+Whole.swift`: as `minor`, but a huge page is copied out
/// before it counts as taken, and all else is done to it as one.
///
/// The worker reads `write-protect`ed pages where the guest has them, and cannot wait for
/// itself: see `takeProtected`.
extension Pager {
    /// How far taking a run of pages came.
    struct Taken {
        var pages: Int
        /// Why it stopped there.
        var stop: TakeStop
    }

    enum TakeStop {
        /// It did not, or only to be called again for the rest.
        case none
        /// The address space is changing, or a pinned page follows; repeat.
        case again
        /// The next page is pinned, merged or shared after fork.
        case pinned
        /// The next page is not there, in use, or cannot be had.
        case left
        /// It had to be ended: the huge page cannot be split, it seems.
        case stuck
        /// Somebody holds the huge page: nothing of it can be taken now.
        case held
    }

    /// Makes holes in a part of a block fault to us, and whatever its guard needs besides.
    func watch(_ region: Region, _ pages: Range<Int>) -> Errno? {
        kernel.watch(
            start: region.address(of: pages.lowerBound), length: UInt64(pages.count * pageSize),
            tracked: tracking, shared: region.guard.isShared)
    }

    /// Before pages of a batch are claimed. False: none can be taken now. `afterTaking` and
    /// `afterBatch` follow in any case. Worker only.
    func beforeTaking(_ region: Region) -> Bool {
        switch region.guard {
        case .move, .minor, .minorHuge, .writeProtect: true
        case .freeze, .freezeShared: freeze()
        }
    }

    /// Takes neighbours in state `leaving`, from the first on: from then on an access to a
    /// taken page, with `write-protect` a write, faults to us, and its contents keep still.
    /// Where memory is frozen, those that are in use have been sorted out. Worker only.
    func take(_ region: Region, _ pages: Range<Int>) -> Taken {
        switch region.guard {
        case .move: return takeByMove(region, pages)
        case .minor:
            let start = region.address(of: pages.lowerBound)
            let errno = kernel.zap(start: start, length: UInt64(pages.count * pageSize))
            return errno == nil ? takeCached(region, pages) : Taken(pages: 0, stop: .left)
        case .freeze: return takeByMove(region, pages)
        case .freezeShared: return takeCached(region, pages)
        case .writeProtect: return takeProtected(region, pages)
        case .minorHuge: leavesByPages()
        }
    }

    /// All claimed pages have been taken, or stay. Worker only.
    func afterTaking(_ region: Region) {
        if region.guard == .freeze { thaw() }
    }

    /// No page of the batch is in the guest and on its way any more. Worker only.
    func afterBatch(_ region: Region) {
        if region.guard == .freezeShared { thaw() }
    }

    /// Where a taken page is read. Stays readable until `cleanUp`; what is read is worth
    /// something only while the page is `staged`.
    @inline(__always)
    func takenAddress(_ region: Region, _ page: Int) -> UInt64 {
        switch region.guard {
        case .move, .freeze: staging.address(of: region, page)
        case .minor, .freezeShared: region.viewAddress(of: page)
        case .minorHuge: leavesByPages()
        case .writeProtect: region.address(of: page)
        }
    }

    @inline(__always)
    func takenContents(_ region: Region, _ page: Int) -> UnsafeRawPointer {
        unsafe UnsafeRawPointer(bitPattern: UInt(takenAddress(region, page)))!
    }

    private func leavesByPages() -> Never { preconditionFailure("huge pages leave whole") }

    /// Gives a taken page back to the guest, and wakes whoever waits for it.
    func putBack(_ region: Region, _ page: Int) -> Placement {
        let address = region.address(of: page)
        switch region.guard {
        case .move, .freeze:
            // Not by MOVE: the worker may be reading the staged page at this moment.
            let contents = unsafe takenContents(region, page)
            return wakingIfThere(address) { unsafe kernel.copy(from: contents, to: address) }
        case .minor, .minorHuge:
            return map(region, page)
        case .freezeShared, .writeProtect:
            // Where the mapping vanished meanwhile, the access that is woken by this finds the
            // page resident and not mapped.
            return lift(region, page)
        }
    }

    /// Lifts a page's protection, and wakes whoever waits for it.
    func lift(_ region: Region, _ page: Int) -> Placement {
        let address = region.address(of: page)
        return wakingIfThere(address, region.unitLength) {
            kernel.disarm(start: address, length: region.unitLength)
        }
    }

    /// Puts a page from the store into the guest, and wakes whoever waits for it.
    func place(_ contents: UnsafeRawPointer, _ region: Region, _ page: Int) -> Placement {
        let address = region.address(of: page)
        let placement = wakingIfThere(address) { unsafe kernel.copy(from: contents, to: address) }
        guard placement == .alreadyThere, region.guard.isShared else { return placement }
        return unsafe overwrite(region, page, with: contents)
    }

    /// Maps a resident page of shared memory that an access found unmapped. Nil when it
    /// is a hole, or when holes are all that can fault.
    func mapAgain(_ region: Region, _ page: Int) -> Placement? {
        guard region.guard.isShared else { return nil }
        let placement = map(region, page)
        return placement == .failed(.badAddress) ? nil : placement
    }

    /// Frees the memory of neighbours that the store has, in state `punching`. They are not
    /// mapped or still protected, and nobody changes that: an access waits until they are
    /// `stored`. Worker only.
    func letGo(_ region: Region, _ pages: Range<Int>) {
        guard !pages.isEmpty else { return }
        let length = UInt64(pages.count * pageSize)
        switch region.guard {
        case .move, .freeze: return
        case .minorHuge: leavesByPages()
        case .minor:
            let errno = kernel.punch(start: region.viewAddress(of: pages.lowerBound), length: length)
            // A page that stayed in its file costs memory and is overwritten when it is fetched.
            if let errno { unfreed(region, errno) }
        case .freezeShared:
            let errno = kernel.punch(start: region.viewAddress(of: pages.lowerBound), length: length)
            if let errno { return keepUnfreed(region, pages, errno) }
        case .writeProtect:
            let errno = kernel.discard(start: region.address(of: pages.lowerBound), length: length)
            if let errno { return keepUnfreed(region, pages, errno) }
        }
        for page in pages {
            let entry = region.table[page]
            settle(region, page, from: entry, to: entry.becoming(.stored))
        }
        // The message of an access that came meanwhile is used up, and neither call wakes anybody.
        kernel.wake(start: region.address(of: pages.lowerBound), length: length)
    }

    /// Ends what `take` began, once no page of `pages` is `staged` or `rescuing`. Worker only.
    func cleanUp(_ region: Region, _ pages: ClosedRange<Int>) {
        let length = UInt64(pages.count * pageSize)
        switch region.guard {
        case .move, .freeze:
            kernel.release(start: staging.address(of: region, pages.lowerBound), length: length)
        case .minorHuge: leavesByPages()
        case .minor, .freezeShared:
            // What was read is mapped in the view now, and would be counted twice in RSS.
            _ = kernel.zap(start: region.viewAddress(of: pages.lowerBound), length: length)
        case .writeProtect: break
        }
    }
}
