import Glibc
import Kernel
import SeededRandom

/// Runs a simulation's actors one at a time. Each actor has a thread of its own, as
/// in production, but only the holder of the token runs; at every `step` the seeded
/// scheduler says who holds it next. So a run is a function of its seed.
///
/// All members are for the holder of the token, apart from `spawn` and `run`, which
/// belong to the thread that owns the simulation.
@safe public final class Scheduler: @unchecked Sendable {
    /// Nanoseconds of simulated time.
    public private(set) var now: UInt64 = 1_000_000_000
    public private(set) var steps = 0
    public var random: SplitMix
    /// Checks what must hold; called at every step.
    public var invariants: () -> Void = {}
    /// Work that no thread does, like a disk's: true when some was left to do.
    public var background: () -> Bool = { false }
    public let trace: Trace
    public private(set) var violation: String?

    private let settings: Settings
    private var actors: [Actor] = []
    private var threads: [Kernel.Thread] = []
    private var current: Actor?
    private let finished = Semaphore()

    public struct Settings: Sendable {
        /// Longest simulated time that one step takes, in nanoseconds.
        public var stepTimeMax: UInt64
        /// How often, per mille, the running actor may go on.
        public var stickiness: Int
        /// How often, per mille, background work goes on at a step.
        public var backgroundRate: Int
        /// A run that takes longer hangs.
        public var stepsMax: Int

        public init(stepTimeMax: UInt64, stickiness: Int, backgroundRate: Int, stepsMax: Int) {
            self.stepTimeMax = stepTimeMax
            self.stickiness = stickiness
            self.backgroundRate = backgroundRate
            self.stepsMax = stepsMax
        }
    }

    final class Actor {
        let name: String
        /// The share of turns it gets, among those who can run.
        let weight: Int
        let turn = Semaphore()
        var isReady: (() -> Bool)?
        var deadline: UInt64 = .max
        var isDone = false

        init(name: String, weight: Int) {
            self.name = name
            self.weight = weight
        }

        func canRun(at now: UInt64) -> Bool {
            if isDone { return false }
            guard let isReady else { return true }
            return now >= deadline || isReady()
        }
    }

    public init(random: SplitMix, settings: Settings, trace: Trace) {
        self.random = random
        self.settings = settings
        self.trace = trace
    }

    /// The running actor's name; empty while the simulation is set up.
    public var actorName: String { current?.name ?? "" }

    /// Adds an actor before `run`.
    public func spawn(_ name: String, weight: Int, cpu: Int, _ body: @escaping @Sendable () -> Void) {
        let actor = Actor(name: name, weight: weight)
        actors.append(actor)
        nonisolated(unsafe) let mine = actor
        let thread = try! Kernel.Thread(name: "sim-\(name)") { [self] in
            letTrapsThrough()
            mine.turn.wait()
            body()
            mine.isDone = true
            trace.note(name, "ends")
            handOver()
        }
        // Handing the token to a thread on another CPU would cost a wake-up each time.
        thread.pin(toCPU: cpu)
        threads.append(thread)
    }

    /// Runs until every actor is done, or a rule was broken. The actors of a broken run
    /// sleep for good: production code can't be unwound.
    public func run() {
        guard let first = choose(after: nil) else { return }
        current = first
        first.turn.post()
        finished.wait()
        if violation == nil { threads.forEach { $0.join() } }
    }

    /// A place where another actor may get in between.
    public func step() {
        guard let me = current else { return }
        tick()
        if random.chance(settings.stickiness) { return }
        pass(from: me)
    }

    /// The actor has nothing to do until another one has run.
    public func yield() {
        guard let me = current else { return }
        tick()
        pass(from: me)
    }

    /// The actor sleeps until `ready` answers true, or the time has come.
    public func block(until deadline: UInt64 = .max, ready: @escaping () -> Bool) {
        guard let me = current else { preconditionFailure("only actors block") }
        me.isReady = ready
        me.deadline = deadline
        tick()
        pass(from: me)
        me.isReady = nil
        me.deadline = .max
    }

    /// A rule is broken: ends the run.
    public func fail(_ message: String) -> Never {
        violation = "step \(steps), \(actorName): \(message)"
        trace.note(actorName, "VIOLATION \(message)")
        finished.post()
        while true { Semaphore().wait() }
    }

    private func tick() {
        steps += 1
        now += 1 + random.next() % settings.stepTimeMax
        if steps > settings.stepsMax {
            let waiting = actors.filter { !$0.isDone && !$0.canRun(at: now) }.map(\.name)
            fail("the run doesn't end; asleep: \(waiting)")
        }
        if random.chance(settings.backgroundRate) { _ = background() }
        invariants()
    }

    private func pass(from me: Actor) {
        guard let next = choose(after: me) else { fail("nobody can run: a hang") }
        if next === me { return }
        current = next
        next.turn.post()
        me.turn.wait()
    }

    private func handOver() {
        guard let next = choose(after: nil) else {
            if actors.allSatisfy(\.isDone) {
                finished.post()
                return
            }
            fail("nobody can run: a hang")
        }
        current = next
        next.turn.post()
    }

    private func choose(after me: Actor?) -> Actor? {
        while true {
            var total = 0
            for actor in actors where actor.canRun(at: now) { total += actor.weight }
            if total > 0 {
                var ticket = random.below(total)
                for actor in actors where actor.canRun(at: now) {
                    ticket -= actor.weight
                    if ticket < 0 { return actor }
                }
                preconditionFailure("readiness changed while it was asked for")
            }
            if background() { continue }
            guard let next = actors.filter({ !$0.isDone }).map(\.deadline).min(), next != .max
            else { return nil }
            now = max(now, next)
        }
    }
}

/// The library's threads block all signals; a trap in production code must still reach
/// the handler that names the seed.
private func letTrapsThrough() {
    var traps = sigset_t()
    for number in [SIGILL, SIGTRAP, SIGSEGV, SIGBUS, SIGABRT] { sigaddset(&traps, number) }
    pthread_sigmask(SIG_UNBLOCK, &traps, nil)
}

/// A counting semaphore between threads.
@safe final class Semaphore: @unchecked Sendable {
    private let semaphore: UnsafeMutablePointer<sem_t>

    init() {
        semaphore = .allocate(capacity: 1)
        sem_init(semaphore, 0, 0)
    }

    func post() { sem_post(semaphore) }
    func wait() { while sem_wait(semaphore) != 0 {} }

    deinit {
        sem_destroy(semaphore)
        semaphore.deallocate()
    }
}
