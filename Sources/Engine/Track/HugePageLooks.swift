import Kernel

/// Decides when to look inside a huge page, and when to make one whole again.
///
/// The kernel notes one touch for all 512 pages of a mapped huge page, so one warm
/// page keeps 2 MiB in RAM. A huge page that stays warm for an idle age is split (by
/// arming one page of it) and its pages are then aged one by one. When nearly all of
/// them turn out to be in use, splitting did not pay: it is made whole again and left
/// alone for twice as long as before. So is one that became hot in small pages later, having
/// left and come back, say, since khugepaged leaves armed memory alone.
///
/// One that left whole, all of it being cold, comes back page by page, as far as it is wanted. Once
/// all of it is back it is made whole, however much of it is in use.
///
/// One that is in use many times a second is worth most whole: in small pages the guest would
/// miss the TLB at each use. Where nothing but a stall budget wants room, a huge page is looked
/// at once more right after it was armed, and split only if nobody has used it since.
///
/// Times are in nanoseconds. For the holder of the pass lock.
public final class HugePageLooks: @unchecked Sendable {
    private enum Look: Equatable {
        /// Never seen touched, or as good as.
        case unknown
        /// Mapped as one, and in use since.
        case warm(since: UInt64)
        /// Armed then, to see whether it is in use at once; in use, as one, since `warmSince`.
        case asked(at: UInt64, warmSince: UInt64)
        /// Split then, and being looked at.
        case inside(since: UInt64)
        /// Split, and worth it.
        case split
        /// In small pages, of which many have been in use at every look since.
        case busy(since: UInt64)
    }

    private struct Entry {
        var look = Look.unknown
        /// Idle ages to wait before looking, doubled whenever it did not pay.
        var patience: UInt8 = 1
        var awaited = Awaited.nothing
        /// That often the kernel did not make it whole once that was there.
        var tries: UInt8 = 0
        /// Then it may be asked again, on the kernel's clock.
        var retryAt: UInt64 = 0
    }

    /// What is to come back before it is made whole, in use or not.
    enum Awaited {
        case nothing
        /// All of it, which left whole.
        case all
        /// The few pages that had left of one that is in use.
        case rest
    }

    private var entries: [Entry]
    private static let patienceMax: UInt8 = 64
    private static let triesMax: UInt8 = 8
    /// After the first try that failed; twice as long after each that follows, up to an hour.
    private static let retryPause: UInt64 = 100_000_000
    private static let pauseDoublingsMax: UInt8 = 15
    /// Touched pages, of all 512, from which on a huge page is worth more whole.
    static let touchedMin = hugePageSize / pageSize * 7 / 8
    /// Pages found touched by one pass from which on it is worth counting those of a longer time.
    private static let busyMin = hugePageSize / pageSize / 4

    /// Memory that it takes.
    var bytes: Int { entries.count * MemoryLayout<Entry>.stride }

    public init(count: Int) { entries = Array(repeating: Entry(), count: count) }

    /// The huge page was found touched, mapped as one. True when it has been warm for
    /// `age`, times its patience.
    public func isDue(_ index: Int, at now: UInt64, age: UInt64) -> Bool {
        if entries[index].awaited == .rest { entries[index].awaited = .nothing }
        switch entries[index].look {
        case .warm(let since), .asked(_, let since):
            entries[index].look = .warm(since: since)
            return now &- since >= age * UInt64(entries[index].patience)
        case .unknown, .inside, .split, .busy:
            // Also when the kernel made a split one whole by itself.
            entries[index].look = .warm(since: now)
            return false
        }
    }

    /// It has been armed, and is to be looked at again soon, before it is split.
    public func ask(_ index: Int, at now: UInt64) {
        guard case .warm(let since) = entries[index].look else { return }
        entries[index].look = .asked(at: now, warmSince: since)
    }

    /// Those that were armed then or later, to be looked at again.
    public func asked(since time: UInt64) -> [Int] {
        entries.indices.filter {
            if case .asked(let at, _) = entries[$0].look { at >= time } else { false }
        }
    }

    /// It was in use at once: it is worth more whole, for twice as long as before.
    public func wasInUse(_ index: Int, at now: UInt64) {
        let patience = entries[index].patience
        entries[index] = Entry(look: .warm(since: now), patience: min(patience * 2, Self.patienceMax))
    }

    public func wasSplit(_ index: Int, at now: UInt64) { entries[index].look = .inside(since: now) }

    /// So many of its pages, mapped one by one, were found touched by one pass.
    public func foundSmall(_ index: Int, touched: Int, at now: UInt64) {
        switch entries[index].look {
        case .inside: break
        case .busy where touched < Self.busyMin: entries[index].look = .split
        case .busy: break
        case .unknown, .warm, .asked, .split:
            if touched >= Self.busyMin { entries[index].look = .busy(since: now) }
        }
    }

    /// From when on touches count for whether it is to be made whole again; nil when that is
    /// not the question: after an idle age the pages' own ages have told all, until many are in
    /// use for as long.
    public func mendSince(_ index: Int, at now: UInt64, age: UInt64) -> UInt64? {
        switch entries[index].look {
        case .inside(let since):
            if now &- since > age { entries[index].look = .split }
            return since
        case .busy(let since):
            guard now &- since >= age * UInt64(entries[index].patience) else { return nil }
            entries[index].look = .busy(since: now)
            return since
        case .unknown, .warm, .asked, .split:
            return nil
        }
    }

    /// All its pages have left at once, and were mapped as one; or some of its pages have left.
    func left(_ index: Int, whole: Bool) {
        if whole {
            (entries[index].awaited, entries[index].tries, entries[index].retryAt) = (.all, 0, 0)
        }
        // What left whole stays so when some of it comes and leaves again.
        if !whole, entries[index].awaited == .rest { entries[index].awaited = .nothing }
    }

    /// The pages that it lacks have been asked for.
    func restIsAsked(_ index: Int) {
        guard entries[index].awaited == .nothing else { return }
        (entries[index].awaited, entries[index].tries) = (.rest, 0)
    }

    func awaited(_ index: Int) -> Awaited { entries[index].awaited }

    /// The kernel has not just refused to make it whole.
    func mayTry(_ index: Int, at now: UInt64) -> Bool { now >= entries[index].retryAt }

    /// It was to be made whole, and the kernel did not do it. What came back a moment ago may be in
    /// somebody's hands, and there may be no memory in one piece: what left whole is tried again, ever
    /// more rarely. Others are tried some more times, and then when they are in use throughout again.
    func staysSmall(_ index: Int, at now: UInt64) {
        entries[index].tries = min(entries[index].tries + 1, .max - 1)
        if entries[index].awaited == .all {
            let doublings = min(entries[index].tries - 1, Self.pauseDoublingsMax)
            entries[index].retryAt = now + Self.retryPause << UInt64(doublings)
            return
        }
        guard entries[index].awaited == .nothing || entries[index].tries >= Self.triesMax else { return }
        entries[index].awaited = .nothing
        entries[index].tries = 0
        entries[index].patience = min(entries[index].patience * 2, Self.patienceMax)
    }

    /// It left whole, and is whole again.
    func cameBack(_ index: Int) {
        entries[index] = Entry(look: .unknown, patience: entries[index].patience)
    }

    /// It was made whole again: small pages did not pay.
    public func becameWhole(_ index: Int) {
        let patience = entries[index].patience
        entries[index] = Entry(look: .unknown, patience: min(patience * 2, Self.patienceMax))
    }
}
