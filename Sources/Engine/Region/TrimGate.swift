import Kernel
import Synchronization

/// Keeps those who write to blank memory apart from the one who gives such memory back.
///
/// Giving memory back is not one step with the look that found it blank (MADV_DONTNEED does not
/// ask what is there), so what were written in between would be lost. Those who write are in for
/// a few instructions, and the other for one system call: both wait by trying again.
final class TrimGate: Sendable {
    /// How many are inside, and whether the gate is closed.
    private let state = Atomic<UInt32>(0)
    private static let closed: UInt32 = 1 << 31

    /// Any thread.
    @inline(__always)
    func enter() {
        while state.add(1, ordering: .acquiring).oldValue & Self.closed != 0 {
            leave()
            yieldThread()
        }
    }

    @inline(__always)
    func leave() { state.subtract(1, ordering: .releasing) }

    /// Returns when nobody is inside. One thread at a time.
    func close() {
        state.bitwiseOr(Self.closed, ordering: .relaxed)
        while state.load(ordering: .acquiring) != Self.closed { yieldThread() }
    }

    func open() { state.bitwiseAnd(~Self.closed, ordering: .releasing) }
}
