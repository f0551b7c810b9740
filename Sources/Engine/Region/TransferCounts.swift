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

    func end(_ hugePages: ClosedRange<Int>) {
        for index in hugePages {
            let before = unsafe counts[index].subtract(1, ordering: .releasing).oldValue
            precondition(before > 0, "a transfer ended that never began")
        }
    }

    func isNone(_ index: Int) -> Bool {
        unsafe counts[index].load(ordering: .sequentiallyConsistent) == 0
    }
}
