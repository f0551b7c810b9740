import Kernel

/// What looking at a block's memory depends on.
extension Pager {
    /// The block's touches are found by unmapping: what is mapped at the next look was
    /// touched, reads included. Shared memory only, whose pages stay in their file; not
    /// hugetlbfs.
    func isZapped(_ region: Region) -> Bool {
        zapsShared && region.guard.isShared && !region.guard.leavesWhole
    }

    /// Makes the next touch of present pages known.
    func arm(_ region: Region, start: UInt64, length: UInt64) -> Errno? {
        isZapped(region)
            ? kernel.zap(start: start, length: length) : kernel.arm(start: start, length: length)
    }

    /// Pages that are not mapped. Those of shared memory may be in RAM all the same:
    /// untouched, not gone.
    func noteUnmapped(_ region: Region, _ pages: Range<Int>, stamp: UInt8) {
        region.swapped.remove(pages)
        region.merged.remove(pages)
        // Of hugetlbfs mincore tells no more than the page table does.
        guard region.guard.isShared, !region.guard.leavesWhole else { return region.ages.forget(pages) }
        for first in stride(from: pages.lowerBound, to: pages.upperBound, by: Self.pagesPerLook) {
            noteCached(region, first..<min(first + Self.pagesPerLook, pages.upperBound), stamp: stamp)
        }
    }

    /// Whether pages that the kernel calls swapped are followed: their arming and their ages
    /// outlive the swap. In a mapping of shared memory, what looks like swap is nothing but
    /// a mark in the page table, and so is poison anywhere.
    func followsSwapped(_ region: Region, _ pages: Range<Int>) -> Bool {
        guard !region.guard.isShared else { return false }
        return counters.poisonedPages.value == 0
            || !pages.contains { region.table[$0].state == .poisoned }
    }

    private static var pagesPerLook: Int { hugePageSize / pageSize }

    private func noteCached(_ region: Region, _ pages: Range<Int>, stamp: UInt8) {
        unsafe withUnsafeTemporaryAllocation(of: UInt8.self, capacity: pages.count) { inCore in
            let errno = unsafe kernel.inCore(
                start: region.viewAddress(of: pages.lowerBound),
                length: UInt64(pages.count * pageSize), into: inCore)
            // Not known to be in RAM: then nothing is evicted from there.
            if errno != nil { return region.ages.forget(pages) }
            var first = pages.lowerBound
            while first < pages.upperBound {
                let isCached = unsafe inCore[first - pages.lowerBound] != 0
                var end = first + 1
                while end < pages.upperBound, unsafe (inCore[end - pages.lowerBound] != 0) == isCached {
                    end += 1
                }
                if isCached {
                    region.ages.stampUnknown(first..<end, stamp)
                } else {
                    region.ages.forget(first..<end)
                }
                first = end
            }
        }
    }
}
