import Kernel
import Synchronization

/// How many pages of each part of an `AgeMap` had which stamp when they were last counted, and
/// which parts have changed since: what is at rest is not counted anew.
///
/// Whoever changes an age says so afterwards (`noteChange`), whoever counts takes that note
/// before he reads the ages (`takeChange`): so what the note does not tell of is counted.
@safe struct AgeCounts: ~Copyable, @unchecked Sendable {
    /// Words of the map, of 16 pages each, in a part: a huge page's worth.
    static let wordsPerPart = 32

    /// Never given back: a note could get lost.
    private let notesMapping: Mapping
    private let notes: UnsafeMutablePointer<Atomic<UInt8>>
    private let countsMapping: Mapping
    private let counts: UnsafeMutablePointer<UInt16>
    let partCount: Int

    init(wordCount: Int) throws(Errno) {
        let parts = (wordCount + Self.wordsPerPart - 1) / Self.wordsPerPart
        let countBytes = parts * AgeMap.stampCount * MemoryLayout<UInt16>.stride
        let notesMapping = try Mapping(length: roundUp(parts, to: pageSize))
        let countsMapping = try Mapping(length: roundUp(countBytes, to: pageSize))
        unsafe notes = notesMapping.base.assumingMemoryBound(to: Atomic<UInt8>.self)
        unsafe counts = countsMapping.base.assumingMemoryBound(to: UInt16.self)
        self.notesMapping = notesMapping
        self.countsMapping = countsMapping
        partCount = parts
    }

    /// A word of the map was changed. Any thread.
    @inline(__always)
    func noteChange(ofWord word: Int) {
        unsafe notes[word / Self.wordsPerPart].store(1, ordering: .releasing)
    }

    /// Ages of the part may have changed since it was last counted.
    @inline(__always)
    func hasChanged(_ part: Int) -> Bool { unsafe notes[part].load(ordering: .acquiring) != 0 }

    /// The same, of which the part is rid: it is about to be counted.
    @inline(__always)
    func takeChange(_ part: Int) -> Bool {
        guard hasChanged(part) else { return false }
        return unsafe notes[part].exchange(0, ordering: .acquiringAndReleasing) != 0
    }

    /// Pages of the part with a stamp, as last counted.
    @inline(__always)
    func pages(_ part: Int, _ stamp: UInt8) -> Int {
        unsafe Int(counts[part * AgeMap.stampCount + Int(stamp)])
    }

    /// Where something was counted, it is kept in mind. Pages that are absent are not counted:
    /// of parts that have no others, nothing takes memory.
    func set(_ part: Int, _ counted: [Int]) {
        for stamp in 1..<AgeMap.stampCount {
            let index = part * AgeMap.stampCount + stamp
            let value = UInt16(counted[stamp])
            if unsafe counts[index] != value { unsafe counts[index] = value }
        }
    }

    /// Adds the part's pages to `total`, by stamp.
    @inline(__always)
    func add(_ part: Int, to total: inout [Int]) {
        for stamp in 1..<AgeMap.stampCount {
            unsafe total[stamp] += Int(counts[part * AgeMap.stampCount + stamp])
        }
    }

    func trim() -> Int { countsMapping.trimBlank() + notesMapping.residentBytes }
    var residentBytes: Int { countsMapping.residentBytes + notesMapping.residentBytes }
}
