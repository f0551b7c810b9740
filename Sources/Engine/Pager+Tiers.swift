import Kernel

/// Tiers that come and go. Control thread.
extension Pager {
    public enum RemovalRefusal: Equatable {
        case doesNotExist
        case isGoingAlready
        case isTheLast
    }

    /// Where the next tier would be; nil when there are `TierIndex.tiersMax`, those that are
    /// being removed included.
    public var freeTierIndex: TierIndex? { store.freeIndex }

    /// Adds a tier: memory above all others, anything else below. There must be room.
    public func addTier(_ setup: Store<Port>.Setup) -> TierIndex {
        withWorkerPaused { store.insert(setup) }
    }

    /// No pages come to the tier any more; the worker moves those it has elsewhere, and then
    /// the tier is gone. Nil when that has begun.
    public func removeTier(_ index: TierIndex) -> RemovalRefusal? {
        withWorkerPaused {
            guard let tier = store.tier(index) else { return .doesNotExist }
            if tier.isDraining.load(ordering: .relaxed) { return .isGoingAlready }
            if store.order == [index] { return .isTheLast }
            store.beginDraining(index)
            return nil
        }
    }
}
