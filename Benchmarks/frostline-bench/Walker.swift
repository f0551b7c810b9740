import CBareLoops
import Kernel
import Synchronization

/// A thread that walks its working set: a write to each page, over and over.
final class Walker {
    private final class Shared: Sendable {
        let isStopping = Atomic<Bool>(false)
        let touches = Atomic<Int>(0)
        let cpuTime = Atomic<UInt64>(0)
    }

    /// How far it has come. Nanoseconds.
    struct Mark {
        let touches: Int
        let wall: UInt64
        let cpu: UInt64
    }

    /// Nanoseconds for a touch, by the clock and of the thread's own CPU time.
    struct Pace {
        let wall: Double
        let own: Double

        init(from start: Mark, to end: Mark) {
            let touches = Double(end.touches - start.touches)
            wall = Double(end.wall - start.wall) / touches
            own = Double(end.cpu - start.cpu) / touches
        }
    }

    private let shared = Shared()
    /// Whatever the memory belongs to.
    private let owner: AnyObject
    private let thread: Kernel.Thread

    convenience init(_ memory: WatchedMemory, _ pages: [UInt32]) throws {
        try self.init(memory, at: memory.base, pages)
    }

    init(_ owner: AnyObject, at base: UnsafeMutableRawPointer, _ pages: [UInt32]) throws {
        self.owner = owner
        nonisolated(unsafe) let base = base
        thread = try Kernel.Thread(name: "bench-walker") { [shared] in
            while !shared.isStopping.load(ordering: .relaxed) {
                for page in pages { bench_write(base, page) }
                shared.touches.add(pages.count, ordering: .relaxed)
                shared.cpuTime.store(bench_cpu_time(), ordering: .relaxed)
            }
        }
    }

    var mark: Mark {
        Mark(
            touches: shared.touches.load(ordering: .relaxed), wall: monotonicNow(),
            cpu: shared.cpuTime.load(ordering: .relaxed))
    }

    func stop() {
        shared.isStopping.store(true, ordering: .relaxed)
        thread.join()
    }
}
