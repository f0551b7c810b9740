import Kernel
import Synchronization

/// How often each huge page's worth of a block is looked at. One in which nothing was
/// touched is visited half as often from then on, as seldom as `RestLimit` allows; a touch, or
/// a page that comes back from the store, and it is visited on every pass again.
///
/// Those that rest take turns, so that each pass looks at a share of them, spread over the whole
/// block: what changes in many places at once is noticed at the next pass.
@safe public final class VisitSchedule: @unchecked Sendable {
    private let mapping: Mapping
    /// Passes to leave out before the next visit.
    private let pauses: UnsafeMutablePointer<Atomic<UInt16>>
    /// The pause that the last visit led to; worker thread only.
    private let lastPauses: UnsafeMutablePointer<UInt16>
    /// The pass of the last visit, modulo 65,536; worker thread only.
    private let visits: UnsafeMutablePointer<UInt16>
    /// Huge pages.
    public let count: Int
    public private(set) var limit: RestLimit
    private var pass: UInt16 = 0
    /// The huge page in which something touched was found last, and the passes that it had
    /// been left out.
    private var found = (index: -1, lateBy: 0)
    private var latePasses = 0

    public init(count: Int) throws(Errno) {
        let part = roundUp(count * MemoryLayout<UInt16>.stride, to: pageSize)
        mapping = try Mapping(length: 3 * part)
        unsafe pauses = mapping.base.assumingMemoryBound(to: Atomic<UInt16>.self)
        unsafe lastPauses = (mapping.base + part).assumingMemoryBound(to: UInt16.self)
        unsafe visits = (mapping.base + 2 * part).assumingMemoryBound(to: UInt16.self)
        self.count = count
        limit = RestLimit(hugePages: count)
    }

    /// Something came into the huge page: visit it on the next pass. Any thread.
    @inline(__always)
    public func wake(_ index: Int) {
        if unsafe pauses[index].load(ordering: .relaxed) != 0 {
            unsafe pauses[index].store(0, ordering: .relaxed)
        }
    }

    /// Worker thread only, like all that follows.
    public func beginPass() {
        pass &+= 1
        found.index = -1
        latePasses = 0
    }

    /// Counts a pass; true when the huge page is to be visited in it.
    public func isDue(_ index: Int) -> Bool {
        let pause = min(unsafe pauses[index].load(ordering: .relaxed), limit.passes)
        if pause == 0 { return true }
        // When a wake comes in between, the visit comes a pass or so late.
        unsafe pauses[index].store(pause - 1, ordering: .relaxed)
        return false
    }

    /// The last pass left the huge page out, or may have.
    public func isResting(_ index: Int) -> Bool { unsafe lastPauses[index] != 0 }

    /// Nothing was touched in the huge page.
    public func wasQuiet(_ index: Int) {
        let pause = min(unsafe lastPauses[index] * 2 + 1, limit.passes)
        // Visits fall to the passes whose number and the index add up to a multiple of their
        // distance, which is a power of two: so neighbours never rest all at the same time.
        unsafe lastPauses[index] = pause
        unsafe pauses[index].store(
            pause - (pass &+ UInt16(truncatingIfNeeded: index)) & pause, ordering: .relaxed)
        unsafe visits[index] = pass
    }

    /// Some pages of the huge page were touched, or there is reason to visit it on each pass.
    /// Once or several times a visit, each time with other pages; those that only came since
    /// the last visit, and were announced by `wake`, do not count.
    public func wasTouched(_ index: Int, pages: Int) {
        if found.index != index {
            found = (index, max(0, Int(pass &- (unsafe visits[index])) - 1))
        }
        latePasses += pages * found.lateBy
        unsafe lastPauses[index] = 0
        unsafe pauses[index].store(0, ordering: .relaxed)
        unsafe visits[index] = pass
    }

    /// All that was due has been visited. True when what rests is to be visited as well.
    public func endPass(residentPages: Int) -> Bool {
        limit.endPass(latePasses: latePasses, residentPages: residentPages)
    }
}
