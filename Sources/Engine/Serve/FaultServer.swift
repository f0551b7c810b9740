import Kernel

/// Answers faults: finds where the page is, brings it back, wakes whoever
/// waits. Fault thread only. It takes no lock of the host program, allocates
/// nothing, logs nothing and never touches guest memory through the guest's
/// mapping. It waits for no other thread: what is in another's hands is left there.
@safe public final class FaultServer<Port: KernelPort>: @unchecked Sendable {
    let pager: Pager<Port>
    let fetches: FetchTable
    var waiting: WaitingPages
    var delayed = DelayedPages()
    var prefetch = Prefetch()
    /// When a page that is to leave the store may be read, where its tier limits that; nanoseconds.
    var recallReadyAt: UInt64 = .max
    /// Pages to bring early, next.
    var ahead: (region: Region, pages: Range<Int>)?
    /// A huge page under way, those that come next, and where it is read to.
    var whole: WholeFetch?
    var wholesWanted: [WholeFetch.Wanted] = []
    var wholeParts: [Locator] = []
    let wholeBuffer: Mapping
    /// A huge page's worth of zeros, never written.
    private let zeroPage: Mapping
    private let messages: UnsafeMutableBufferPointer<FaultMessage>
    var poll = BusyPoll()
    private var quietSince: UInt64 = 0
    /// When the messages being served were read.
    var batchStart: UInt64 = 0

    private static var messagesMax: Int { 64 }
    /// Nanoseconds.
    private static var stretchMax: UInt64 { 100_000_000 }

    /// How long what no device gives up may take before the host program is told.
    let answerMax: UInt64
    /// When it was looked last for devices that hang the worker; nanoseconds.
    var hungLookAt: UInt64 = 0

    /// `waitingMax`: unreadable pages to remember one by one. `answerMax`: nanoseconds.
    public init(
        pager: Pager<Port>, waitingMax: Int = 1024, answerMax: UInt64 = FaultServer.answerMaxDefault
    ) throws(Errno) {
        self.answerMax = answerMax
        waiting = WaitingPages(capacity: waitingMax)
        self.pager = pager
        fetches = try FetchTable()
        wholeBuffer = try Mapping(length: hugePageSize)
        zeroPage = try Mapping(length: hugePageSize)
        wholesWanted.reserveCapacity(Self.wholesWantedMax)
        wholeParts.reserveCapacity(hugePageSize / pageSize)
        unsafe messages = .allocate(capacity: Self.messagesMax)
        unsafe messages.initialize(repeating: FaultMessage(address: 0, isWrite: false))
        pager.store.offer(fetches.memory.start, length: fetches.memory.length)
    }

    deinit {
        pager.store.offer(0, length: 0)
        unsafe messages.deallocate()
    }

    /// Serves until nothing has come for a while worth waiting for, or until it is time to look
    /// after what waits: pages that could not be had, devices that do not answer.
    public func serveUntilQuiet() {
        var last = pager.kernel.now()
        let end = last + Self.stretchMax
        poll.faultCame(afterIdle: last &- quietSince)
        while true {
            let worked = turn()
            let now = pager.kernel.now()
            if worked { last = now }
            if now &- last > (fetches.isIdle ? poll.window : poll.readWindow) || now >= end { break }
            if !worked { pager.kernel.pause() }
        }
        quietSince = last
    }

    /// One round: finished reads, then waiting messages; then what they want is asked of the devices,
    /// all at once. True when there was any.
    public func turn() -> Bool {
        pager.serverEpoch.add(1, ordering: .sequentiallyConsistent)
        defer { pager.serverEpoch.add(1, ordering: .sequentiallyConsistent) }
        let worked = work()
        startFetches()
        return worked
    }

    func startFetches() {
        if fetches.areUnstarted { fetches.areUnstarted = !pager.store.startFetches() }
    }

    private func work() -> Bool {
        recallReadyAt = .max
        var worked = fetches.isIdle && !pager.store.owesLateAnswers ? false : finishFetches()
        if advanceWholes() { worked = true }
        if !delayed.isEmpty, serveDelayed() { worked = true }
        // Messages that no buffer is free for stay with the kernel.
        let room = min(
            Self.messagesMax, fetches.freeCount, Self.wholesWantedMax - wholesWanted.count)
        guard room > 0 else { return worked }
        let count = unsafe pager.kernel.readFaults(
            into: UnsafeMutableBufferPointer(rebasing: messages[..<room]))
        guard count > 0 else {
            let isAhead = advancePrefetch()
            return advanceRecalls() || isAhead || worked
        }
        batchStart = pager.kernel.now()
        for index in 0..<count { unsafe serve(messages[index]) }
        _ = advanceWholes()
        return true
    }

    private func serve(_ message: FaultMessage) {
        pager.counters.faults.increment()
        guard let region = pager.regions.find(message.address) else {
            // Detached since: the kernel serves it once it is woken.
            pager.kernel.wake(start: message.address, length: UInt64(pageSize))
            return
        }
        serve(
            region, region.head(of: region.page(at: message.address)), isWrite: message.isWrite,
            isProtected: message.kind.isProtection)
    }

    /// Every state has an answer; where another thread holds the page, that thread
    /// wakes the access when it is done. `isProtected`: the page was there, the access only
    /// not allowed.
    func serve(_ region: Region, _ page: Int, isWrite: Bool, isProtected: Bool = false) {
        while true {
            let entry = region.table[page]
            switch entry.state {
            case .resident:
                let filling = entry.becoming(.filling)
                guard pager.transition(region, page, from: entry, to: filling) else { continue }
                if isProtected { return lift(region, page, filling) }
                return fill(region, page, filling, isWrite: isWrite)
            case .leaving:
                guard pager.transition(region, page, from: entry, to: entry.becoming(.wanted)) else {
                    continue
                }
                return
            case .staged:
                switch pager.rescue(region, page, from: entry) {
                case .rescued:
                    pager.counters.rescues.increment(by: UInt64(region.unitPages))
                    return noteServed(region, page, since: batchStart)
                case .overtaken: continue
                case .failed(let errno): return park(region, page, errno)
                }
            case .stored where region.guard.leavesWhole:
                return want(whole: region, page, isAwaited: true)
            case .stored:
                if delay(region, page, entry, isWrite: isWrite) { return }
                let arriving = entry.becoming(.arriving)
                guard pager.transition(region, page, from: entry, to: arriving) else { continue }
                return fetch(region, page, arriving, want: isWrite ? .write : .read)
            case .poisoned:
                let placing = entry.becoming(.placing)
                guard pager.transition(region, page, from: entry, to: placing) else { continue }
                return poison(region, page, placing)
            case .arriving:
                return noteAccess(region, page)
            case .wanted, .rescuing, .punching, .placing, .filling, .discarding:
                return
            }
        }
    }

    /// What the page table calls resident faulted: a hole, or a page that is only not mapped.
    private func fill(_ region: Region, _ page: Int, _ filling: PageEntry, isWrite: Bool) {
        let address = region.address(of: page)
        let remapped = pager.mapAgain(region, page)
        let placement =
            remapped
            ?? (region.guard.leavesWhole
                ? unsafe pager.placeWhole(zeroPage.base, region, page, isHole: true)
                : fillWithZeros(address, isWrite: isWrite))
        switch placement {
        case .placed where remapped != nil:
            pager.counters.remaps.increment()
            noteAnswer()
            pager.touched(region, page)
        case .placed:
            pager.counters.zeroFills.increment()
            pager.arrived(region, page)
        case .alreadyThere:
            // The message was stale: the page came back, or the kernel's own fill won.
            pager.counters.duplicateFaults.increment()
        case .failed, .busy:
            break
        }
        pager.settle(region, page, from: filling, to: filling.becoming(.resident))
        if case .failed(let errno) = placement { return park(region, page, errno) }
        noteServed(region, page, since: batchStart)
    }

    /// Nobody takes the page, which was armed to learn of this access. In state `filling`, so
    /// that the worker does not begin to take the page and find its protection lifted.
    private func lift(_ region: Region, _ page: Int, _ filling: PageEntry) {
        let placement = pager.lift(region, page)
        if placement == .placed {
            pager.counters.lifts.increment()
            noteAnswer()
            pager.touched(region, page)
        }
        pager.settle(region, page, from: filling, to: filling.becoming(.resident))
        if case .failed(let errno) = placement {
            return park(region, page, errno, isProtected: true)
        }
        noteServed(region, page, since: batchStart)
    }

    /// An access waited for nothing but that a look had been taken.
    private func noteAnswer() {
        let lookedAt = pager.lookedAt.load(ordering: .relaxed)
        pager.counters.timeToAnswers.increment(by: batchStart > lookedAt ? batchStart - lookedAt : 0)
    }

    private func fillWithZeros(_ address: UInt64, isWrite: Bool) -> Placement {
        var placement = Placement.busy
        while placement == .busy {
            // The zero page would fault once more on a write.
            placement =
                unsafe isWrite
                ? pager.kernel.copy(from: zeroPage.base, to: address) : pager.kernel.zero(address)
        }
        // EEXIST wakes nobody.
        if placement == .alreadyThere { pager.kernel.wake(start: address, length: UInt64(pageSize)) }
        return placement
    }

    func noteServed(_ region: Region, _ page: Int, since start: UInt64) {
        noteBack(region, page)
        pager.faultTimes.add(pager.kernel.now() &- start)
    }
}
