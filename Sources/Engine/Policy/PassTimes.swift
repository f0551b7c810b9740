/// When the last passes began. Ages count passes, and passes come early when the
/// limit is exceeded: with their times, an age in passes is an age in time.
public struct PassTimes {
    private static let capacity = Int(AgeMap.oldest)
    private var starts: [UInt64] = []
    private var next = 0

    public init() { starts.reserveCapacity(Self.capacity) }

    /// A pass begins. Nanoseconds.
    public mutating func note(_ start: UInt64) {
        if starts.count < Self.capacity {
            starts.append(start)
        } else {
            starts[next] = start
        }
        next = (next + 1) % Self.capacity
    }

    /// Passes a page must have been seen untouched to have been idle for `idleAge`
    /// nanoseconds; nil when no number of passes looks that far back.
    ///
    /// A page untouched in the last n passes was touched, at the latest, before the
    /// first of them began; one of them is spared for touches between scan and arming.
    public func passes(idleAge: UInt64) -> Int? {
        guard !starts.isEmpty else { return nil }
        func start(passesAgo: Int) -> UInt64 {
            starts[(next + Self.capacity - 1 - passesAgo) % Self.capacity]
        }
        // The oldest age stands for any number of passes from its own on.
        for back in 0..<min(starts.count, Self.capacity - 2) {
            if start(passesAgo: 0) - start(passesAgo: back) >= idleAge { return back + 1 }
        }
        return nil
    }
}
