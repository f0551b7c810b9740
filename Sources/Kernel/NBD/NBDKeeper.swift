import Synchronization

/// The device's own thread, `frostline-nbd`: sends and receives for the evict queue, connects
/// again, gives up what has waited for too long, and tells the host program.
final class NBDKeeper: Sendable {
    private let options: NBDOptions
    private let export: NBDExport
    private let label: NBDLabel
    private let lanes: [NBDLane]
    private let counters: NBDCounters
    private let poller: Poller
    private let report: @Sendable (NBDNotice) -> Void
    private let wakeUp: Signal
    private let cancel: Signal
    private let isAwake = Atomic<Bool>(false)
    private let isStopping = Atomic<Bool>(false)

    /// How long an attempt to connect may take, and the transfers that follow it, each.
    static let attemptTimeout: UInt64 = 5_000_000_000
    private static let restMax: UInt64 = 1_000_000_000

    /// What the host program was told last.
    private enum Told: Equatable {
        case connected
        case lost(since: UInt64)
        case failing(since: UInt64)
    }

    init(
        _ options: NBDOptions, _ start: NBDStart, lanes: [NBDLane], counters: NBDCounters,
        poller: Poller, wakeUp: Signal, cancel: Signal,
        report: @escaping @Sendable (NBDNotice) -> Void
    ) {
        self.options = options
        export = start.export
        label = start.label
        self.lanes = lanes
        self.counters = counters
        self.poller = poller
        self.cancel = cancel
        self.report = report
        self.wakeUp = wakeUp
    }

    /// There is something to be sent. Any thread.
    func wake() {
        if !isAwake.exchange(true, ordering: .acquiringAndReleasing) { wakeUp.raise() }
    }

    func stop() {
        isStopping.store(true, ordering: .releasing)
        cancel.raise()
        wakeUp.raise()
    }

    func run() {
        var told = Told.connected
        var lastRound: UInt64 = 0
        var failure = ""
        var isGone = false
        while !isStopping.load(ordering: .acquiring) {
            wakeUp.lower()
            isAwake.store(false, ordering: .sequentiallyConsistent)
            let now = monotonicNow()
            // The fault server receives over the first of several by itself: look there only for
            // the end of the connection, and now and then for what nobody has asked for.
            let all = lanes.count == 1 || isGone || now >= lastRound + Self.restMax
            if all { lastRound = now }
            for lane in all ? lanes[...] : lanes[1...] { lane.work(at: now) }
            // Before an attempt that may last, and after it.
            tell(&told, failure)
            for lane in lanes { reconnect(lane, &failure) }
            tell(&told, failure)
            isGone = poller.wait(nanoseconds: rest())
        }
    }

    /// Nanoseconds until there may be something to do by the clock.
    private func rest() -> UInt64 {
        let now = monotonicNow()
        return lanes.reduce(Self.restMax) { rest, lane in
            guard let outage = lane.outage else { return rest }
            return min(rest, outage.retryAt > now ? outage.retryAt - now : 0)
        }
    }

    private func reconnect(_ lane: NBDLane, _ failure: inout String) {
        guard let outage = lane.outage, monotonicNow() >= outage.retryAt else { return }
        do throws(NBDFailure) {
            let timeout = min(Self.attemptTimeout, options.timeout)
            let connection = try NBDConnection(options, timeout: timeout, cancel: cancel)
            try NBDStart.check(connection, against: export, label, lanes.count, timeout, cancel)
            NBDCounters.count(counters.reconnections)
            lane.install(connection)
        } catch {
            failure = error.reason
            NBDCounters.count(counters.failedAttempts)
            if error.isRefusal { NBDCounters.count(counters.refusals) }
            lane.postpone(isRefused: error.isRefusal)
        }
    }

    private func tell(_ told: inout Told, _ failure: String) {
        let now = monotonicNow()
        let since = lanes.compactMap { $0.outage?.since }.min()
        switch (told, since) {
        case (.connected, let since?):
            told = .lost(since: since)
            report(.lost)
        case (.lost(let since), nil), (.failing(let since), nil):
            told = .connected
            report(.back(now - since))
        default: break
        }
        if case .lost(let since) = told, lanes.contains(where: { $0.hasFailed(at: now) }) {
            told = .failing(since: since)
            report(.failing(failure))
        }
    }
}

extension NBDFailure {
    /// The server answers, and is not the one that it was.
    var isRefusal: Bool {
        if case .changed = self { return true }
        return false
    }
}
