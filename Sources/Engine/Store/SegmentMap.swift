import Kernel
import Synchronization

/// The bookkeeping of a device that is written as a log: which segments are free, open or
/// closed, and how much of each is still of use. It knows sectors and does no I/O.
///
/// The worker opens a segment, fills it and closes it; any thread drops what lies in it. A
/// closed segment that nothing of use is left in is found by whoever dropped the last of it,
/// and is free again once the worker has collected it. All of a segment's life is in one
/// atomic word and 12 bytes more; memory costs nothing for segments that never were open.
@safe public final class SegmentMap: @unchecked Sendable {
    /// Bytes in which the log counts.
    public static let sectorSize = 512

    public let count: Int
    public let sectorsPerSegment: Int
    private let mapping: Mapping
    private let words: UnsafeMutablePointer<Atomic<UInt32>>
    /// The next segment in whichever list this one is.
    private let links: UnsafeMutablePointer<UInt32>
    private let serials: UnsafeMutablePointer<UInt64>
    /// Closed segments that nothing of use is left in; pushed by any thread, taken by the worker.
    private let emptied = Atomic<UInt32>(SegmentMap.none)

    // The worker's own.
    /// Segments that were ever open; those above were never touched.
    private var high: UInt32 = 0
    /// Free segments that still hold what was written to them, and those that do not.
    private var spares = List()
    private var blanks = List()
    /// The fewest spares that there were since `takeIdleSpares`.
    private var sparesMin = 0
    /// Segments that a transfer may reach yet, which nobody waits for any more: not free before
    /// some time has gone by. Since when is noted by `releaseDoubted`.
    private var doubted: [(segment: UInt32, since: UInt64?)] = []
    /// The segment that was opened last holds nothing: it was never written, or discarded since.
    private(set) var openedBlank = false
    private var victims: [UInt32] = []
    private var hasSpoiled = false
    private var nextSerial: UInt64 = 1
    /// Free segments, and live sectors of all, for whoever asks.
    private let free: Atomic<Int>
    private let live = Atomic<Int>(0)

    private struct List {
        var first = SegmentMap.none
        var count = 0
    }

    private static let none: UInt32 = .max

    /// What a word says. Live sectors hold what some page's entry names; those of copies are
    /// the live ones that could be given up.
    private struct Word {
        var bits: UInt32

        static let countBits: UInt32 = 14
        static let countMask: UInt32 = 1 << countBits - 1
        /// Nothing more is written to it before it is free again.
        static let closed: UInt32 = 1 << 28
        /// It is being emptied.
        static let victim: UInt32 = 1 << 29
        /// Some of what it holds cannot be read, and cannot be moved therefore.
        static let spoiled: UInt32 = 1 << 30
        /// A write to it was given up, and may be carried out yet.
        static let doubted: UInt32 = 1 << 31

        var live: UInt32 { bits & Self.countMask }
        var copies: UInt32 { bits >> Self.countBits & Self.countMask }
        /// What must be written elsewhere to have it empty.
        var needed: Int { Int(live) - Int(copies) }
        var isClosed: Bool { bits & Self.closed != 0 }
        func has(_ flag: UInt32) -> Bool { bits & flag != 0 }
    }

    /// `segments` of `sectorsPerSegment` each, less than 4 MiB.
    public init(segments: Int, sectorsPerSegment: Int) throws(Errno) {
        precondition(segments > 0 && segments < Int(Self.none))
        // Twice as much may be counted as copies for a moment.
        precondition((1...Int(Word.countMask) / 2).contains(sectorsPerSegment))
        count = segments
        self.sectorsPerSegment = sectorsPerSegment
        mapping = try Mapping(length: roundUp(segments * 16, to: pageSize))
        unsafe serials = mapping.base.assumingMemoryBound(to: UInt64.self)
        unsafe words = (mapping.base + segments * 8).assumingMemoryBound(to: Atomic<UInt32>.self)
        unsafe links = (mapping.base + segments * 12).assumingMemoryBound(to: UInt32.self)
        free = Atomic(segments)
    }

    // MARK: Any thread

    /// The segment that a sector of the device lies in.
    @inline(__always)
    public func segment(of sector: UInt64) -> UInt32 { UInt32(sector / UInt64(sectorsPerSegment)) }

    /// Where a sector is, and when it was written. For whoever may read what it holds.
    @inline(__always)
    func position(of sector: UInt64) -> Sealer.Position {
        let segment = segment(of: sector)
        return unsafe Sealer.Position(
            serial: serials[Int(segment)],
            sector: UInt32(sector - UInt64(segment) * UInt64(sectorsPerSegment)))
    }

    /// What the sectors hold is of no use any more.
    public func drop(_ sector: UInt64, _ sectors: Int) {
        subtract(UInt32(sectors), from: segment(of: sector))
    }

    /// What they hold is from now on a copy only.
    public func becomesCopy(_ sector: UInt64, _ sectors: Int) {
        let change = UInt32(sectors) << Word.countBits
        unsafe words[Int(segment(of: sector))].add(change, ordering: .relaxed)
    }

    /// What they hold is not a copy any more.
    public func becomesOnly(_ sector: UInt64, _ sectors: Int) {
        let change = UInt32(sectors) << Word.countBits
        unsafe words[Int(segment(of: sector))].subtract(change, ordering: .relaxed)
    }

    /// The copy that they hold is of no use any more.
    public func dropCopy(_ sector: UInt64, _ sectors: Int) {
        subtract(UInt32(sectors) << Word.countBits | UInt32(sectors), from: segment(of: sector))
    }

    /// Releases what was read, and acquires what all others have read of the segment, for
    /// whoever finds it empty and overwrites it.
    private func subtract(_ change: UInt32, from segment: UInt32) {
        let answer = unsafe words[Int(segment)].subtract(change, ordering: .acquiringAndReleasing)
        let old = Word(bits: answer.oldValue)
        precondition(
            old.live >= change & Word.countMask && old.copies >= change >> Word.countBits,
            "a place in the log was dropped twice")
        live.subtract(Int(change & Word.countMask), ordering: .relaxed)
        let word = Word(bits: answer.newValue)
        if word.isClosed, word.live == 0 { push(segment) }
    }

    private func push(_ segment: UInt32) {
        var head = emptied.load(ordering: .relaxed)
        while true {
            unsafe links[Int(segment)] = head
            let answer = emptied.weakCompareExchange(
                expected: head, desired: segment, ordering: .acquiringAndReleasing)
            if answer.exchanged { return }
            head = answer.original
        }
    }

    /// Free segments; fewer than there are while emptied ones wait to be collected.
    public var freeCount: Int { free.value }

    // MARK: Worker

    /// Opens a free segment, under a serial number of its own; nil when none is free.
    public func open() -> UInt32? {
        collect()
        let segment: UInt32
        openedBlank = spares.count == 0
        if let spare = pop(&spares) {
            sparesMin = min(sparesMin, spares.count)
            segment = spare
        } else if let blank = pop(&blanks) {
            segment = blank
        } else {
            guard Int(high) < count else { return nil }
            segment = high
            high += 1
        }
        free.subtract(1, ordering: .relaxed)
        unsafe serials[Int(segment)] = nextSerial
        nextSerial += 1
        unsafe words[Int(segment)].store(0, ordering: .relaxed)
        return segment
    }

    /// Sectors of the open segment are about to be written. Only who publishes their place
    /// makes them known to others.
    public func add(_ sectors: Int, to segment: UInt32) {
        unsafe words[Int(segment)].add(UInt32(sectors), ordering: .relaxed)
        live.add(sectors, ordering: .relaxed)
    }

    /// Nothing more is written to the segment.
    public func close(_ segment: UInt32) {
        let answer = unsafe words[Int(segment)].bitwiseOr(Word.closed, ordering: .acquiringAndReleasing)
        if Word(bits: answer.oldValue).live == 0 { becomesSpare(segment) }
    }

    /// Segments that were emptied are free from now on.
    public func collect() {
        var segment = emptied.exchange(Self.none, ordering: .acquiring)
        while segment != Self.none {
            let next = unsafe links[Int(segment)]
            becomesSpare(segment)
            segment = next
        }
    }

    private func becomesSpare(_ segment: UInt32) {
        let isDoubted = word(segment).has(Word.doubted)
        unsafe words[Int(segment)].store(0, ordering: .relaxed)
        if isDoubted { return doubted.append((segment, nil)) }
        add(segment, to: &spares)
        free.add(1, ordering: .relaxed)
    }

    // MARK: Discarding

    /// Free segments that hold what was written to them, and were not wanted since this was
    /// last asked.
    public func takeIdleSpares() -> Int {
        defer { sparesMin = spares.count }
        return sparesMin
    }

    /// A free segment that still holds what was written to it, to be discarded, when there are
    /// more than `kept` of these. One of the following tells what came of it.
    public func takeToDiscard(keeping kept: Int) -> UInt32? {
        guard spares.count > kept, let segment = pop(&spares) else { return nil }
        sparesMin = min(sparesMin, spares.count)
        return segment
    }

    /// It holds nothing any more.
    public func discarded(_ segment: UInt32) { add(segment, to: &blanks) }

    /// It holds what it held.
    public func notDiscarded(_ segment: UInt32) { add(segment, to: &spares) }

    /// It may lose what it holds at any time from now on: it is not free.
    public func discardDoubted(_ segment: UInt32) {
        free.subtract(1, ordering: .relaxed)
        doubted.append((segment, nil))
    }

    // MARK: Doubted segments

    /// A write to an open or closed segment was given up, and may be carried out yet: the segment
    /// is not used again soon after it is empty.
    public func doubt(_ sector: UInt64) {
        unsafe words[Int(segment(of: sector))].bitwiseOr(Word.doubted, ordering: .relaxed)
    }

    /// Doubted segments are free when they have been empty for `time`. To be called now and
    /// then: they are noted when it is. Nanoseconds.
    public func releaseDoubted(at now: UInt64, after time: UInt64) {
        guard !doubted.isEmpty else { return }
        var kept: [(segment: UInt32, since: UInt64?)] = []
        for (segment, since) in doubted {
            if let since, now >= since &+ time {
                becomesSpare(segment)
            } else {
                kept.append((segment, since ?? now))
            }
        }
        doubted = kept
    }

    private func add(_ segment: UInt32, to list: inout List) {
        unsafe links[Int(segment)] = list.first
        list.first = segment
        list.count += 1
    }

    private func pop(_ list: inout List) -> UInt32? {
        guard list.first != Self.none else { return nil }
        let segment = list.first
        list.first = unsafe links[Int(segment)]
        list.count -= 1
        return segment
    }

    // MARK: Victims

    /// Marks the closed segments that cost least to empty: no more than `most`, none that has
    /// more than `limit` sectors that are needed, and not more of these together than `room`.
    /// Returns how many sectors come free by that, those that are written anew taken off. Looks
    /// at all segments.
    public func chooseVictims(room: Int, limit: Int, most: Int) -> Int {
        clearVictims()
        let candidates = candidates(limit: limit)
        var wanted = 0
        var left = room
        var last = 0
        for level in candidates.indices {
            last = level
            var number = min(candidates[level], most - wanted)
            let each = Self.mostNeeded(level, limit: limit)
            if each > 0 { number = min(number, left / each) }
            wanted += number
            left -= number * each
            if number < candidates[level] { break }
        }
        if wanted == 0 {
            // Errors may have been of their moment.
            forgetSpoiled()
            return 0
        }
        mark(wanted, lastLevel: last, limit: limit)
        return victims.reduce(0) { $0 + sectorsPerSegment - word($1).needed }
    }

    // Candidates are sorted by levels of what they need, the first of which is nothing.
    private static let levels = 32
    private static func levelSize(_ limit: Int) -> Int { limit / levels + 1 }
    private static func level(of needed: Int, limit: Int) -> Int {
        needed == 0 ? 0 : 1 + (needed - 1) / levelSize(limit)
    }
    private static func mostNeeded(_ level: Int, limit: Int) -> Int {
        min(limit, level * levelSize(limit))
    }

    private func word(_ segment: UInt32) -> Word {
        unsafe Word(bits: words[Int(segment)].load(ordering: .relaxed))
    }

    private func isCandidate(_ word: Word, limit: Int) -> Bool {
        word.isClosed && word.live > 0 && !word.has(Word.spoiled) && word.needed <= limit
    }

    /// How many candidates there are on each level.
    private func candidates(limit: Int) -> [Int] {
        var counts = [Int](repeating: 0, count: Self.levels + 1)
        for segment in 0..<high {
            let word = word(segment)
            guard isCandidate(word, limit: limit) else { continue }
            counts[Self.level(of: word.needed, limit: limit)] += 1
        }
        return counts
    }

    /// Marks those below the last level, and then of that as many as are left.
    private func mark(_ wanted: Int, lastLevel: Int, limit: Int) {
        for isLast in [false, true] {
            for segment in 0..<high where victims.count < wanted {
                let word = word(segment)
                guard isCandidate(word, limit: limit), !word.has(Word.victim) else { continue }
                let level = Self.level(of: word.needed, limit: limit)
                guard isLast ? level == lastLevel : level < lastLevel else { continue }
                unsafe words[Int(segment)].bitwiseOr(Word.victim, ordering: .relaxed)
                victims.append(segment)
            }
        }
    }

    /// Whether what lies at a sector is to be moved away.
    @inline(__always)
    public func isVictim(_ sector: UInt64) -> Bool {
        word(segment(of: sector)).has(Word.victim)
    }

    /// Something in the segment cannot be moved: it is no victim before all others are used up.
    func spoil(_ sector: UInt64) {
        unsafe words[Int(segment(of: sector))].bitwiseOr(Word.spoiled, ordering: .relaxed)
        hasSpoiled = true
    }

    private func forgetSpoiled() {
        guard hasSpoiled else { return }
        for segment in 0..<high {
            unsafe words[Int(segment)].bitwiseAnd(~Word.spoiled, ordering: .relaxed)
        }
        hasSpoiled = false
    }

    /// No segment is a victim any more.
    func clearVictims() {
        // One that was emptied and collected meanwhile has lost its mark with all else.
        for segment in victims {
            unsafe words[Int(segment)].bitwiseAnd(~Word.victim, ordering: .relaxed)
        }
        victims.removeAll(keepingCapacity: true)
    }

    // MARK: For statistics

    /// Sectors that hold what some page's entry names. Any thread.
    public var liveSectors: Int { live.value }

    /// Host memory behind it, in bytes.
    public var residentBytes: Int { mapping.residentBytes }
}
