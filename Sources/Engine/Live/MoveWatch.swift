import Kernel
import Synchronization

/// The thread that ends moves which the kernel does not end (`StuckMove`). It is one of its own,
/// for it must wait for nobody: such a move keeps whoever wants to change the mappings of guest
/// memory waiting, khugepaged for one, and behind those may wait whoever touches that memory, the
/// fault thread for one. This thread touches nothing but staging. While nothing moves it sleeps.
final class MoveWatch: Sendable {
    private let wakeUp: WakeUp
    private let isEnding = Atomic<Bool>(false)

    /// Nanoseconds between two looks while pages move.
    private static let pause: UInt64 = 10_000_000
    /// A move of 2 MiB in small pages takes 0.3 ms, if nothing else wants the CPU. Nanoseconds.
    private static let limit: UInt64 = 20_000_000
    /// It is woken when there is something to do. Nanoseconds.
    private static let longest: UInt64 = 3_600_000_000_000

    init() throws(Errno) { wakeUp = try WakeUp() }

    /// A move has begun. Any thread.
    func wake() { wakeUp.signal() }

    /// Has the thread end soon. Any thread.
    func end() {
        isEnding.store(true, ordering: .releasing)
        wakeUp.signal()
    }

    /// The thread's whole life.
    func run(_ pager: Pager<LinuxKernel>) {
        var seen: UInt64 = 0
        while !isEnding.load(ordering: .acquiring) {
            if pager.stuckMove.isToBeWatched(since: &seen) {
                Kernel.sleep(nanoseconds: Self.pause)
                pager.endStuckMove(after: Self.limit)
            } else {
                _ = wakeUp.wait(nanoseconds: Self.longest)
            }
        }
    }
}
