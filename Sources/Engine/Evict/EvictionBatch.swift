import Kernel

/// The pages of one huge page on their way out. Reused, so eviction allocates
/// nothing once it is running. Worker thread only.
final class EvictionBatch {
    private static let pagesMax = hugePageSize / pageSize

    /// Pages whose entry says that they are leaving, ascending.
    var claimed: [Int] = []
    /// By position in the huge page: whether it was found in use while memory was frozen.
    var isUnfrozen = [Bool](repeating: false, count: pagesMax)
    /// Those that were taken from the guest, ascending.
    var taken: [Int] = []
    /// Where the store has each of them; nil when it does not.
    var locators: [Locator?] = []
    /// Whether that is a copy which it kept.
    var areCopies: [Bool] = []
    /// Indices in `taken` of those for the tier, how they are put, and what became of them.
    var toStore: [Int] = []
    var puts: [PagePut] = []
    var outcomes: [StoreOutcome]
    /// How many pages were asked for, and whether they were mapped as a huge page.
    var candidates = 0
    var isHuge = false

    init() {
        claimed.reserveCapacity(Self.pagesMax)
        taken.reserveCapacity(Self.pagesMax)
        locators.reserveCapacity(Self.pagesMax)
        areCopies.reserveCapacity(Self.pagesMax)
        toStore.reserveCapacity(Self.pagesMax)
        puts.reserveCapacity(Self.pagesMax)
        outcomes = Array(repeating: .refused(.full), count: Self.pagesMax)
    }

    func removeAll() {
        claimed.removeAll(keepingCapacity: true)
        taken.removeAll(keepingCapacity: true)
        locators.removeAll(keepingCapacity: true)
        areCopies.removeAll(keepingCapacity: true)
        toStore.removeAll(keepingCapacity: true)
        puts.removeAll(keepingCapacity: true)
    }

    func forgetUnfrozen() {
        for position in isUnfrozen.indices { isUnfrozen[position] = false }
    }

    /// Claimed pages from `index` on that follow each other without a gap.
    func run(from index: Int) -> Range<Int> {
        var end = index + 1
        while end < claimed.count, claimed[end] == claimed[end - 1] + 1 { end += 1 }
        return claimed[index]..<claimed[index] + (end - index)
    }

    func expectAll<Port: KernelPort>(in pager: Pager<Port>) {
        unsafe puts.withUnsafeBufferPointer { unsafe pager.store.expect($0, at: pager.kernel.now()) }
    }

    /// `outcomes` follow from `endPut`.
    func beginPut<Port: KernelPort>(into pager: Pager<Port>) {
        pager.lettingControlIn {
            unsafe puts.withUnsafeBufferPointer { pages in
                unsafe outcomes.withUnsafeMutableBufferPointer { outcomes in
                    unsafe pager.store.beginPut(pages, outcomes: outcomes, at: pager.kernel.now())
                }
            }
        }
    }

    func endPut<Port: KernelPort>(into pager: Pager<Port>) {
        pager.lettingControlIn {
            unsafe outcomes.withUnsafeMutableBufferPointer { unsafe pager.store.endPut(outcomes: $0) }
        }
    }
}
