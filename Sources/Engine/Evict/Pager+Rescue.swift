import Kernel

extension Pager {
    enum RescueOutcome {
        /// The page is back in the guest and its waiters are awake.
        case rescued
        /// Somebody else is putting it back, or a discard took it.
        case overtaken
        /// The kernel could not put it back; it is staged as before.
        case failed(Errno)
    }

    /// Puts a staged page back into the guest. Fault thread and worker.
    ///
    /// It arrives un-armed, with either guard, which is right for one just touched.
    func rescue(_ region: Region, _ page: Int, from entry: PageEntry) -> RescueOutcome {
        let rescuing = entry.becoming(.rescuing)
        guard transition(region, page, from: entry, to: rescuing) else { return .overtaken }
        let placement = putBack(region, page)
        if case .failed(let errno) = placement {
            settle(region, page, from: rescuing, to: rescuing.becoming(.staged))
            return .failed(errno)
        }
        assert(placement == .placed, "a staged page was present in the guest")
        arrived(region, page)
        settle(region, page, from: rescuing, to: rescuing.becoming(.resident))
        return .rescued
    }

    /// Leaves a state that only this thread may leave.
    @inline(__always)
    func settle(_ region: Region, _ page: Int, from old: PageEntry, to new: PageEntry) {
        let changed = transition(region, page, from: old, to: new)
        precondition(changed, "a short state was left by another thread")
    }
}
