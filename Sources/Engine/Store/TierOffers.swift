import Kernel

/// Offers a batch of pages to one tier after the other, each what the ones before it
/// refused. Its memory is reused from batch to batch. Worker thread only.
final class TierOffers {
    private var pages: [PagePut] = []
    /// Where each page is in the batch.
    private var positions: [Int] = []
    private var answers: [PutOutcome] = []

    var isEmpty: Bool { pages.isEmpty }

    func begin(_ batch: UnsafeBufferPointer<PagePut>) {
        pages.removeAll(keepingCapacity: true)
        positions.removeAll(keepingCapacity: true)
        unsafe pages.append(contentsOf: batch)
        positions.append(contentsOf: 0..<batch.count)
        while answers.count < batch.count { answers.append(.refused(.full)) }
    }

    /// Lets `put` offer what is left to a tier, and notes what became of it.
    func make(
        to tier: TierIndex, _ outcomes: UnsafeMutableBufferPointer<StoreOutcome>,
        put: (UnsafeBufferPointer<PagePut>, UnsafeMutableBufferPointer<PutOutcome>) -> Void
    ) {
        unsafe pages.withUnsafeBufferPointer { pages in
            unsafe answers.withUnsafeMutableBufferPointer { answers in
                unsafe put(pages, UnsafeMutableBufferPointer(rebasing: answers[..<pages.count]))
            }
        }
        var left = 0
        for index in pages.indices {
            switch answers[index] {
            case .stored(let place):
                unsafe outcomes[positions[index]] = .stored(Locator(tier: tier, place: place))
            case .refused(let refusal):
                unsafe outcomes[positions[index]] = .refused(refusal)
                pages[left] = pages[index]
                positions[left] = positions[index]
                left += 1
            }
        }
        pages.removeSubrange(left...)
        positions.removeSubrange(left...)
    }
}
