import Kernel
import Synchronization

/// When each page was last touched: a stamp of 4 bits a page, which `IdleHistory` turns
/// into times. A page is stamped when it is found touched, and left alone while it is
/// not: aging costs what is touched, not what there is.
///
/// The worker stamps on a pass, the fault server when a page arrives. A lost race costs
/// one page's age until it is looked at again, so relaxed order is enough.
@safe public struct AgeMap: ~Copyable, @unchecked Sendable {
    private let mapping: Mapping
    private let words: UnsafeMutablePointer<Atomic<UInt64>>
    private let tally: AgeCounts
    public let pageCount: Int

    /// Neither resident nor swapped out by the host, as far as was last seen.
    public static let absent: UInt8 = 0
    /// Stamps of `IdleHistory`.
    public static let stamps: ClosedRange<UInt8> = 1...14
    /// Resident, and refused by the store or merged with another page: not worth another
    /// try before it is touched.
    public static let kept: UInt8 = 15
    public static let stampCount = 16

    private static let pagesPerWord = 16
    private static let ones: UInt64 = 0x1111_1111_1111_1111

    public init(pageCount: Int) throws(Errno) {
        let wordCount = (pageCount + Self.pagesPerWord - 1) / Self.pagesPerWord
        let mapping = try Mapping(length: roundUp(wordCount * 8, to: pageSize))
        tally = try AgeCounts(wordCount: wordCount)
        unsafe words = mapping.base.assumingMemoryBound(to: Atomic<UInt64>.self)
        self.mapping = mapping
        self.pageCount = pageCount
    }

    @inline(__always)
    public subscript(page: Int) -> UInt8 {
        get {
            assert(page >= 0 && page < pageCount)
            let word = unsafe words[page / Self.pagesPerWord].load(ordering: .relaxed)
            return UInt8(truncatingIfNeeded: word >> Self.shift(page)) & 15
        }
        nonmutating set {
            assert(page >= 0 && page < pageCount)
            let mask: UInt64 = 15 << Self.shift(page)
            update(page / Self.pagesPerWord) { $0 & ~mask | UInt64(newValue) << Self.shift(page) }
        }
    }

    @inline(__always)
    private static func shift(_ page: Int) -> UInt64 { UInt64(page % pagesPerWord * 4) }

    /// Changes a word that others may be changing too, and has it counted anew.
    @inline(__always)
    private func update(_ index: Int, _ change: (UInt64) -> UInt64) {
        if replace(index, change) { tally.noteChange(ofWord: index) }
    }

    /// True when that changed anything.
    @inline(__always)
    private func replace(_ index: Int, _ change: (UInt64) -> UInt64) -> Bool {
        var old = unsafe words[index].load(ordering: .relaxed)
        while true {
            let new = change(old)
            // Memory that says so already is not written: it may not even be there.
            if new == old { return false }
            let answer = unsafe words[index].weakCompareExchange(
                expected: old, desired: new, ordering: .relaxed)
            if answer.exchanged { return true }
            old = answer.original
        }
    }

    /// Changes the stamps of a range, a word at a time; `change` gets the word and the
    /// bits of it that belong to the range.
    @inline(__always)
    private func update(_ pages: Range<Int>, _ change: (UInt64, UInt64) -> UInt64) {
        assert(pages.lowerBound >= 0 && pages.upperBound <= pageCount)
        var page = pages.lowerBound
        while page < pages.upperBound {
            let end = min(pages.upperBound, (page / Self.pagesPerWord + 1) * Self.pagesPerWord)
            let mask = Self.mask(page, end)
            update(page / Self.pagesPerWord) { change($0, mask) }
            page = end
        }
    }

    /// The pages are not resident.
    public func forget(_ pages: Range<Int>) { update(pages) { $0 & ~$1 } }

    /// Gives all the pages one age.
    public func set(_ pages: Range<Int>, _ stamp: UInt8) {
        let pattern = Self.ones * UInt64(stamp)
        update(pages) { $0 & ~$1 | pattern & $1 }
    }

    /// The pages were touched. Adds to `returned` how many had which stamp before.
    public func stamp(_ pages: Range<Int>, _ stamp: UInt8, returned: inout [Int]) {
        let pattern = Self.ones * UInt64(stamp)
        update(pages) { word, mask in
            if (word ^ pattern) & mask == 0 { return word }
            Self.count(word, mask, &returned)
            return word & ~mask | pattern & mask
        }
    }

    @inline(__always)
    private static func count(_ word: UInt64, _ mask: UInt64, _ counts: inout [Int]) {
        var (word, mask) = (word, mask)
        while mask != 0 {
            if mask & 15 != 0 { counts[Int(word & 15)] += 1 }
            word >>= 4
            mask >>= 4
        }
    }

    /// The pages are resident and untouched: those not known yet count as touched.
    public func stampUnknown(_ pages: Range<Int>, _ stamp: UInt8) {
        update(pages) { $0 | (Self.marks(ofBlank: $0) & $1) * UInt64(stamp) }
    }

    /// What somebody else knew of the pages: those that are resident get the stamp, but for
    /// those that are `kept`.
    public func assign(_ pages: Range<Int>, _ stamp: UInt8) {
        update(pages) { word, mask in
            let changes = ~(Self.marks(ofBlank: word) | Self.marks(ofBlank: ~word)) & Self.ones & mask
            return word & ~(changes * 15) | changes * UInt64(stamp)
        }
    }

    /// The end of the run of pages with the same stamp that begins at `page`.
    public func endOfRun(from page: Int) -> Int {
        let stamp = self[page]
        let pattern = Self.ones * UInt64(stamp)
        var next = page + 1
        while next < pageCount {
            let word = next % Self.pagesPerWord == 0 ? next / Self.pagesPerWord : nil
            if let word, unsafe words[word].load(ordering: .relaxed) == pattern {
                next = min(pageCount, next + Self.pagesPerWord)
            } else if self[next] == stamp {
                next += 1
            } else {
                break
            }
        }
        return next
    }

    /// True when every page of the range is known to be resident.
    public func isFull(_ pages: Range<Int>) -> Bool {
        var page = pages.lowerBound
        while page < pages.upperBound {
            let index = page / Self.pagesPerWord
            let end = min(pages.upperBound, (index + 1) * Self.pagesPerWord)
            let mask = Self.mask(page, end)
            let word = unsafe words[index].load(ordering: .relaxed)
            if Self.marks(ofBlank: word) & mask != 0 { return false }
            page = end
        }
        return true
    }

    /// The bits of neighbours of one word.
    @inline(__always)
    private static func mask(_ first: Int, _ end: Int) -> UInt64 {
        (~UInt64(0) >> UInt64((pagesPerWord - (end - first)) * 4)) << shift(first)
    }

    /// The lowest bit of each stamp that is 0.
    @inline(__always)
    private static func marks(ofBlank word: UInt64) -> UInt64 {
        ~(word | word >> 1 | word >> 2 | word >> 3) & ones
    }

    /// Counts resident pages by stamp, those of `others` left out, and replaces one stamp
    /// by another on the way. Costs what has changed since the last time. For one thread at a
    /// time, the holder of the pass lock.
    public func sweep(_ relabel: Relabel?, except others: PageSet? = nil, into counts: inout [Int]) {
        let others = others.flatMap { $0.count > 0 ? $0 : nil }
        for part in 0..<tally.partCount {
            let words = words(ofPart: part)
            let isChanged = tally.takeChange(part)
            var isRelabelled = false
            if let relabel, isChanged || tally.pages(part, relabel.from) > 0 {
                for index in words where replace(index, { Self.relabel($0, relabel) }) { isRelabelled = true }
            }
            if isChanged || isRelabelled { tally.set(part, count(words)) }
            if let others, words.contains(where: { others.bits(ofWord: $0) != 0 }) {
                let counted = count(words, except: others)
                for stamp in 1..<Self.stampCount { counts[stamp] += counted[stamp] }
            } else {
                tally.add(part, to: &counts)
            }
        }
        counts[Int(Self.absent)] = 0
    }

    /// Whether any of the pages may have one of the stamps. False is sure as of the last `sweep`.
    @inline(__always)
    public func mayHold(_ stamps: StampSet, _ pages: Range<Int>) -> Bool {
        guard let last = pages.last else { return false }
        let pagesPerPart = AgeCounts.wordsPerPart * Self.pagesPerWord
        for part in pages.lowerBound / pagesPerPart...last / pagesPerPart {
            if tally.hasChanged(part) { return true }
            for stamp in 1..<UInt8(Self.stampCount) where stamps.contains(stamp) {
                if tally.pages(part, stamp) > 0 { return true }
            }
        }
        return false
    }

    private func words(ofPart part: Int) -> Range<Int> {
        let first = part * AgeCounts.wordsPerPart
        let count = (pageCount + Self.pagesPerWord - 1) / Self.pagesPerWord
        return first..<min(first + AgeCounts.wordsPerPart, count)
    }

    private func count(_ words: Range<Int>, except others: PageSet? = nil) -> [Int] {
        var counts = [Int](repeating: 0, count: Self.stampCount)
        for index in words {
            var word = unsafe self.words[index].load(ordering: .relaxed)
            if let others { word &= ~Self.mask(ofPages: others.bits(ofWord: index)) }
            if word == word & 15 * Self.ones {
                counts[Int(word & 15)] += Self.pagesPerWord
            } else {
                Self.count(word, ~0, &counts)
            }
        }
        return counts
    }

    /// Four bits for each one bit.
    private static func mask(ofPages bits: UInt16) -> UInt64 {
        var mask: UInt64 = 0
        var left = bits
        while left != 0 {
            mask |= 15 << UInt64(left.trailingZeroBitCount * 4)
            left &= left - 1
        }
        return mask
    }

    private static func relabel(_ word: UInt64, _ relabel: Relabel) -> UInt64 {
        let matches = marks(ofBlank: word ^ ones * UInt64(relabel.from))
        return word ^ matches * UInt64(relabel.from ^ relabel.into)
    }

    /// Gives memory back that speaks of absent pages only; returns the bytes of host
    /// memory that are left. A page that arrives meanwhile may lose its age, which it
    /// gets again on the next visit. Worker thread only.
    public func trim() -> Int { mapping.trimBlank() + tally.trim() }

    /// Host memory behind it, in bytes.
    public var residentBytes: Int { mapping.residentBytes + tally.residentBytes }
}

/// Two stamps become one: their times are told apart no more.
public struct Relabel: Equatable, Sendable {
    public let from: UInt8
    public let into: UInt8

    public init(from: UInt8, into: UInt8) {
        self.from = from
        self.into = into
    }
}
