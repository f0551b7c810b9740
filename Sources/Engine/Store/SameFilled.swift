import Kernel
import Synchronization

/// The word that fills a whole page, if one does. Reads it all only when it does.
public func sameFilledWord(_ page: UnsafeRawPointer) -> UInt64? {
    let words = unsafe page.assumingMemoryBound(to: UInt64.self)
    let count = pageSize / MemoryLayout<UInt64>.size
    let first = unsafe words[0]
    // Most pages differ early or at the very end; only then is a full pass worth it.
    guard unsafe words[count - 1] == first, unsafe words[count / 2] == first else { return nil }
    for index in 1..<count where unsafe words[index] != first { return nil }
    return first
}

/// Fills a page with a word.
public func fill(_ page: UnsafeMutableRawPointer, with word: UInt64) {
    let count = pageSize / MemoryLayout<UInt64>.size
    unsafe page.assumingMemoryBound(to: UInt64.self).update(repeating: word, count: count)
}

/// The words of same-filled pages: 8 bytes each, and none for zero pages.
public final class WordTable: Sendable {
    private let mapping: Mapping
    private let state: Lock<State>
    private let used = Atomic<Int>(0)

    private struct State {
        /// Head of the list of free places, threaded through the words; 0 ends it.
        var firstFree = 0
        var high = Int(WordTable.zeroPlace) + 1
    }

    /// The place of every zero page. Not 0: an entry that names it is to look like one that names
    /// something.
    private static let zeroPlace: UInt64 = 1

    public init(capacity: Int) throws(Errno) {
        mapping = try Mapping(length: roundUp((capacity + 1 + Int(Self.zeroPlace)) * 8, to: pageSize))
        state = Lock(State())
    }

    private var words: UnsafeMutablePointer<UInt64> {
        unsafe mapping.base.assumingMemoryBound(to: UInt64.self)
    }

    /// A place for the word; nil when the table is full. Any thread.
    public func put(_ word: UInt64) -> UInt64? {
        if word == 0 { return Self.zeroPlace }
        return state.withLock { state in
            let place: Int
            if state.firstFree != 0 {
                place = state.firstFree
                state.firstFree = unsafe Int(words[place])
            } else {
                guard (state.high + 1) * 8 <= mapping.length else { return nil }
                place = state.high
                state.high += 1
            }
            unsafe words[place] = word
            used.add(1, ordering: .relaxed)
            return UInt64(place)
        }
    }

    /// Any thread, between put and drop.
    public func get(_ place: UInt64) -> UInt64 {
        unsafe place == Self.zeroPlace ? 0 : words[Int(place)]
    }

    /// Any thread.
    public func drop(_ place: UInt64) {
        if place == Self.zeroPlace { return }
        state.withLock { state in
            unsafe words[Int(place)] = UInt64(state.firstFree)
            state.firstFree = Int(place)
            used.subtract(1, ordering: .relaxed)
        }
    }

    /// Host memory of the words in use, in bytes.
    public var usedBytes: Int { used.value * 8 }
}
