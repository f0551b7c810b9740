import Synchronization

/// A block's working set as of the last pass: how many pages have been idle for at least
/// 1 s, 2 s, 4 s … 4096 s, and how often pages that had been idle for so long were touched
/// again. The one is what eviction at that age would take out of RAM, the other the faults
/// that it would cost. The worker writes, any thread reads.
public final class WorkingSet: Sendable {
    /// Thresholds: 2^0 to 2^12 seconds, a little over an hour.
    public static let thresholdCount = 13
    private let thresholds: [Threshold]
    private let resident = Atomic<Int>(0)
    private let notedAt = Atomic<UInt64>(0)
    private static let smoothingSeconds = 60.0

    private final class Threshold: Sendable {
        let idlePages = Atomic<Int>(0)
        /// Thousandths of pages a second.
        let returns = Atomic<Int>(0)
    }

    public init() { thresholds = (0..<Self.thresholdCount).map { _ in Threshold() } }

    /// Pages in RAM.
    public var residentPages: Int { resident.value }

    /// Pages in RAM that have been idle for 2^`power` seconds or longer.
    public func idlePages(power: Int) -> Int { thresholds[power].idlePages.value }

    /// Pages touched in a second after they had been idle for 2^`power` seconds or
    /// longer, on average over about a minute.
    public func returnsPerSecond(power: Int) -> Double {
        Double(thresholds[power].returns.value) / 1000
    }

    private static func age(_ power: Int) -> UInt64 { 1_000_000_000 << UInt64(power) }

    /// Resident pages by stamp. Worker thread only.
    public func update(_ history: IdleHistory, _ counts: [Int], at now: UInt64) {
        for (power, threshold) in thresholds.enumerated() {
            let pages = history.pages(idleFor: Self.age(power), at: now, counts: counts)
            threshold.idlePages.store(pages, ordering: .relaxed)
        }
        resident.store(counts.reduce(0, +), ordering: .relaxed)
    }

    /// Pages found touched by a look at `now`, by the stamps they had before. Worker
    /// thread only.
    public func note(returned: [Int], _ history: IdleHistory, at now: UInt64) {
        let before = notedAt.exchange(now, ordering: .relaxed)
        guard before != 0, now > before else { return }
        let seconds = Double(now - before) / 1e9
        let weight = min(1, seconds / Self.smoothingSeconds)
        for (power, threshold) in thresholds.enumerated() {
            let pages = history.pages(idleFor: Self.age(power), at: now, counts: returned)
            let old = Double(threshold.returns.value)
            let new = old + weight * (Double(pages) * 1000 / seconds - old)
            threshold.returns.store(Int(new), ordering: .relaxed)
        }
    }
}
