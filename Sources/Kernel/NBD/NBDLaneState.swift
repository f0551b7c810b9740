/// Values of both queues.
struct PerQueue<Value> {
    var fetch: Value
    var evict: Value

    subscript(queue: TransferQueue) -> Value {
        get { queue == .fetch ? fetch : evict }
        set { if queue == .fetch { fetch = newValue } else { evict = newValue } }
        _modify { if queue == .fetch { yield &fetch } else { yield &evict } }
    }
}

/// What a lane's lock guards. Every slot is in one place: unused, open (and, while parts of it
/// are not handed over, in `waiting`), or in `finished`.
struct NBDLaneState: ~Copyable {
    enum Link {
        case up(NBDConnection)
        case down(NBDOutage)
    }

    private let setting: NBDSetting
    private(set) var link = Link.down(NBDOutage(since: 0, retryAt: 0, pause: NBDOutage.pauseMin))
    private var requests: ContiguousArray<NBDRequest>
    private var unused: PerQueue<SlotQueue>
    private var waiting: PerQueue<SlotQueue>
    private var finished: PerQueue<SlotQueue>
    private var open = PerQueue(fetch: 0, evict: 0)
    /// Bytes of the evict queue that were handed over and not answered.
    private var evictBytes = 0
    /// The connection has said that it is dead, and is not closed yet.
    private var isBroken = false
    private var lastAnswer: UInt64 = 0
    private var lastCheck: UInt64 = 0
    private var events = Poller.Events.readable
    /// The fetch queue's signal is raised. The event loop would not sleep if it stayed so.
    private var isFetchRaised = false

    /// The slots: of fetches, of the evict queue, and one for a discard.
    private static var fetchSlots: Range<Int> { 0..<TransferQueue.depth }
    private static var evictSlots: Range<Int> { TransferQueue.depth..<2 * TransferQueue.depth }
    private static var trimSlot: Int { 2 * TransferQueue.depth }
    private static var trimPartLength: Int { 1 << 30 }
    private static var checkInterval: UInt64 { 250_000_000 }

    init(_ setting: NBDSetting) {
        self.setting = setting
        requests = ContiguousArray(repeating: NBDRequest(), count: Self.trimSlot + 1)
        let empty = SlotQueue(capacity: TransferQueue.depth + 1)
        unused = PerQueue(fetch: empty, evict: empty)
        waiting = PerQueue(fetch: empty, evict: empty)
        finished = PerQueue(fetch: empty, evict: empty)
        for slot in Self.fetchSlots { unused.fetch.append(slot) }
        for slot in Self.evictSlots { unused.evict.append(slot) }
    }

    var openEvictions: Int { open.evict }

    private static func queue(of slot: Int) -> TransferQueue { slot < TransferQueue.depth ? .fetch : .evict }

    // MARK: Taking in and handing out

    mutating func takeIn(
        _ kind: NBDRequest.Kind, _ queue: TransferQueue, _ transfer: Transfer, at now: UInt64
    ) -> Errno? {
        if hasFailed(at: now) {
            NBDCounters.count(setting.counters.timeouts)
            return .timedOut
        }
        let found = kind == .trim ? Self.trimSlot : unused[queue].popFirst()
        guard let slot = found, requests[slot].stage == .unused else { return .busy }
        requests[slot] = NBDRequest(
            stage: .open, kind: kind, memory: transfer.memory, length: transfer.length,
            offset: transfer.offset, token: transfer.token, asked: now)
        open[queue] += 1
        waiting[queue].append(slot)
        return nil
    }

    mutating func take(
        _ queue: TransferQueue, into completions: UnsafeMutableBufferPointer<TransferCompletion>
    ) -> Int {
        var count = 0
        while count < completions.count, let slot = finished[queue].popFirst() {
            guard case .finished(let error) = requests[slot].stage else {
                preconditionFailure("what waits to be reaped has finished")
            }
            let result = error == 0 ? Int32(requests[slot].length) : -error
            unsafe completions[count] = TransferCompletion(token: requests[slot].token, result: result)
            requests[slot].stage = .unused
            unused[queue].append(slot)
            count += 1
        }
        if queue == .fetch, isFetchRaised, finished.fetch.count == 0 {
            setting.fetchSignal.lower()
            isFetchRaised = false
        }
        return count
    }

    mutating func takeTrim() -> NBDRequest.Stage? {
        guard case .finished = requests[Self.trimSlot].stage else { return nil }
        defer { requests[Self.trimSlot].stage = .unused }
        return requests[Self.trimSlot].stage
    }

    private mutating func finish(_ slot: Int, _ error: Int32, for thread: TransferQueue?) {
        let queue = Self.queue(of: slot)
        requests[slot].stage = .finished(error)
        open[queue] -= 1
        if slot != Self.trimSlot { finished[queue].append(slot) }
        if error != 0 { count(error, requests[slot].kind) }
        guard queue != thread else { return }
        if queue == .evict {
            setting.evictSignal.raise()
        } else if !isFetchRaised {
            setting.fetchSignal.raise()
            isFetchRaised = true
        }
    }

    private func count(_ error: Int32, _ kind: NBDRequest.Kind) {
        let counters = setting.counters
        if error == Errno.timedOut.code {
            NBDCounters.count(counters.timeouts)
        } else if kind == .read {
            NBDCounters.count(counters.readErrors)
        } else {
            NBDCounters.count(counters.writeErrors)
        }
    }

    // MARK: Sending and receiving

    /// Hands over what waits: reads of the fault server first, and of the evict queue as much as
    /// may be under way.
    mutating func send(at now: UInt64) {
        guard case .up(let connection) = link else { return }
        while !isBroken, let slot = waiting.fetch.first, handOver(slot, connection, at: now) {}
        while !isBroken, evictBytes < setting.evictBytesMax, let slot = waiting.evict.first,
            handOver(slot, connection, at: now)
        {}
        watch(connection, at: now)
    }

    /// One part of the first that waits. False: the connection takes no more.
    private mutating func handOver(_ slot: Int, _ connection: NBDConnection, at now: UInt64) -> Bool {
        let request = requests[slot]
        let queue = Self.queue(of: slot)
        let most = request.kind == .trim ? Self.trimPartLength : setting.partLength
        let length = min(most, request.length - request.handedOver)
        let errno = connection.start(
            request.kind, memory: request.memory + UInt64(request.handedOver), length: length,
            offset: request.offset + UInt64(request.handedOver),
            token: UInt64(length) << 16 | UInt64(slot))
        switch errno {
        case nil:
            if request.handedOver == 0 { requests[slot].sent = now }
            requests[slot].handedOver += length
            requests[slot].parts += 1
            if queue == .evict, request.kind != .trim { evictBytes += length }
        case .busy?:
            return false
        case .notConnected?:
            isBroken = true
            return false
        case let errno?:
            requests[slot].error = errno.code
            requests[slot].handedOver = request.length
        }
        if requests[slot].handedOver == request.length { _ = waiting[queue].popFirst() }
        if errno != nil, requests[slot].isComplete { finish(slot, requests[slot].error, for: nil) }
        return true
    }

    /// Sends and receives what can be without waiting. `thread`: whose the calling thread is, which
    /// needs no signal.
    mutating func drive(at now: UInt64, for thread: TransferQueue?) {
        guard case .up(let connection) = link else { return }
        let isAlive = connection.drive { token, error in settle(token, error, at: now, for: thread) }
        if !isAlive { isBroken = true }
        if waiting.evict.count > 0 || waiting.fetch.count > 0 { return send(at: now) }
        watch(connection, at: now)
    }

    /// One part has ended.
    private mutating func settle(
        _ token: UInt64, _ error: Int32, at now: UInt64, for thread: TransferQueue?
    ) {
        let slot = Int(token & 0xffff)
        let queue = Self.queue(of: slot)
        // Not an answer of the server, or of one that is about to end: it is asked again.
        if error == Errno.notConnected.code || error == Errno.shutDown.code {
            isBroken = true
            return
        }
        lastAnswer = now
        requests[slot].parts -= 1
        if queue == .evict, requests[slot].kind != .trim { evictBytes -= Int(token >> 16) }
        if error != 0 {
            if requests[slot].error == 0 { requests[slot].error = error }
            if requests[slot].handedOver < requests[slot].length {
                // Only the first that waits has been handed over in part.
                _ = waiting[queue].popFirst()
                requests[slot].handedOver = requests[slot].length
            }
        }
        if requests[slot].isComplete { finish(slot, requests[slot].error, for: thread) }
    }

    /// Sees to it that the thread that drives it is woken for what the connection waits for.
    private mutating func watch(_ connection: NBDConnection, at now: UInt64) {
        guard !isBroken, let wanted = connection.interest else { return lose(at: now, since: now) }
        if wanted == events { return }
        setting.poller.change(connection.descriptor, wanted)
        events = wanted
    }

    // MARK: Losing the connection, and having one again

    mutating func install(_ connection: NBDConnection, at now: UInt64) {
        link = .up(connection)
        setting.counters.connected.add(1, ordering: .relaxed)
        lastAnswer = now
        isBroken = false
        events = .readable
        setting.poller.add(connection.descriptor, events)
        setting.hangUpPoller?.add(connection.descriptor, .hangUp)
        send(at: now)
    }

    /// Closing comes first: from then on nobody but us touches the transfers' memory. What was
    /// sent and not answered is sent again, from the start.
    private mutating func lose(at now: UInt64, since: UInt64) {
        guard case .up(let connection) = link else { return }
        setting.poller.remove(connection.descriptor)
        setting.hangUpPoller?.remove(connection.descriptor)
        connection.close()
        setting.counters.connected.subtract(1, ordering: .relaxed)
        isBroken = false
        link = .down(NBDOutage(since: since, retryAt: now, pause: NBDOutage.pauseMin))
        NBDCounters.count(setting.counters.losses)
        setting.wakeUp.raise()
        evictBytes = 0
        for slot in requests.indices where requests[slot].stage == .open {
            if requests[slot].handedOver > 0 { NBDCounters.count(setting.counters.resubmissions) }
            requests[slot].handedOver = 0
            requests[slot].parts = 0
            requests[slot].error = 0
        }
        waitAll()
    }

    /// Lines all open transfers up, none of which is under way.
    private mutating func waitAll() {
        waiting.fetch.removeAll()
        waiting.evict.removeAll()
        for slot in requests.indices where requests[slot].stage == .open {
            waiting[Self.queue(of: slot)].append(slot)
        }
    }

    mutating func postpone(at now: UInt64, isRefused: Bool) {
        guard case .down(var outage) = link else { return }
        outage.retryAt = now + outage.pause
        outage.pause = min(outage.pause * 2, NBDOutage.pauseMax)
        outage.isRefused = isRefused
        link = .down(outage)
        expire(at: now)
    }

    /// The server is not there, and has not been for so long that nobody is to wait for it.
    func hasFailed(at now: UInt64) -> Bool {
        guard case .down(let outage) = link else { return false }
        return outage.isRefused || now >= outage.since + setting.timeout
    }

    mutating func expireIfDue(at now: UInt64) {
        guard now >= lastCheck + Self.checkInterval else { return }
        lastCheck = now
        expire(at: now)
    }

    private mutating func expire(at now: UInt64) {
        guard open.fetch + open.evict > 0 else { return }
        if case .up = link, let since = silentSince(now) { lose(at: now, since: since) }
        guard case .down = link else { return }
        let all = hasFailed(at: now)
        for slot in requests.indices where requests[slot].stage == .open {
            guard all || now >= requests[slot].asked + setting.timeout else { continue }
            finish(slot, Errno.timedOut.code, for: nil)
        }
        waitAll()
    }

    /// A connection over which nothing has come for half of the timeout, although something was
    /// asked, is lost: a new one may do better in the time that is left. So it is when a transfer
    /// has been waiting for all of it. Nil: it is not lost.
    private func silentSince(_ now: UInt64) -> UInt64? {
        var oldest: UInt64?
        var firstSent: UInt64?
        for slot in requests.indices where requests[slot].stage == .open {
            oldest = min(oldest ?? .max, requests[slot].asked)
            if requests[slot].handedOver > 0 { firstSent = min(firstSent ?? .max, requests[slot].sent) }
        }
        guard let oldest else { return nil }
        if now >= oldest + setting.timeout { return oldest }
        guard let firstSent else { return nil }
        return now >= max(firstSent, lastAnswer) + setting.timeout / 2 ? oldest : nil
    }

    mutating func close() {
        guard case .up(let connection) = link else { return }
        setting.poller.remove(connection.descriptor)
        setting.hangUpPoller?.remove(connection.descriptor)
        connection.close(politely: true)
        setting.counters.connected.subtract(1, ordering: .relaxed)
        link = .down(NBDOutage(since: 0, retryAt: .max, pause: NBDOutage.pauseMax))
    }
}
