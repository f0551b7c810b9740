import Glibc
import Synchronization

/// Names the seeds under way when a precondition of the production code stops the
/// process, which no test framework survives.
enum LastSeeds {
    private static let seeds: [SeedBox] = (0..<4).map { _ in SeedBox() }

    private final class SeedBox: Sendable {
        let seed = Atomic<UInt64>(0)
    }

    private static let handlers: Void = {
        for number in [SIGILL, SIGTRAP, SIGSEGV, SIGABRT] {
            signal(number) { number in
                LastSeeds.print()
                signal(number, SIG_DFL)
                raise(number)
            }
        }
    }()

    static func note(_ seed: UInt64, lane: Int) {
        handlers
        seeds[lane].seed.store(seed, ordering: .relaxed)
    }

    private static func print() {
        for box in seeds {
            let seed = box.seed.load(ordering: .relaxed)
            if seed == 0 { continue }
            let text = "\nthe process stops; replay with FROSTLINE_SIM_SEED=\(seed)\n"
            _ = text.withCString { write(2, $0, strlen($0)) }
        }
    }
}
