/// An NBD export that holds evicted pages.
///
/// Over a connection of its own the fault server reads, sending and receiving by itself, so that a
/// fetch has no more threads to wake than the read itself. Other connections are for writing back,
/// and driven by the device's thread, `frostline-nbd`, so that no write delays a fault. Where the
/// server allows one connection only, both share it, and little is written at a time.
///
/// When a connection is lost, transfers wait: those under way are sent again, whole, over the next
/// one. That is right for reads, and for writes, because the bytes of a place stay the same from
/// when they are first sent until their write is answered, and only then does a page table name the
/// place: how often the same bytes arrive, and which time is answered, makes no difference. After
/// the timeout all transfers fail with ETIMEDOUT, and new ones do so at once, until the server is
/// back. A server that came back without what was written to it is refused (`NBDLabel`).
///
/// One thing NBD cannot exclude: a server that goes on with a write, or a discard, of a lost
/// connection, after it has answered the same one over the next, or after it was given up. The old
/// bytes come back if the place has been freed and written anew by then, which is why what fails
/// is not tried again in the same place, and a segment of the log that a request was given up for
/// with ETIMEDOUT rests (`LogTimes.doubt`).
public final class NBDDevice: StoreDevice {
    public let size: UInt64
    public let blockSize: Int
    public let counters: NBDCounters
    private let lanes: [NBDLane]
    private let canTrim: Bool
    private let fetchPoller: Poller
    private let evictSignal: Signal
    private let keeper: NBDKeeper
    private let thread: Thread

    private static let waitMax: UInt64 = 250_000_000

    /// Connects, which takes at most 5 seconds a connection besides resolving the host's name,
    /// and writes to the last of the pages used. `report` is called on a thread of the device's own.
    public init(
        _ options: NBDOptions, report: @escaping @Sendable (NBDNotice) -> Void
    ) throws(NBDFailure) {
        try options.check()
        let parts = try Parts()
        let opened = try NBDStart(options, cancel: parts.cancel)
        let export = opened.export
        let isShared = opened.connections.count == 1
        let counters = NBDCounters()
        let lanes = opened.connections.enumerated().map { index, connection in
            let isForFetches = index == 0 && !isShared
            return NBDLane(
                NBDSetting(
                    timeout: options.timeout,
                    partLength: isShared ? min(export.partMax, 64 << 10) : export.partMax,
                    evictBytesMax: isShared ? 256 << 10 : 4 << 20,
                    poller: isForFetches ? parts.fetchPoller : parts.poller,
                    hangUpPoller: isForFetches ? parts.poller : nil,
                    fetchSignal: parts.fetchSignal, evictSignal: parts.evictSignal,
                    wakeUp: parts.wakeUp, counters: counters),
                connection)
        }
        let keeper = NBDKeeper(
            options, opened, lanes: lanes, counters: counters, poller: parts.poller,
            wakeUp: parts.wakeUp, cancel: parts.cancel, report: report)
        do throws(Errno) {
            thread = try Thread(name: "frostline-nbd") { keeper.run() }
        } catch {
            throw .system(error)
        }
        size = opened.size
        blockSize = export.blockSize
        canTrim = export.canTrim
        self.counters = counters
        self.lanes = lanes
        self.keeper = keeper
        fetchPoller = parts.fetchPoller
        evictSignal = parts.evictSignal
    }

    /// What threads wait for.
    private struct Parts {
        let cancel, wakeUp, fetchSignal, evictSignal: Signal
        let fetchPoller, poller: Poller

        init() throws(NBDFailure) {
            do throws(Errno) {
                cancel = try Signal()
                wakeUp = try Signal()
                fetchSignal = try Signal()
                evictSignal = try Signal()
                fetchPoller = try Poller()
                poller = try Poller()
            } catch {
                throw .system(error)
            }
            fetchPoller.add(fetchSignal.number, .readable)
            poller.add(wakeUp.number, .readable)
        }
    }

    /// What an event loop polls to learn of finished reads. It is to look at least once a second
    /// while reads are under way.
    public var fetchDescriptor: Int32 { fetchPoller.number }

    /// Connections that are used.
    public var connectionCount: Int { lanes.count }

    /// Ends what is under way without an answer: its memory is not touched any more.
    deinit {
        keeper.stop()
        thread.join()
        for lane in lanes { lane.close() }
    }

    // MARK: The fetch queue

    public func read(_ transfer: Transfer) -> Errno? {
        lanes[0].ask(.read, .fetch, transfer, sends: true)
    }

    // MARK: The evict queue

    public func write(_ transfer: Transfer) -> Errno? { evict(.write, transfer) }
    public func readBack(_ transfer: Transfer) -> Errno? { evict(.read, transfer) }

    private func evict(_ kind: NBDRequest.Kind, _ transfer: Transfer) -> Errno? {
        let errno = leastLoaded.ask(kind, .evict, transfer, sends: false)
        if errno == nil { keeper.wake() }
        return errno
    }

    private var evictLanes: ArraySlice<NBDLane> { lanes.count == 1 ? lanes[...] : lanes[1...] }

    private var leastLoaded: NBDLane {
        guard evictLanes.count > 1 else { return evictLanes.first! }
        return evictLanes.min { ($0.load ?? .max) < ($1.load ?? .max) }!
    }

    /// Waits for the answer: without it the server could do what it was asked to when the range
    /// has been written anew.
    public func discard(offset: UInt64, length: UInt64) -> Errno? {
        guard canTrim else { return .notSupported }
        let range = Transfer(memory: 0, length: Int(length), offset: offset, token: 0)
        let lane = leastLoaded
        // Not taken in, or not asked for: the server has been away for too long, or still is at
        // the last one.
        if lane.ask(.trim, .evict, range, sends: false) != nil { return .busy }
        keeper.wake()
        while true {
            if case .finished(let error)? = lane.takeTrim() { return error == 0 ? nil : Errno(error) }
            evictSignal.lower(waiting: Self.waitMax)
        }
    }

    public func reap(
        _ queue: TransferQueue, into completions: UnsafeMutableBufferPointer<TransferCompletion>,
        wait: Bool
    ) -> Int {
        while true {
            let count = unsafe reapNow(queue, into: completions)
            if count > 0 || !wait { return count }
            switch queue {
            case .fetch: fetchPoller.wait(nanoseconds: Self.waitMax)
            case .evict: evictSignal.lower(waiting: Self.waitMax)
            }
        }
    }

    private func reapNow(
        _ queue: TransferQueue, into completions: UnsafeMutableBufferPointer<TransferCompletion>
    ) -> Int {
        if queue == .fetch { return unsafe lanes[0].reap(queue, into: completions) }
        var count = 0
        for lane in evictLanes {
            unsafe count += lane.reap(
                queue, into: UnsafeMutableBufferPointer(rebasing: completions[count...]))
        }
        return count
    }
}
