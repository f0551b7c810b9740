import Kernel

/// Decides when to look inside a huge page, and when to make one whole again.
///
/// The kernel notes one touch for all 512 pages of a mapped huge page, so one warm
/// page keeps 2 MiB in RAM. A huge page that stays warm for an idle age is split (by
/// arming one page of it) and its pages are then aged one by one. When nearly all of
/// them turn out to be in use, splitting did not pay: it is made whole again and left
/// alone for twice as long as before. Worker thread only.
public final class HugePageLooks: @unchecked Sendable {
    private enum Look: Equatable {
        /// Mapped as one, or never seen; touched in that many passes.
        case whole(warmPasses: UInt16)
        /// Split, and looked at for that many passes.
        case inside(passes: UInt16)
        /// Split, and worth it.
        case split
    }

    private struct Entry {
        var look = Look.whole(warmPasses: 0)
        /// Idle ages to wait before looking, doubled whenever it did not pay.
        var patience: UInt8 = 1
    }

    private var entries: [Entry]
    private static let patienceMax: UInt8 = 64
    /// Touched pages, of all 512, from which on a huge page is worth more whole.
    static let touchedMin = hugePageSize / pageSize * 7 / 8

    init(count: Int) { entries = Array(repeating: Entry(), count: count) }

    /// The huge page was found touched, mapped as one. True when its time has come.
    func isDue(_ index: Int, idlePasses: Int) -> Bool {
        guard case .whole(let passes) = entries[index].look else {
            // The kernel made it whole by itself.
            entries[index].look = .whole(warmPasses: 1)
            return false
        }
        entries[index].look = .whole(warmPasses: min(passes, .max - 1) + 1)
        return Int(passes) >= idlePasses * Int(entries[index].patience)
    }

    func wasSplit(_ index: Int) { entries[index].look = .inside(passes: 0) }

    /// Counts a pass. How many passes the huge page has been looked into, or nil when
    /// it is not, or not any more: after an idle age the pages' own ages tell all.
    func passesInside(_ index: Int, idlePasses: Int) -> Int? {
        guard case .inside(let passes) = entries[index].look else { return nil }
        entries[index].look = Int(passes) < idlePasses ? .inside(passes: passes + 1) : .split
        return Int(passes)
    }

    /// It was made whole again: looking did not pay.
    func becameWhole(_ index: Int) {
        let patience = entries[index].patience
        entries[index] = Entry(
            look: .whole(warmPasses: 0), patience: min(patience * 2, Self.patienceMax))
    }
}
