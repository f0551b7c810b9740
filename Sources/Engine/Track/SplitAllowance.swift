/// How many huge pages may be split in one pass. Once one is split, each page of it that is in
/// use costs a light fault after each pass: so only a small share is looked into at a time, a
/// larger one where passes, and with them light faults, are rare. Pure.
public struct SplitAllowance: Equatable, Sendable {
    private static let perPassMin = 4
    /// Of the touched huge pages, in a pass and in a second.
    private static let shareMin = 1.0 / 32
    /// Of the touched huge pages, in a pass.
    private static let shareMax = 1.0 / 4
    private var left = 0
    private var touched = 0

    public init() {}

    /// `elapsed`: nanoseconds since the last pass.
    public mutating func beginPass(elapsed: UInt64) {
        let seconds = max(1, Double(elapsed) / 1e9)
        let share = min(Self.shareMin * seconds, Self.shareMax)
        left = max(Self.perPassMin, Int(Double(touched) * share))
        touched = 0
    }

    public mutating func sawTouched() { touched += 1 }

    /// False when no more may be split in this pass.
    public mutating func take() -> Bool {
        left -= 1
        return left >= 0
    }
}
