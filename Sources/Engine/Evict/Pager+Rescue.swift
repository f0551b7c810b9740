import Kernel

extension Pager {
    enum RescueOutcome {
        /// The page is back in the guest and its waiters are awake.
        case rescued
        /// Somebody else is putting it back, or a discard took it.
        case overtaken
        /// The kernel could not place it; it is staged as before.
        case failed(Errno)
    }

    /// Puts a staged page back into the guest. Fault thread and worker.
    ///
    /// By COPY, not MOVE: the worker may be reading the staged page at this moment,
    /// and a copied page arrives un-armed, which is right for one just touched.
    func rescue(_ region: Region, _ page: Int, from entry: PageEntry) -> RescueOutcome {
        let rescuing = entry.becoming(.rescuing)
        guard transition(region, page, from: entry, to: rescuing) else { return .overtaken }
        let placement = unsafe place(
            staging.contents(of: Int(entry.payload)), at: region.address(of: page))
        if case .failed(let errno) = placement {
            settle(region, page, from: rescuing, to: rescuing.becoming(.staged))
            return .failed(errno)
        }
        assert(placement == .placed, "a staged page was present in the guest")
        arrived(region, page)
        settle(region, page, from: rescuing, to: rescuing.becoming(.resident, payload: 0))
        return .rescued
    }

    /// Copies a page into the guest, repeating while the address space is changing.
    func place(_ contents: UnsafeRawPointer, at address: UInt64) -> Placement {
        while true {
            let placement = unsafe kernel.copy(from: contents, to: address)
            if placement == .busy {
                kernel.pause()
                continue
            }
            // EEXIST wakes nobody.
            if placement == .alreadyThere { kernel.wake(start: address, length: UInt64(pageSize)) }
            return placement
        }
    }

    /// Leaves a state that only this thread may leave.
    @inline(__always)
    func settle(_ region: Region, _ page: Int, from old: PageEntry, to new: PageEntry) {
        let changed = transition(region, page, from: old, to: new)
        precondition(changed, "a short state was left by another thread")
    }
}
