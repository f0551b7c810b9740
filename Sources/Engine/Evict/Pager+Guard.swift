import Kernel

/// What the guards do differently, and the only place that knows: how pages are taken
/// from the guest, where their contents are read meanwhile, how they are put back, and
/// how they are let go once the store has them.
///
///                 `move`                       `minor`
///     take        UFFDIO_MOVE to staging       MADV_DONTNEED: the page stays in its file
///     taken, is   missing in the guest         not mapped in the guest: a minor fault
///     read at     staging                      the I/O view
///     put back    UFFDIO_COPY                  UFFDIO_CONTINUE
///     let go      – (it has left already)      MADV_REMOVE through the I/O view, wake
///     clean up    MADV_DONTNEED of staging     MADV_DONTNEED of the I/O view
extension Pager {
    /// How far taking a run of pages came.
    struct Taken {
        var pages: Int
        /// Why it stopped there.
        var stop: MoveStop
    }

    /// Makes holes in a part of a block fault to us, and whatever its guard needs besides.
    func watch(_ region: Region, _ pages: Range<Int>) -> Errno? {
        kernel.watch(
            start: region.address(of: pages.lowerBound), length: UInt64(pages.count * pageSize),
            tracked: tracking, shared: region.guard == .minor)
    }

    /// Takes neighbours in state `leaving`, from `first` on: from then on an access to a
    /// taken page faults to us, and its contents keep still. Worker only.
    func take(_ region: Region, _ pages: Range<Int>) -> Taken {
        let start = region.address(of: pages.lowerBound)
        let length = UInt64(pages.count * pageSize)
        switch region.guard {
        case .move:
            let position = region.positionInHugePage(pages.lowerBound)
            let result = kernel.move(from: start, to: staging.address(of: position), length: length)
            return Taken(pages: Int(result.moved) / pageSize, stop: result.stop)
        case .minor:
            if let errno = kernel.zap(start: start, length: length) {
                return Taken(pages: 0, stop: .failed(errno))
            }
            return takeCached(region, pages)
        }
    }

    /// Only what is in RAM can be read without filling a hole. Asked after the zap, since
    /// until then the guest may fill holes by itself; a page that the host has swapped out
    /// stays with the host.
    private func takeCached(_ region: Region, _ pages: Range<Int>) -> Taken {
        unsafe withUnsafeTemporaryAllocation(of: UInt8.self, capacity: pages.count) { inCore in
            let errno = unsafe kernel.inCore(
                start: region.viewAddress(of: pages.lowerBound),
                length: UInt64(pages.count * pageSize), into: inCore)
            if let errno { return Taken(pages: 0, stop: .failed(errno)) }
            let cached = unsafe inCore.firstIndex(of: 0) ?? pages.count
            return Taken(pages: cached, stop: cached == pages.count ? .none : .hole)
        }
    }

    /// Where a taken page is read. Stays readable until `cleanUp`; what is read is worth
    /// something only while the page is `staged`.
    @inline(__always)
    func takenAddress(_ region: Region, _ page: Int) -> UInt64 {
        switch region.guard {
        case .move: staging.address(of: region.positionInHugePage(page))
        case .minor: region.viewAddress(of: page)
        }
    }

    @inline(__always)
    func takenContents(_ region: Region, _ page: Int) -> UnsafeRawPointer {
        unsafe UnsafeRawPointer(bitPattern: UInt(takenAddress(region, page)))!
    }

    /// Gives a taken page back to the guest, and wakes whoever waits for it.
    func putBack(_ region: Region, _ page: Int) -> Placement {
        let address = region.address(of: page)
        switch region.guard {
        case .move:
            // Not by MOVE: the worker may be reading the staged page at this moment.
            let contents = unsafe takenContents(region, page)
            return wakingIfThere(address) { unsafe kernel.copy(from: contents, to: address) }
        case .minor:
            return wakingIfThere(address) { kernel.mapCached(address) }
        }
    }

    /// Puts a page from the store into the guest, and wakes whoever waits for it.
    func place(_ contents: UnsafeRawPointer, _ region: Region, _ page: Int) -> Placement {
        let address = region.address(of: page)
        let placement = wakingIfThere(address) { unsafe kernel.copy(from: contents, to: address) }
        guard placement == .alreadyThere, region.guard == .minor else { return placement }
        return unsafe overwrite(region, page, with: contents)
    }

    /// The page is in its file although it was punched: punching a part of a huge page
    /// that somebody refers to, for I/O say, only fills that part with zeros. Nobody has
    /// it mapped, since every access faults to us and waits.
    private func overwrite(
        _ region: Region, _ page: Int, with contents: UnsafeRawPointer
    ) -> Placement {
        let view = unsafe UnsafeMutableRawPointer(bitPattern: UInt(region.viewAddress(of: page)))!
        unsafe view.copyMemory(from: contents, byteCount: pageSize)
        return putBack(region, page)
    }

    /// Maps a resident page of shared memory that an access found unmapped. Nil when it
    /// is a hole, or when holes are all that can fault.
    func mapAgain(_ region: Region, _ page: Int) -> Placement? {
        guard region.guard == .minor else { return nil }
        let placement = putBack(region, page)
        return placement == .failed(.badAddress) ? nil : placement
    }

    /// Repeats while the address space is changing.
    @inline(__always)
    private func wakingIfThere(_ address: UInt64, _ attempt: () -> Placement) -> Placement {
        while true {
            let placement = attempt()
            switch placement {
            case .busy:
                kernel.pause()
            case .alreadyThere:
                // EEXIST wakes nobody.
                kernel.wake(start: address, length: UInt64(pageSize))
                return placement
            case .placed, .failed:
                return placement
            }
        }
    }

    /// Frees the memory of neighbours that the store has, in state `punching`. Nobody has
    /// mapped them and nobody can: an access waits until they are `stored`. Worker only.
    func letGo(_ region: Region, _ pages: Range<Int>) {
        guard !pages.isEmpty, region.guard == .minor else { return }
        let length = UInt64(pages.count * pageSize)
        let errno = kernel.punch(start: region.viewAddress(of: pages.lowerBound), length: length)
        // A page that stayed in its file costs memory and is overwritten when it is fetched.
        if let errno { unfreed(region, errno) }
        for page in pages {
            let entry = region.table[page]
            settle(region, page, from: entry, to: entry.becoming(.stored))
        }
        // The message of an access that came meanwhile is used up, and a punch wakes nobody.
        kernel.wake(start: region.address(of: pages.lowerBound), length: length)
    }

    private func unfreed(_ region: Region, _ errno: Errno) {
        if punchFailed.exchange(true, ordering: .relaxed) { return }
        host.log(
            .warning,
            "\(region.name): cannot free the memory of evicted pages (\(errno.text)); "
                + "they cost RAM as well as store")
    }

    /// Ends what `take` began, once no page of `pages` is `staged` or `rescuing`. Worker only.
    func cleanUp(_ region: Region, _ pages: ClosedRange<Int>) {
        let length = UInt64(pages.count * pageSize)
        switch region.guard {
        case .move:
            kernel.release(
                start: staging.address(of: region.positionInHugePage(pages.lowerBound)), length: length)
        case .minor:
            // What was read is mapped in the view now, and would be counted twice in RSS.
            _ = kernel.zap(start: region.viewAddress(of: pages.lowerBound), length: length)
        }
    }
}
