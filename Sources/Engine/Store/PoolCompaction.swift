import Kernel

/// Moves a pool's objects closer together, so that slabs get empty and their memory can be
/// given back: per class, all objects out of the emptiest slabs into holes of the others,
/// and in the one that stays partly full, down to its beginning. Worker thread only.
///
/// It does not know whose an object is. Who does asks for each place whether its object is to
/// move (`concerns`), has it copied, and afterwards frees one of the two places: the old one,
/// or, when the owner has changed its mind meanwhile, the new one.
public final class PoolCompaction: @unchecked Sendable {
    private let pool: CompressedPool
    /// Slabs with objects that are to move, and perhaps some that have none any more.
    private var slabs: SlabSet
    public private(set) var isUnderWay = false

    /// Slabs of a class to be emptied in one go: bounds how long the pool's lock is held.
    private static let slabsMax = 64

    init(of pool: CompressedPool) throws(Errno) {
        self.pool = pool
        slabs = try SlabSet(capacity: pool.slabsMax)
    }

    /// Bytes of host memory that would be free if the objects lay as close together as can be.
    /// Soon after the pool's `trim`.
    public var gain: Int {
        pool.state.withLock { state in
            var least = 0
            for index in 0..<pool.classes.count {
                let sizeClass = pool.classes[index]
                let (full, rest) = state.objects[index].quotientAndRemainder(dividingBy: sizeClass.count)
                least += full * sizeClass.pages(holding: sizeClass.count)
                if rest > 0 { least += sizeClass.pages(holding: rest) }
            }
            return max(0, pool.heldBytes - pool.emptyBytes(state) - least * pageSize)
        }
    }

    /// Chooses what is to move, if that is worth `gainMin` bytes. True when there is anything.
    public func begin(gainMin: Int) -> Bool {
        precondition(!isUnderWay)
        pool.trim()
        guard pool.heldBytes > gainMin, gain >= gainMin else { return false }
        for index in 0..<pool.classes.count {
            pool.state.withLock { state in choose(index, &state) }
        }
        isUnderWay = slabs.count > 0
        return isUnderWay
    }

    private func choose(_ index: Int, _ state: inout CompressedPool.State) {
        let sizeClass = pool.classes[index]
        let objects = state.objects[index]
        let slabsNeeded = (objects + sizeClass.count - 1) / sizeClass.count
        var surplus = min(Self.slabsMax, state.slabs[index] - slabsNeeded)
        for list in 0..<CompressedPool.fullnessLists {
            let head = index * CompressedPool.listsPerClass + list
            while surplus > 0, state.lists[head] != Slab.none {
                let number = state.lists[head]
                let slab = pool.slab(number)
                pool.unlink(number, slab, &state)
                pool.link(number, slab, list: CompressedPool.emptyingList, &state)
                move(number, slab, from: 0)
                surplus -= 1
            }
            guard surplus == 0, state.lists[head] != Slab.none else { continue }
            // The emptiest of those that stay.
            let number = state.lists[head]
            let slab = pool.slab(number)
            let rest = objects % sizeClass.count
            if rest > 0, sizeClass.pages(holding: rest) < slab.heldPages.nonzeroBitCount {
                move(number, slab, from: rest)
            }
            return
        }
    }

    private func move(_ number: UInt32, _ slab: Slab, from object: Int) {
        slab.movingFrom = object
        slabs.insert(number)
    }

    /// Whether the object at `place` may have to move.
    @inline(__always)
    public func concerns(_ place: UInt64) -> Bool { slabs.contains(CompressedPool.slab(of: place)) }

    /// A better place for the object at `place`, which concerns the compaction, with a copy of it;
    /// nil when there is none. The object must not have been freed before the call.
    public func copy(_ place: UInt64) -> UInt64? {
        let number = CompressedPool.slab(of: place)
        let object = CompressedPool.object(of: place)
        let length = CompressedPool.length(of: place)
        let better: UInt64? = pool.state.withLock { state in
            let slab = pool.slab(number)
            guard object >= slab.movingFrom, slab.isTaken(object) else { return nil }
            guard let better = pool.takeFromPartial(slab.sizeClass, length, &state) else { return nil }
            if CompressedPool.slab(of: better) == number, CompressedPool.object(of: better) > object {
                pool.free(better, &state)
                return nil
            }
            return better
        }
        if let better { pool.copy(from: place, to: better) }
        return better
    }

    /// Lets what has not moved stay where it is, and gives what is free now back to the host.
    public func end() {
        while let number = slabs.takeLowest() {
            let isPartlyFree = pool.state.withLock { state in
                // Its bookkeeping went with its memory.
                guard !state.released.contains(number) else { return false }
                let slab = pool.slab(number)
                guard slab.used > 0, slab.movingFrom != Slab.nothingMoves else { return false }
                pool.letStay(number, slab, &state)
                return true
            }
            if isPartlyFree { pool.trimPages(ofSlab: number) }
        }
        pool.trim()
        isUnderWay = false
    }

    /// Memory of the bookkeeping, in bytes.
    var metadataBytes: Int { slabs.residentBytes }
}
