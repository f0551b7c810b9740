import Synchronization

/// How long faults took, in nanoseconds: a log-linear histogram, 16 steps to each
/// power of two, so a percentile is exact to 6 %. The fault thread adds; any thread reads.
public final class FaultTimes: Sendable {
    /// Powers of two covered; the last bucket takes all above (2.4 hours).
    public static let powers = 40
    private static let stepBits = 4
    private static let steps = 1 << stepBits
    private let counts: [Count]
    public let longest = Atomic<UInt64>(0)
    /// Of all faults together.
    public let total = Atomic<UInt64>(0)
    /// How many faults.
    public let served = Atomic<UInt64>(0)

    private final class Count: Sendable {
        let value = Atomic<UInt64>(0)
    }

    public init() {
        counts = (0..<Self.powers * Self.steps).map { _ in Count() }
    }

    @inline(__always)
    static func bucket(of nanoseconds: UInt64) -> Int {
        guard nanoseconds >= UInt64(steps) else { return Int(nanoseconds) }
        let power = 63 - nanoseconds.leadingZeroBitCount
        let step = Int(nanoseconds >> UInt64(power - stepBits)) & (steps - 1)
        return min((power - stepBits + 1) * steps + step, powers * steps - 1)
    }

    /// The largest time that falls into a bucket.
    static func upperBound(of bucket: Int) -> UInt64 {
        guard bucket >= steps else { return UInt64(bucket) }
        let shift = UInt64(bucket / steps - 1)
        return (UInt64(steps + bucket % steps + 1) << shift) - 1
    }

    /// Fault thread only.
    @inline(__always)
    public func add(_ nanoseconds: UInt64) {
        counts[Self.bucket(of: nanoseconds)].value.increment()
        total.increment(by: nanoseconds)
        served.increment()
        if nanoseconds > longest.value { longest.store(nanoseconds, ordering: .relaxed) }
    }

    /// The time that `share` (0 to 1) of all faults did not exceed; 0 before any fault.
    public func percentile(_ share: Double) -> UInt64 {
        let total = counts.reduce(UInt64(0)) { $0 + $1.value.value }
        guard total > 0 else { return 0 }
        let wanted = UInt64((Double(total) * share).rounded(.up))
        var seen: UInt64 = 0
        for (bucket, count) in counts.enumerated() {
            seen += count.value.value
            if seen >= wanted { return min(Self.upperBound(of: bucket), longest.value) }
        }
        return longest.value
    }

    /// Faults below 2^power nanoseconds and not below half of that.
    public func count(belowPower power: Int) -> UInt64 {
        let high = power == 0 ? 1 : Self.bucket(of: 1 << UInt64(power))
        let low = power == 0 ? 0 : Self.bucket(of: 1 << UInt64(power - 1))
        return counts[low..<max(low, high)].reduce(UInt64(0)) { $0 + $1.value.value }
    }
}
