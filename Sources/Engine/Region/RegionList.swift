import Kernel
import Synchronization

/// The attached blocks: a fixed number of slots, read by all threads without a
/// lock. A slot owns its region; the control thread fills and empties it, and
/// frees a region only when no reader can hold it any more (see `Pager.detach`).
public final class RegionList: Sendable {
    /// More RAMBlocks than any machine type has backends for.
    public static let capacity = 64

    private let slots: [Slot]

    private final class Slot: Sendable {
        let region = Atomic<UInt>(0)
    }

    public init() {
        slots = (0..<Self.capacity).map { _ in Slot() }
    }

    /// The block at a slot; nil when empty. In one order with the fault server's epoch
    /// (see `Pager.detach`): acquire alone would let it read a slot emptied before.
    @inline(__always)
    public subscript(slot: Int) -> Region? {
        let bits = slots[slot].region.load(ordering: .sequentiallyConsistent)
        guard let pointer = unsafe UnsafeRawPointer(bitPattern: bits) else { return nil }
        return unsafe Unmanaged<Region>.fromOpaque(pointer).takeUnretainedValue()
    }

    /// The block that an address lies in.
    @inline(__always)
    public func find(_ address: UInt64) -> Region? {
        for slot in 0..<Self.capacity {
            if let region = self[slot], region.contains(address) { return region }
        }
        return nil
    }

    /// Control thread. False when all slots are taken.
    public func insert(_ region: Region) -> Bool {
        for slot in slots where slot.region.load(ordering: .acquiring) == 0 {
            unsafe slot.region.store(
                UInt(bitPattern: Unmanaged.passRetained(region).toOpaque()), ordering: .releasing)
            return true
        }
        return false
    }

    /// Control thread. The caller releases the region when no reader is left.
    public func remove(_ region: Region) -> Unmanaged<Region>? {
        let retained = unsafe Unmanaged.passUnretained(region)
        let wanted = unsafe UInt(bitPattern: retained.toOpaque())
        for slot in slots where slot.region.load(ordering: .acquiring) == wanted {
            slot.region.store(0, ordering: .sequentiallyConsistent)
            return unsafe retained
        }
        return nil
    }

    public func forEach(_ body: (Region) -> Void) {
        for slot in 0..<Self.capacity {
            if let region = self[slot] { body(region) }
        }
    }

    public var isEmpty: Bool {
        for slot in 0..<Self.capacity where self[slot] != nil { return false }
        return true
    }
}
