import Kernel
import Synchronization

/// Which parts of a block fault to us on a first touch.
///
/// A block starts unwatched: the kernel fills first touches itself, at its own
/// speed and with huge pages. A chunk is watched from the first eviction out of it
/// on, and for good: from then on a hole may be a page of ours. The chunk's word
/// also counts discards of a still unwatched chunk, because those mark no pages:
/// while the count is not zero the chunk may not become watched.
@safe public struct ChunkTable: ~Copyable, @unchecked Sendable {
    private let mapping: Mapping
    private let words: UnsafeMutablePointer<Atomic<UInt32>>
    public let count: Int
    public let pagesPerChunk: Int

    private static let watchedBit: UInt32 = 1 << 31
    /// Set for good before the chunk is watched for the first time.
    private static let markingBit: UInt32 = 1 << 30

    /// Each watched chunk next to an unwatched one is a mapping of its own for the
    /// kernel, and a process may have 65,530 of them (vm.max_map_count).
    private static let chunksMax = 8192

    public init(pageCount: Int) throws(Errno) {
        let pagesPerHugePage = hugePageSize / pageSize
        var pagesPerChunk = pagesPerHugePage
        while (pageCount + pagesPerChunk - 1) / pagesPerChunk > Self.chunksMax { pagesPerChunk *= 2 }
        // One more: a block need not start on a huge-page boundary, chunks do.
        count = pageCount / pagesPerChunk + 2
        self.pagesPerChunk = pagesPerChunk
        mapping = try Mapping(
            length: roundUp(count * MemoryLayout<Atomic<UInt32>>.stride, to: pageSize))
        unsafe words = mapping.base.assumingMemoryBound(to: Atomic<UInt32>.self)
    }

    /// What the worker may do with a chunk it wants to evict from.
    public enum Entry: Equatable, Sendable {
        case watched
        /// The caller must register it and then call `enter(completed:)`.
        case enter
        /// A discard is under way: come back later.
        case discarding
    }

    /// Worker only.
    public func prepare(_ chunk: Int) -> Entry {
        let answer = unsafe words[chunk].compareExchange(
            expected: 0, desired: Self.markingBit, ordering: .acquiringAndReleasing)
        if answer.exchanged || answer.original == Self.markingBit { return .enter }
        return answer.original & Self.watchedBit != 0 ? .watched : .discarding
    }

    /// Ends what `prepare` began. Worker only.
    public func enter(_ chunk: Int, completed: Bool) {
        // After a failure too, discards go on marking their pages: one that began
        // with marks must end with them.
        let bits = Self.markingBit | (completed ? Self.watchedBit : 0)
        unsafe words[chunk].store(bits, ordering: .releasing)
    }

    /// True when the discard must mark pages one by one; otherwise the chunk now
    /// counts it, and `endDiscard` must follow.
    public func beginDiscard(_ chunk: Int) -> Bool {
        var word = unsafe words[chunk].load(ordering: .acquiring)
        while word & Self.markingBit == 0 {
            let answer = unsafe words[chunk].compareExchange(
                expected: word, desired: word + 1, ordering: .acquiringAndReleasing)
            if answer.exchanged { return false }
            word = answer.original
        }
        return true
    }

    /// True when the discard had marked pages one by one. A chunk that counted a
    /// discard stays unwatched until the count is zero again, so its word tells.
    public func endDiscard(_ chunk: Int) -> Bool {
        let word = unsafe words[chunk].load(ordering: .acquiring)
        if word & Self.markingBit != 0 { return true }
        precondition(word > 0, "a discard ended that never began")
        unsafe words[chunk].subtract(1, ordering: .acquiringAndReleasing)
        return false
    }

    public func isWatched(_ chunk: Int) -> Bool {
        unsafe words[chunk].load(ordering: .acquiring) & Self.watchedBit != 0
    }
}
