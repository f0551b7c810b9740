import Kernel
import Synchronization

/// Ends a UFFDIO_MOVE that would not end by itself.
///
/// To take a part of a huge page the kernel splits it, which fails with EAGAIN for as long as
/// somebody holds a reference to any of its pages: memory that is pinned for I/O, for one.
/// `move_pages` (mm/userfaultfd.c) of Linux 7.3 takes that for an address space that is changing
/// and begins anew, until the reference is gone or the process is killed. (Linux 6.18 answers EBUSY
/// at once, as both do for small pages and whole huge ones that are pinned.)
///
/// But MOVE replaces nothing (EEXIST): a page that lies where one is to go ends it. Another thread,
/// the watch (`MoveWatch`), puts one there.
final class StuckMove: Sendable {
    /// When the move that is under way began, on the kernel's clock; or one of these.
    private let state = Atomic<UInt64>(none)
    private static let none: UInt64 = 0
    /// The watch looks for a place to put a page.
    private static let ending: UInt64 = 1
    private static let earliest: UInt64 = 2

    // Written by the worker while `state` is `none`, by the watch while it is `ending`.
    /// Where pages are to go, but for those that were found there.
    private let next = Atomic<UInt64>(0)
    private let end = Atomic<UInt64>(0)
    /// Where a page was put; 0 for nowhere.
    private let filled = Atomic<UInt64>(0)

    /// Moves so far.
    private let begun = Atomic<UInt64>(0)
    private let isWatched = Atomic<Bool>(false)
    private let wakeWatch: @Sendable () -> Void

    init(wakeWatch: @escaping @Sendable () -> Void) { self.wakeWatch = wakeWatch }

    /// A move of `length` bytes to `target` begins. Worker only.
    func begin(to target: UInt64, length: UInt64, at now: UInt64) {
        next.store(target, ordering: .relaxed)
        end.store(target + length, ordering: .relaxed)
        filled.store(0, ordering: .relaxed)
        state.store(max(now, Self.earliest), ordering: .releasing)
        // In this order, and the watch in the opposite one: either it sees the move or is woken.
        begun.add(1, ordering: .sequentiallyConsistent)
        if !isWatched.load(ordering: .sequentiallyConsistent) { wakeWatch() }
    }

    /// Whether a move is under way, or one has begun since the last call; else the watch may sleep
    /// until it is woken. The watch only.
    func isToBeWatched(since last: inout UInt64) -> Bool {
        let isUnderWay = state.load(ordering: .relaxed) != Self.none
        let isWanted = isUnderWay || begun.load(ordering: .relaxed) != last
        isWatched.store(isWanted, ordering: .sequentiallyConsistent)
        let now = begun.load(ordering: .sequentiallyConsistent)
        defer { last = now }
        return isUnderWay || now != last
    }

    /// It has ended. Where the page lies that ended it; nil: it ended by itself. Worker only.
    func finish(pause: () -> Void) -> UInt64? {
        while true {
            let before = state.load(ordering: .relaxed)
            // The watch is about to answer.
            guard before != Self.ending else { pause(); continue }
            guard exchange(before, Self.none) else { continue }
            let filled = filled.load(ordering: .relaxed)
            return filled == 0 ? nil : filled
        }
    }

    /// Ends a move that began more than `limit` nanoseconds ago. `fill` puts a page at an address,
    /// and says whether it did; to be called for one address after the other, since those that
    /// have been moved are not empty. The watch only.
    func endIfOverdue(at now: UInt64, limit: UInt64, fill: (UInt64) -> Placement) {
        let began = state.load(ordering: .relaxed)
        guard began >= Self.earliest, now > began, now - began > limit,
            filled.load(ordering: .relaxed) == 0, exchange(began, Self.ending)
        else { return }
        var address = next.load(ordering: .relaxed)
        var placement = Placement.alreadyThere
        while placement == .alreadyThere, address < end.load(ordering: .relaxed) {
            placement = fill(address)
            if placement == .alreadyThere { address += UInt64(pageSize) }
        }
        // If it was not placed for another reason, the next call tries again there.
        if placement == .placed { filled.store(address, ordering: .relaxed) }
        next.store(address, ordering: .relaxed)
        state.store(began, ordering: .releasing)
    }

    private func exchange(_ before: UInt64, _ after: UInt64) -> Bool {
        state.compareExchange(expected: before, desired: after, ordering: .acquiringAndReleasing).exchanged
    }
}

extension Pager {
    /// UFFDIO_MOVE to staging. `isStuck`: it had to be ended, since somebody holds the huge page that
    /// the pages lie in, or since it had no CPU for so long. Worker only.
    func moveToStaging(
        _ region: Region, _ pages: Range<Int>
    ) -> (result: MoveResult, moved: Int, isStuck: Bool) {
        let target = staging.address(of: region, pages.lowerBound)
        let length = UInt64(pages.count * pageSize)
        stuckMove.begin(to: target, length: length, at: kernel.now())
        let result = kernel.move(from: region.address(of: pages.lowerBound), to: target, length: length)
        let filled = stuckMove.finish { kernel.pause() }
        if result.stop == .none { return (result, pages.count, false) }
        guard let filled else { return (result, movedPages(region, pages), false) }
        // It is not the guest's, wherever the page is that was to go there.
        kernel.release(start: filled, length: target + length - filled)
        let before = pages.prefix(Int(filled - target) / pageSize)
        return (result, before.isEmpty ? 0 : movedPages(region, before), true)
    }

    /// Ends the worker's move if it has taken longer than `limit` nanoseconds. The watch only.
    public func endStuckMove(after limit: UInt64) {
        stuckMove.endIfOverdue(at: kernel.now(), limit: limit) { kernel.zero($0) }
    }

    /// Whether a present page is mapped as a part of a huge one. Worker only.
    func isMappedHuge(_ region: Region, _ page: Int) -> Bool {
        var isHuge = false
        let start = region.address(of: page)
        _ = forEachRun(from: start, to: start + UInt64(pageSize), tracked: false) { run in
            isHuge = run.isHuge
            return false
        }
        return isHuge
    }
}
