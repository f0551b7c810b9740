import Kernel
import Synchronization

/// Pages that the worker wants back in the guest although nobody touches them. It would have to
/// wait to touch them itself, for as long as the worst of them cannot be read; the fault server
/// brings them as it brings others, between faults. A page that it cannot have stays where it is
/// and is forgotten here: who still wants it asks again.
final class Recalls: Sendable {
    struct Recall {
        let region: Region
        /// In hugetlbfs the first of a huge page.
        let page: Int
    }

    /// Of one tier, at most: those of a tier that does not answer leave room for others.
    static let pagesPerTierMax = 256

    /// By tier, in the order in which they came.
    private let recalls = Lock([[Recall]](repeating: [], count: TierIndex.tiersMax + 1))
    private let count = Atomic<Int>(0)
    /// Some were added since the fault server last looked. Any thread.
    let areNew = Atomic<Bool>(false)

    /// None waits for its turn. Any thread.
    var isEmpty: Bool { count.load(ordering: .acquiring) == 0 }

    /// Pages of the tier that wait for their turn. Any thread.
    func count(of tier: TierIndex) -> Int { recalls.withLock { $0[tier.number].count } }

    /// Who asks for no page before asks for none twice. Any thread.
    func isEmpty(of tier: TierIndex) -> Bool { count(of: tier) == 0 }

    /// Another page of the tier can be asked for, unless somebody else asks first. Any thread.
    func hasRoom(of tier: TierIndex) -> Bool { count(of: tier) < Self.pagesPerTierMax }

    /// Asks for a stored page of a tier; false when there is no room. Worker thread only.
    func ask(_ region: Region, _ page: Int, of tier: TierIndex) -> Bool {
        recalls.withLock {
            guard $0[tier.number].count < Self.pagesPerTierMax else { return false }
            $0[tier.number].append(Recall(region: region, page: page))
            count.add(1, ordering: .releasing)
            return true
        }
    }

    /// The next of a tier that `mayAsk` allows. Fault thread only.
    func next(_ mayAsk: (TierIndex) -> Bool) -> Recall? {
        recalls.withLock { recalls in
            for number in recalls.indices where !recalls[number].isEmpty && mayAsk(TierIndex(number)) {
                count.subtract(1, ordering: .relaxed)
                return recalls[number].removeFirst()
            }
            return nil
        }
    }
}
