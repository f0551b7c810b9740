/// How often the tracker looks: often enough that an idle age is known to one eighth,
/// never so often that looking costs more than it saves.
public enum PassInterval {
    private static let shortest: UInt64 = 250_000_000
    private static let longest: UInt64 = 30_000_000_000
    private static let perIdleAge: UInt64 = 8
    /// With a limit and nothing else to go by.
    private static let limitOnly: UInt64 = 500_000_000
    /// Where nothing is to be evicted: only for the working set's sake.
    private static let observing: UInt64 = 1_000_000_000

    /// Nanoseconds between passes. `idleAge` in nanoseconds, 0 when age evicts nothing.
    public static func nanoseconds(idleAge: UInt64, limited: Bool) -> UInt64 {
        guard idleAge > 0 else { return limited ? limitOnly : observing }
        let wanted = min(max(idleAge / perIdleAge, shortest), longest)
        return limited ? min(wanted, limitOnly) : wanted
    }
}
