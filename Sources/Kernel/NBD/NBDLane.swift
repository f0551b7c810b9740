/// What a lane shares with its device.
struct NBDSetting: Sendable {
    /// Nanoseconds that a transfer waits for the server at most.
    let timeout: UInt64
    /// Bytes of one command of the evict queue, and of all that are under way at once. Where
    /// reads share the connection, both are small: a read waits for what is being sent.
    let partLength: Int
    let evictBytesMax: Int
    /// Where the socket is watched for all it may want, and for its end alone.
    let poller: Poller
    let hangUpPoller: Poller?
    let fetchSignal: Signal
    let evictSignal: Signal
    /// Wakes the keeper.
    let wakeUp: Signal
    let counters: NBDCounters
}

/// One connection to the server and what is asked over it. A transfer is taken in while the
/// connection is lost, too, and goes out when there is a new one; after the timeout it fails.
/// The state is behind a lock, which is held while bytes go to or come from the socket, never
/// while waiting for it.
final class NBDLane: Sendable {
    private let state: Lock<NBDLaneState>

    init(_ setting: NBDSetting, _ connection: NBDConnection) {
        state = Lock(NBDLaneState(setting))
        state.withLock { $0.install(connection, at: monotonicNow()) }
    }

    /// Takes a transfer in. `sends`: and sends it at once.
    func ask(_ kind: NBDRequest.Kind, _ queue: TransferQueue, _ transfer: Transfer, sends: Bool) -> Errno? {
        let now = monotonicNow()
        return state.withLock { state in
            if let errno = state.takeIn(kind, queue, transfer, at: now) { return errno }
            if sends { state.send(at: now) }
            return nil
        }
    }

    /// Takes what has finished. The fetch queue's thread also receives by itself, which spares
    /// the way by the keeper.
    func reap(
        _ queue: TransferQueue, into completions: UnsafeMutableBufferPointer<TransferCompletion>
    ) -> Int {
        let now = monotonicNow()
        return state.withLock { state in
            if queue == .fetch { state.drive(at: now, for: .fetch) }
            state.expireIfDue(at: now)
            return unsafe state.take(queue, into: completions)
        }
    }

    /// Outcome of the discard that was asked for; nil: not yet.
    func takeTrim() -> NBDRequest.Stage? {
        let now = monotonicNow()
        return state.withLock { state in
            state.expireIfDue(at: now)
            return state.takeTrim()
        }
    }

    /// Sends, receives, and gives up what has waited for too long. Keeper.
    func work(at now: UInt64) {
        state.withLock { state in
            state.expireIfDue(at: now)
            state.send(at: now)
            state.drive(at: now, for: nil)
        }
    }

    /// Transfers of the evict queue that are open; nil: the connection is lost.
    var load: Int? {
        state.withLock { state in
            if case .up = state.link { return state.openEvictions }
            return nil
        }
    }

    /// Nil: the connection is there.
    var outage: NBDOutage? {
        state.withLock { state in
            if case .down(let outage) = state.link { return outage }
            return nil
        }
    }

    func hasFailed(at now: UInt64) -> Bool { state.withLock { $0.hasFailed(at: now) } }

    func install(_ connection: NBDConnection) {
        state.withLock { $0.install(connection, at: monotonicNow()) }
    }

    /// An attempt to connect has failed. `isRefused`: what was found is not our export.
    func postpone(isRefused: Bool) {
        state.withLock { $0.postpone(at: monotonicNow(), isRefused: isRefused) }
    }

    /// No transfer may be asked for after this.
    func close() { state.withLock { $0.close() } }
}

/// Since when a lane's connection is lost, and when the next attempt is due. Nanoseconds on the
/// monotonic clock.
struct NBDOutage: Equatable, Sendable {
    var since: UInt64
    var retryAt: UInt64
    var pause: UInt64
    /// A server is there, and what it offers is not our export.
    var isRefused = false

    static let pauseMin: UInt64 = 50_000_000
    static let pauseMax: UInt64 = 2_000_000_000
}
