import Kernel

/// Decides when to look inside a huge page, and when to make one whole again.
///
/// The kernel notes one touch for all 512 pages of a mapped huge page, so one warm
/// page keeps 2 MiB in RAM. A huge page that stays warm for an idle age is split (by
/// arming one page of it) and its pages are then aged one by one. When nearly all of
/// them turn out to be in use, splitting did not pay: it is made whole again and left
/// alone for twice as long as before. Times are in nanoseconds. Worker thread only.
final class HugePageLooks: @unchecked Sendable {
    private enum Look: Equatable {
        /// Never seen touched, or as good as.
        case unknown
        /// Mapped as one, and in use since.
        case warm(since: UInt64)
        /// Split then, and being looked at.
        case inside(since: UInt64)
        /// Split, and worth it.
        case split
    }

    private struct Entry {
        var look = Look.unknown
        /// Idle ages to wait before looking, doubled whenever it did not pay.
        var patience: UInt8 = 1
    }

    private var entries: [Entry]
    private static let patienceMax: UInt8 = 64
    /// Touched pages, of all 512, from which on a huge page is worth more whole.
    static let touchedMin = hugePageSize / pageSize * 7 / 8

    init(count: Int) { entries = Array(repeating: Entry(), count: count) }

    /// The huge page was found touched, mapped as one. True when it has been warm for
    /// `age`, times its patience.
    func isDue(_ index: Int, at now: UInt64, age: UInt64) -> Bool {
        guard case .warm(let since) = entries[index].look else {
            // Also when the kernel made a split one whole by itself.
            entries[index].look = .warm(since: now)
            return false
        }
        return now &- since >= age * UInt64(entries[index].patience)
    }

    func wasSplit(_ index: Int, at now: UInt64) { entries[index].look = .inside(since: now) }

    /// Since when the huge page has been looked into; nil when it is not, or not any
    /// more: after an idle age the pages' own ages tell all.
    func insideSince(_ index: Int, at now: UInt64, age: UInt64) -> UInt64? {
        guard case .inside(let since) = entries[index].look else { return nil }
        if now &- since > age { entries[index].look = .split }
        return since
    }

    /// It was made whole again: looking did not pay.
    func becameWhole(_ index: Int) {
        let patience = entries[index].patience
        entries[index] = Entry(look: .unknown, patience: min(patience * 2, Self.patienceMax))
    }
}
