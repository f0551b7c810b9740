import Kernel

/// Whether a tier takes pages, and when it is worth asking again. The host
/// program hears of the first refusal and of the recovery, not of every page.
public struct StoreHealth {
    private enum State: Equatable {
        case working
        /// Nanoseconds, on the kernel's clock.
        case failing(retryAt: UInt64, pause: UInt64)
    }

    private var state = State.working
    private static let pauseMin: UInt64 = 1_000_000_000
    private static let pauseMax: UInt64 = 30_000_000_000

    public init() {}

    public func mayTry(at now: UInt64) -> Bool {
        switch state {
        case .working: true
        case .failing(let retryAt, _): now >= retryAt
        }
    }

    /// `failure`: the last error of a batch and the page it befell.
    public mutating func record(
        _ failure: (errno: Errno, page: Int), _ tier: TierIndex, _ region: Region, at now: UInt64,
        host: Host
    ) {
        switch state {
        case .working:
            state = .failing(retryAt: now + Self.pauseMin, pause: Self.pauseMin)
            host.report(.writeFailed(failure.errno, tier, region: region, page: failure.page))
        case .failing(let retryAt, let pause):
            // Begun before, or what compaction tried meanwhile: the same failure.
            guard now >= retryAt else { return }
            let next = min(pause * 2, Self.pauseMax)
            state = .failing(retryAt: now + next, pause: next)
        }
    }

    /// A batch was written.
    public mutating func recordSuccess(_ tier: TierIndex, host: Host) {
        guard case .failing = state else { return }
        state = .working
        host.report(.writeRecovered(tier))
    }
}
