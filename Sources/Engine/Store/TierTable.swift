import Kernel
import Synchronization

/// The tiers by their index: fixed slots, read by all threads without a lock. A slot owns
/// its tier; it is emptied when no entry names the tier any more, and the tier is let go when
/// the fault server, which asks all tiers for finished reads, cannot hold it any more.
final class TierTable<Port: KernelPort>: Sendable {
    private let slots = InlineArray<8, Atomic<UInt>> { _ in Atomic<UInt>(0) }

    /// The tier at an index. In one order with the fault server's epoch, like `RegionList`.
    @inline(__always)
    subscript(index: TierIndex) -> Tier<Port>? {
        let bits = slots[index.number].load(ordering: .sequentiallyConsistent)
        guard let pointer = unsafe UnsafeRawPointer(bitPattern: bits) else { return nil }
        return unsafe Unmanaged<Tier<Port>>.fromOpaque(pointer).takeUnretainedValue()
    }

    /// A free index; nil when all are taken. Control thread.
    var freeIndex: TierIndex? {
        (1...TierIndex.tiersMax).first { slots[$0].load(ordering: .relaxed) == 0 }.map(TierIndex.init)
    }

    /// Control thread.
    func insert(_ tier: Tier<Port>) {
        let retained = unsafe UInt(bitPattern: Unmanaged.passRetained(tier).toOpaque())
        let before = slots[tier.index.number].exchange(retained, ordering: .sequentiallyConsistent)
        precondition(before == 0, "two tiers of one index")
    }

    /// The caller releases the tier when no reader is left. Worker thread.
    func remove(_ index: TierIndex) -> Unmanaged<Tier<Port>>? {
        let bits = slots[index.number].exchange(0, ordering: .sequentiallyConsistent)
        return unsafe UnsafeRawPointer(bitPattern: bits).map { unsafe .fromOpaque($0) }
    }

    func forEach(_ body: (Tier<Port>) -> Void) {
        for number in 1...TierIndex.tiersMax {
            if let tier = self[TierIndex(number)] { body(tier) }
        }
    }

    deinit {
        for number in 1...TierIndex.tiersMax {
            if let tier = unsafe remove(TierIndex(number)) { unsafe tier.release() }
        }
    }
}
