import Kernel
import Synchronization

/// Transfers under way into and out of each huge page's worth of a block, which none of
/// its pages may leave meanwhile. Any thread.
@safe final class TransferCounts: @unchecked Sendable {
    private let mapping: Mapping
    private let counts: UnsafeMutablePointer<Atomic<UInt32>>

    init(count: Int) throws(Errno) {
        mapping = try Mapping(length: roundUp(count * MemoryLayout<Atomic<UInt32>>.stride, to: pageSize))
        unsafe counts = mapping.base.assumingMemoryBound(to: Atomic<UInt32>.self)
    }

    /// Sequentially consistent, against the worker's look in `isNone`: either it sees the
    /// transfer, or the transfer's begin sees that pages are leaving.
    func begin(_ hugePages: ClosedRange<Int>) {
        for index in hugePages { unsafe counts[index].add(1, ordering: .sequentiallyConsistent) }
    }

    /// False when more ended than had begun somewhere: a device whose unmap is not what its
    /// map was. The count stays at none there, which is what eviction needs.
    func end(_ hugePages: ClosedRange<Int>) -> Bool {
        var matched = true
        for index in hugePages where !endOne(index) { matched = false }
        return matched
    }

    private func endOne(_ index: Int) -> Bool {
        var count = unsafe counts[index].load(ordering: .relaxed)
        while count > 0 {
            let answer = unsafe counts[index].weakCompareExchange(
                expected: count, desired: count - 1, successOrdering: .releasing,
                failureOrdering: .relaxed)
            if answer.exchanged { return true }
            count = answer.original
        }
        return false
    }

    func isNone(_ index: Int) -> Bool {
        unsafe counts[index].load(ordering: .sequentiallyConsistent) == 0
    }
}
