import Kernel
import SeededRandom

/// What a guest writes: the contents are a function of page and version, so that any
/// reader knows each byte. Version 0 is a page never written, or discarded: zeros.
public struct PageContents: Sendable {
    /// Shares of the kinds of page, out of 100; the rest are incompressible.
    public var zero: Int
    public var sameFilled: Int
    public var compressible: Int

    public init(zero: Int, sameFilled: Int, compressible: Int) {
        self.zero = zero
        self.sameFilled = sameFilled
        self.compressible = compressible
    }

    private static let words = pageSize / MemoryLayout<UInt64>.size

    public func write(page: Int, version: UInt32, to memory: UnsafeMutableRawPointer) {
        let words = memory.assumingMemoryBound(to: UInt64.self)
        generate(page, version) { words[$0] = $1 }
    }

    /// Whether memory holds exactly that version.
    public func matches(page: Int, version: UInt32, _ memory: UnsafeRawPointer) -> Bool {
        let words = memory.assumingMemoryBound(to: UInt64.self)
        var equal = true
        generate(page, version) { if words[$0] != $1 { equal = false } }
        return equal
    }

    @inline(__always)
    private func generate(_ page: Int, _ version: UInt32, _ put: (Int, UInt64) -> Void) {
        var random = SplitMix(seed: UInt64(page) << 32 | UInt64(version))
        let kind = version == 0 ? 0 : random.below(100)
        let word = random.next()
        if version == 0 || kind < zero {
            for index in 0..<Self.words { put(index, 0) }
        } else if kind < zero + sameFilled {
            for index in 0..<Self.words { put(index, word) }
        } else if kind < zero + sameFilled + compressible {
            // Sizes spread over the pool's classes.
            let noise = 1 + random.below(Self.words * 3 / 4)
            for index in 0..<Self.words { put(index, index < noise ? random.next() : word) }
        } else {
            for index in 0..<Self.words { put(index, random.next()) }
        }
    }
}
