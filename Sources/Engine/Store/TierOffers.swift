import Kernel

/// Offers a batch of pages to one tier after the other, each what the ones before it
/// refused. Its memory is reused from batch to batch. Worker thread only.
final class TierOffers {
    /// What a tier made of the pages that it was offered.
    struct Answers {
        var taken = 0
        var failed = 0
        /// The last error, and the page it befell.
        var failure: (errno: Errno, page: Int)?
        var isFull = false
        /// A page that it had no room for.
        var fullPage = 0
    }

    private var pages: [PagePut] = []
    /// Where each page is in the batch.
    private var positions: [Int] = []
    private var answers: [PutOutcome] = []

    var isEmpty: Bool { pages.isEmpty }

    func begin(
        _ batch: UnsafeBufferPointer<PagePut>, _ outcomes: UnsafeMutableBufferPointer<StoreOutcome>
    ) {
        pages.removeAll(keepingCapacity: true)
        positions.removeAll(keepingCapacity: true)
        unsafe pages.append(contentsOf: batch)
        positions.append(contentsOf: 0..<batch.count)
        while answers.count < batch.count { answers.append(.refused(.full)) }
        for index in batch.indices { unsafe outcomes[index] = .refused(.notNow) }
    }

    /// Lets `put` offer what is left to a tier; `note` follows.
    func make(put: (UnsafeBufferPointer<PagePut>, UnsafeMutableBufferPointer<PutOutcome>) -> Void) {
        unsafe pages.withUnsafeBufferPointer { pages in
            unsafe answers.withUnsafeMutableBufferPointer { answers in
                unsafe put(pages, UnsafeMutableBufferPointer(rebasing: answers[..<pages.count]))
            }
        }
    }

    /// Notes what became of what was offered.
    func note(_ tier: TierIndex, _ outcomes: UnsafeMutableBufferPointer<StoreOutcome>) -> Answers {
        var result = Answers()
        var left = 0
        for index in pages.indices {
            switch answers[index] {
            case .stored(let place):
                result.taken += 1
                unsafe outcomes[positions[index]] = .stored(Locator(tier: tier, place: place))
            case .refused(let refusal):
                note(refusal, Int(pages[index].identity.page), &result)
                unsafe outcomes[positions[index]] = .refused(refusal)
                pages[left] = pages[index]
                positions[left] = positions[index]
                left += 1
            }
        }
        pages.removeSubrange(left...)
        positions.removeSubrange(left...)
        return result
    }

    private func note(_ refusal: Refusal, _ page: Int, _ result: inout Answers) {
        switch refusal {
        case .full:
            result.isFull = true
            result.fullPage = page
        case .failed(let errno):
            result.failed += 1
            result.failure = (errno, page)
        case .incompressible, .notNow: break
        }
    }

    /// What is left must wait for a tier's turn.
    func leftWaiting(_ outcomes: UnsafeMutableBufferPointer<StoreOutcome>) {
        for position in positions { unsafe outcomes[position] = .refused(.notNow) }
    }

    /// A tier was left out: what the others called incompressible, it may take later.
    func leftOut(_ outcomes: UnsafeMutableBufferPointer<StoreOutcome>) {
        for position in positions where unsafe outcomes[position] == .refused(.incompressible) {
            unsafe outcomes[position] = .refused(.notNow)
        }
    }
}
