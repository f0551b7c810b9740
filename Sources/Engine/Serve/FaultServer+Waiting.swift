import Kernel

/// Pages that an access waits for although they cannot be had now. They are tried
/// again on every tick; none is ever forgotten, and none is answered with zeros.
struct WaitingPages {
    /// Whether more accesses wait than there was room to note.
    enum Overflow: Equatable {
        case none
        case some
        /// They were woken at the last try, and by the next they have faulted again.
        case woken
    }

    /// `isProtected`: the page is there, and its protection could not be lifted.
    private(set) var pages: [(region: Region, page: Int, isProtected: Bool)] = []
    private let capacity: Int
    fileprivate(set) var overflow = Overflow.none
    /// Nanoseconds, on the kernel's clock: when they were tried, and when reads under way were
    /// looked at.
    var lastTry: UInt64 = 0
    var lastLook: UInt64 = 0

    init(capacity: Int) {
        self.capacity = capacity
        pages.reserveCapacity(capacity)
    }

    /// No access waits.
    var isEmpty: Bool { pages.isEmpty && overflow == .none }

    /// True when the page was not waiting yet.
    mutating func insert(_ region: Region, _ page: Int, isProtected: Bool) -> Bool {
        if contains(region, page) { return false }
        if pages.count == capacity {
            overflow = .some
            return false
        }
        pages.append((region, page, isProtected))
        return true
    }

    /// True when the page was waiting.
    mutating func remove(_ region: Region, _ page: Int) -> Bool {
        guard !pages.isEmpty, let index = index(region, page) else { return false }
        pages.swapAt(index, pages.count - 1)
        pages.removeLast()
        return true
    }

    func contains(_ region: Region, _ page: Int) -> Bool { index(region, page) != nil }

    private func index(_ region: Region, _ page: Int) -> Int? {
        pages.firstIndex { $0.page == page && $0.region === region }
    }
}

extension FaultServer {
    /// Notes that an access to the page waits, and tells the host program the first time.
    /// `tier`: the one that could not be read, if that is what it waits for.
    func park(
        _ region: Region, _ page: Int, _ errno: Errno, tier: TierIndex? = nil, isProtected: Bool = false
    ) {
        guard waiting.insert(region, page, isProtected: isProtected) else { return }
        pager.counters.waitingPages.store(waiting.pages.count, ordering: .relaxed)
        pager.host.report(.readFailed(errno, tier, region: region, page: page, poisoned: false))
    }

    /// Tries the waiting pages again when the last try was `interval` nanoseconds ago, and looks
    /// as often for reads that take too long.
    public func retryWaitingIfDue(every interval: UInt64) {
        guard !waiting.isEmpty || !fetches.isIdle else { return }
        let now = pager.kernel.now()
        if now &- waiting.lastLook >= interval {
            waiting.lastLook = now
            noteOverdue(at: now)
        }
        guard !waiting.isEmpty, now &- waiting.lastTry >= interval else { return }
        waiting.lastTry = now
        retryWaiting()
    }

    private func retryWaiting() {
        pager.serverEpoch.add(1, ordering: .sequentiallyConsistent)
        defer { pager.serverEpoch.add(1, ordering: .sequentiallyConsistent) }
        batchStart = pager.kernel.now()
        for (region, page, isProtected) in waiting.pages {
            guard isAttached(region) else {
                noteBack(region, page)
                continue
            }
            guard fetches.freeCount > 0 else { break }
            switch region.table[page].state {
            case .stored, .staged, .poisoned, .resident:
                serve(region, page, isWrite: false, isProtected: isProtected)
            case .leaving, .wanted, .rescuing, .punching, .arriving, .placing, .filling, .discarding:
                break  // In somebody's hands: the next tick tells.
            }
        }
        startFetches()
        retryUnnoted()
    }

    /// Which pages these are is not known: all blocks are woken.
    private func retryUnnoted() {
        switch waiting.overflow {
        case .none: break
        case .some:
            waiting.overflow = .woken
            pager.regions.forEach { pager.kernel.wake(start: $0.start, length: $0.length) }
        case .woken:
            waiting.overflow = .none
            if waiting.isEmpty { pager.host.report(.readRecovered) }
        }
    }

    /// The page can be had again, or is not wanted any more.
    func noteBack(_ region: Region, _ page: Int) {
        guard waiting.remove(region, page) else { return }
        pager.counters.waitingPages.store(waiting.pages.count, ordering: .relaxed)
        if waiting.isEmpty { pager.host.report(.readRecovered) }
    }

    private func isAttached(_ region: Region) -> Bool {
        pager.regions.find(region.start) === region
    }
}
