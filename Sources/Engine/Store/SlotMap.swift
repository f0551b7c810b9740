import Kernel
import Synchronization

/// Which page-sized slots of a file are taken: one bit each. Runs are found by
/// next fit, so pages that leave together lie together and are written at once.
public final class SlotMap: Sendable {
    private let state: Lock<State>
    public let capacity: Int
    private let taken = Atomic<Int>(0)

    private struct State: ~Copyable {
        var words: [UInt64]
        var cursor = 0
    }

    public init(capacity: Int) {
        precondition(capacity > 0)
        self.capacity = capacity
        var words = [UInt64](repeating: 0, count: (capacity + 63) / 64)
        // Bits past the end count as taken.
        if capacity % 64 != 0 { words[words.count - 1] = ~0 << UInt64(capacity % 64) }
        state = Lock(State(words: words))
    }

    /// Takes a run of 1 to `wanted` free slots; nil when none is free.
    public func take(upTo wanted: Int) -> Range<Int>? {
        precondition(wanted > 0)
        return state.withLock { state in
            guard taken.value < capacity, let first = firstFree(&state) else { return nil }
            var end = first
            while end < capacity, end - first < wanted, state.words[end / 64] >> UInt64(end % 64) & 1 == 0 {
                state.words[end / 64] |= 1 << UInt64(end % 64)
                end += 1
            }
            taken.add(end - first, ordering: .relaxed)
            state.cursor = end == capacity ? 0 : end
            return first..<end
        }
    }

    public func free(_ slot: Int) {
        precondition(slot >= 0 && slot < capacity)
        state.withLock { state in
            let bit: UInt64 = 1 << UInt64(slot % 64)
            precondition(state.words[slot / 64] & bit != 0, "a slot was freed twice")
            state.words[slot / 64] &= ~bit
            taken.subtract(1, ordering: .relaxed)
        }
    }

    public var used: Int { taken.value }
    /// Memory of the bookkeeping, in bytes.
    public var metadataBytes: Int { (capacity + 63) / 64 * 8 }

    private func firstFree(_ state: inout State) -> Int? {
        let count = state.words.count
        let start = state.cursor / 64
        // Bits below the cursor in its own word are looked at last.
        let above = ~state.words[start] & (~0 << UInt64(state.cursor % 64))
        if above != 0 { return start * 64 + above.trailingZeroBitCount }
        for step in 1...count {
            let index = (start + step) % count
            if state.words[index] != ~0 {
                return index * 64 + (~state.words[index]).trailingZeroBitCount
            }
        }
        return nil
    }
}
