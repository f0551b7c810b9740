import Kernel
import Synchronization

/// Keeps the worker's steps and control calls apart. A flag rather than a lock that blocks: what
/// the holder waits for may be a thread that the simulation runs only when the waiting one pauses.
final class PassLock: Sendable {
    /// The thread that holds it; 0 for none.
    private let holder = Atomic<UInt64>(0)

    var isMine: Bool { holder.load(ordering: .relaxed) == currentThread() }

    /// False when it is taken.
    func take() -> Bool {
        let (exchanged, _) = holder.compareExchange(
            expected: 0, desired: currentThread(), successOrdering: .acquiring,
            failureOrdering: .relaxed)
        return exchanged
    }

    func letGo() { holder.store(0, ordering: .releasing) }
}
