import Kernel

/// Tiers that come and go. Control thread; waits for nothing, as the worker may be waiting for a
/// device that does not answer.
extension Pager {
    public enum RemovalRefusal: Equatable {
        case doesNotExist
        case isGoingAlready
        case isTheLast
    }

    /// Where the next tier would be; nil when there are `TierIndex.tiersMax`, those that are
    /// being removed included.
    public var freeTierIndex: TierIndex? { store.freeIndex }

    /// Adds a tier: memory above all others, anything else below. `index` is free: only tiers that
    /// are added take one.
    public func addTier(_ setup: Store<Port>.Setup, at index: TierIndex) {
        store.insert(setup, at: index)
    }

    /// No pages come to the tier any more; the worker moves those it has elsewhere, and then
    /// the tier is gone. Nil when that has begun.
    public func removeTier(_ index: TierIndex) -> RemovalRefusal? {
        store.reading {
            guard let tier = store.tier(index) else { return .doesNotExist }
            if tier.isDraining.load(ordering: .relaxed) { return .isGoingAlready }
            if store.order == [index] { return .isTheLast }
            store.beginDraining(index)
            return nil
        }
    }
}
