import Kernel

/// What a guard does, and the only place that knows: how pages are taken from the guest,
/// where their contents are read meanwhile, how they are put back, and how they are let
/// go once the store has them.
///
///     take        UFFDIO_MOVE to staging
///     taken, is   missing in the guest
///     read at     staging
///     put back    UFFDIO_COPY
///     let go      – (it has left already)
///     clean up    MADV_DONTNEED of staging
extension Pager {
    /// How far taking a run of pages came.
    struct Taken {
        var pages: Int
        /// Why it stopped there.
        var stop: MoveStop
    }

    /// Makes holes in a part of a block fault to us.
    func watch(_ region: Region, _ pages: Range<Int>) -> Errno? {
        kernel.watch(
            start: region.address(of: pages.lowerBound), length: UInt64(pages.count * pageSize),
            tracked: tracking, shared: false)
    }

    /// Takes neighbours in state `leaving`, from `first` on: from then on an access to a
    /// taken page faults to us, and its contents keep still. Worker only.
    func take(_ region: Region, _ pages: Range<Int>) -> Taken {
        let position = region.positionInHugePage(pages.lowerBound)
        let result = kernel.move(
            from: region.address(of: pages.lowerBound), to: staging.address(of: position),
            length: UInt64(pages.count * pageSize))
        return Taken(pages: Int(result.moved) / pageSize, stop: result.stop)
    }

    /// Where a taken page is read. Stays readable until `cleanUp`; what is read is worth
    /// something only while the page is `staged`.
    @inline(__always)
    func takenAddress(_ region: Region, _ page: Int) -> UInt64 {
        staging.address(of: region.positionInHugePage(page))
    }

    @inline(__always)
    func takenContents(_ region: Region, _ page: Int) -> UnsafeRawPointer {
        unsafe UnsafeRawPointer(bitPattern: UInt(takenAddress(region, page)))!
    }

    /// Gives a taken page back to the guest, and wakes whoever waits for it. Not by MOVE:
    /// the worker may be reading the staged page at this moment.
    func putBack(_ region: Region, _ page: Int) -> Placement {
        unsafe place(takenContents(region, page), region, page)
    }

    /// Puts a page into the guest, and wakes whoever waits for it.
    func place(_ contents: UnsafeRawPointer, _ region: Region, _ page: Int) -> Placement {
        let address = region.address(of: page)
        return wakingIfThere(address) { unsafe kernel.copy(from: contents, to: address) }
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

    /// Ends what `take` began, once no page of `pages` is `staged` or `rescuing`. Worker only.
    func cleanUp(_ region: Region, _ pages: ClosedRange<Int>) {
        let position = region.positionInHugePage(pages.lowerBound)
        kernel.release(start: staging.address(of: position), length: UInt64(pages.count * pageSize))
    }
}
