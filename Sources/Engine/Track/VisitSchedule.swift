import Kernel
import Synchronization

/// How often each huge page's worth of a block is looked at. One in which nothing was
/// touched is visited half as often from then on, up to every 64th pass; a touch, or a
/// page that comes back from the store, and it is visited on every pass again.
@safe final class VisitSchedule: @unchecked Sendable {
    private let mapping: Mapping
    /// Passes to leave out before the next visit.
    private let pauses: UnsafeMutablePointer<Atomic<UInt8>>
    /// The pause after the last visit; worker thread only.
    private let lastPauses: UnsafeMutablePointer<UInt8>
    let count: Int
    private static let pauseMax: UInt8 = 63

    init(count: Int) throws(Errno) {
        let half = roundUp(count, to: pageSize)
        mapping = try Mapping(length: 2 * half)
        unsafe pauses = mapping.base.assumingMemoryBound(to: Atomic<UInt8>.self)
        unsafe lastPauses = (mapping.base + half).assumingMemoryBound(to: UInt8.self)
        self.count = count
    }

    /// Something came into the huge page: visit it on the next pass. Any thread.
    @inline(__always)
    func wake(_ index: Int) {
        if unsafe pauses[index].load(ordering: .relaxed) != 0 {
            unsafe pauses[index].store(0, ordering: .relaxed)
        }
    }

    /// Counts a pass; true when the huge page is to be visited in it. Worker thread only.
    func isDue(_ index: Int) -> Bool {
        let pause = unsafe pauses[index].load(ordering: .relaxed)
        if pause == 0 { return true }
        // When a wake comes in between, the visit comes a pass or so late.
        unsafe pauses[index].store(pause - 1, ordering: .relaxed)
        return false
    }

    /// The last pass left the huge page out, or may have. Worker thread only.
    func isResting(_ index: Int) -> Bool { unsafe lastPauses[index] != 0 }

    /// The huge page was visited. Worker thread only.
    func visited(_ index: Int, wasQuiet: Bool) {
        let pause = wasQuiet ? min(unsafe lastPauses[index] * 2 + 1, Self.pauseMax) : 0
        unsafe lastPauses[index] = pause
        unsafe pauses[index].store(pause, ordering: .relaxed)
    }
}
