import Kernel
import SeededRandom

/// A kernel that runs in memory by the rules of the real one (userfaultfd with missing and
/// minor faults, MOVE, RWP in both modes, synchronous WP), as measured on Linux 7.3 and
/// 6.18. Each call is a place where other actors may get in between, and where mischief may strike.
///
/// All members are for the holder of the scheduler's token.
public final class SimulatedKernel: KernelPort, @unchecked Sendable {
    public typealias Device = SimulatedDisk

    public let scheduler: Scheduler
    public var mischief: Mischief
    public let sabotage: Sabotage?
    /// What an armed page is protected against.
    public let protection: Protection
    /// An access to a page that is protected against it waits, instead of being noted.
    public internal(set) var isSynchronous: Bool
    public internal(set) var spaces: [Space] = []
    /// Moves that did not end by themselves. Each takes hundreds of steps: a run has some.
    var stuckMoves = 0
    static var stuckMovesMax: Int { 20 }
    /// Accesses that sleep until a page comes.
    var sleepers: [Sleeper] = []
    /// Placements that read errors excuse.
    public internal(set) var poisoned = 0
    /// Told when a page of a guest is there, or gone: it no longer waits for the store.
    public var onSettled: (Space, Int) -> Void = { _, _ in }
    /// Told of each page that leaves the guest.
    public var onLeaving: (Space, Int) -> Void = { _, _ in }

    public enum Protection: Sendable {
        /// Reads and writes, asynchronous at first.
        case readWrite
        /// Writes, synchronous throughout.
        case write
    }

    final class Sleeper {
        let space: Space
        let page: Int
        let kind: FaultKind
        let isWrite: Bool
        var isReported = false
        var isAwake = false

        init(_ space: Space, _ page: Int, _ kind: FaultKind, isWrite: Bool) {
            self.space = space
            self.page = page
            self.kind = kind
            self.isWrite = isWrite
        }
    }

    public init(
        scheduler: Scheduler, mischief: Mischief, sabotage: Sabotage?,
        protection: Protection = .readWrite
    ) {
        self.protection = protection
        isSynchronous = protection == .write
        self.scheduler = scheduler
        self.mischief = mischief
        self.sabotage = sabotage
    }

    public func add(_ space: Space) { spaces.append(space) }

    /// The mapping is gone (munmap); whoever slept in it is released.
    public func remove(_ space: Space) {
        spaces.removeAll { $0 === space }
        for sleeper in sleepers where sleeper.space === space { sleeper.isAwake = true }
    }

    func space(at address: UInt64) -> Space {
        guard let space = spaces.first(where: { $0.contains(address) || $0.viewContains(address) }) else {
            scheduler.fail("a call named an address that is not mapped")
        }
        return space
    }

    func note(_ event: StaticString, _ first: Int = 0, _ second: Int = 0) {
        scheduler.trace.note(scheduler.actorName, event, first, second)
    }

    func strikes(_ kind: KeyPath<Mischief, Int>) -> Bool {
        scheduler.random.chance(mischief[keyPath: kind])
    }

    // MARK: Registration

    public func track(start: UInt64, length: UInt64) -> Errno? {
        scheduler.step()
        if strikes(\.watchFailure) { return .noMemory }
        let space = space(at: start)
        for page in space.pages(start, length) { space[page].tracked = true }
        note("track", Int(length) / pageSize)
        return nil
    }

    public func watch(start: UInt64, length: UInt64, tracked: Bool, shared: Bool) -> Errno? {
        scheduler.step()
        if !spaces.contains(where: { $0.contains(start) }) {
            spaces.append(Space(name: "staging", start: start, pageCount: Int(length) / pageSize))
        }
        if strikes(\.watchFailure) { return .noMemory }
        let space = space(at: start)
        let pages = space.pages(start, length)
        if shared && !space.isShared { return .invalid }
        if space.isShared && !shared { scheduler.fail("minor faults of shared memory are not watched") }
        for page in pages where space[page].tracked && !tracked { return .busy }
        for page in pages {
            space[page].missing = true
            space[page].tracked = tracked
        }
        note("watch", pages.lowerBound, pages.count)
        return nil
    }

    public func unregister(start: UInt64, length: UInt64) -> Errno? {
        scheduler.step()
        let space = space(at: start)
        for page in space.pages(start, length) {
            space[page].missing = false
            space[page].tracked = false
            space[page].armed = false
        }
        wakeSleepers(space, space.pages(start, length))
        note("unregister", Int(length) / pageSize)
        return nil
    }

    // MARK: Faults

    public func wake(start: UInt64, length: UInt64) {
        scheduler.step()
        if sabotage == .wakeDoesNothing { return }
        guard let space = spaces.first(where: { $0.contains(start) }) else { return }
        wakeSleepers(space, space.pages(start, length))
        note("wake", space.pages(start, length).lowerBound, Int(length) / pageSize)
    }

    func wakeSleepers(_ space: Space, _ pages: Range<Int>) {
        for sleeper in sleepers where sleeper.space === space && pages.contains(sleeper.page) {
            sleeper.isAwake = true
        }
        // Whoever is woken before the message was read takes the message along.
        sleepers.removeAll(where: \.isAwake)
    }

    public func readFaults(into faults: UnsafeMutableBufferPointer<FaultMessage>) -> Int {
        scheduler.step()
        var count = 0
        for sleeper in sleepers where !sleeper.isReported && count < faults.count {
            if scheduler.random.chance(200) { continue }
            sleeper.isReported = true
            faults[count] = FaultMessage(
                address: sleeper.space.address(of: sleeper.page), kind: sleeper.kind,
                isWrite: sleeper.isWrite)
            note("fault", sleeper.page)
            count += 1
        }
        return count
    }

    /// Whether the userfaultfd is readable.
    public var hasFaults: Bool { sleepers.contains { !$0.isReported } }
    public var hasSleepers: Bool { !sleepers.isEmpty }
    public func sleeps(on space: Space, _ page: Int) -> Bool {
        sleepers.contains { $0.space === space && $0.page == page }
    }

    // MARK: Time

    public func now() -> UInt64 { scheduler.now }
    /// Every thread is as busy as the others.
    public func threadTime() -> UInt64 { scheduler.now / 64 }
    public func pause() { scheduler.yield() }
    public func interleave() { scheduler.step() }
}
