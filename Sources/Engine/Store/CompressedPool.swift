import Kernel
import Synchronization

/// Memory for compressed pages, packed by size class into slabs. Allocation and
/// freeing are a few instructions under a lock; data are copied outside it. Empty
/// slabs are given back to the host by `trim`, not by whoever freed the last
/// object: that may be the fault server, which makes no system call it can avoid.
public final class CompressedPool: Sendable {
    private let arena: Mapping
    private let slabTable: Mapping
    private let state: Lock<State>
    /// Slabs whose memory is held, empty ones included; read without the lock.
    private let heldSlabs = Atomic<Int>(0)
    private let payload = Atomic<Int>(0)

    /// Slabs kept for reuse although empty, so that a pool that breathes does not
    /// go to the kernel with every breath.
    private static let spareSlabs = 4
    private static let none: UInt32 = .max

    private struct Slab {
        var sizeClass: UInt8 = 0
        var used: UInt16 = 0
        /// Objects handed out at least once; those above were never touched.
        var high: UInt16 = 0
        /// First free object, a list threaded through the objects; `UInt16.max` ends it.
        var firstFree: UInt16 = .max
        var next: UInt32 = CompressedPool.none
        var previous: UInt32 = CompressedPool.none
    }

    /// Lists run through `Slab.next`, so that no operation allocates memory.
    @safe private struct State: ~Copyable {
        let slabs: UnsafeMutablePointer<Slab>
        var slabCount = 0
        /// Per class, the slabs with room.
        var partial = [UInt32](repeating: CompressedPool.none, count: SizeClass.count)
        /// Empty slabs whose memory is still held.
        var firstEmpty = CompressedPool.none
        var emptyCount = 0
        /// Empty slabs whose memory was given back.
        var firstReleased = CompressedPool.none
    }

    /// A pool of at most `capacity` bytes of host memory. Reserves address space only.
    public init(capacity: Int) throws(Errno) {
        arena = try Mapping(
            length: roundUp(capacity, to: SizeClass.slabSize), alignment: hugePageSize)
        let table = roundUp(
            arena.length / SizeClass.slabSize * MemoryLayout<Slab>.stride, to: pageSize)
        slabTable = try Mapping(length: table)
        state = unsafe Lock(State(slabs: slabTable.base.assumingMemoryBound(to: Slab.self)))
    }

    /// Bits of a place that hold the object's length; the rest counts steps in the arena.
    private static let lengthBits: UInt64 = 12

    @inline(__always)
    private static func place(slab: UInt32, object: UInt16, sizeClass: Int, length: Int) -> UInt64 {
        let offset = Int(slab) * SizeClass.slabSize + Int(object) * SizeClass.size(of: sizeClass)
        return UInt64(offset / SizeClass.step) << lengthBits | UInt64(length)
    }

    /// The object's address. Valid between allocate and free.
    @inline(__always)
    public func data(_ place: UInt64) -> UnsafeMutableRawBufferPointer {
        let offset = Int(place >> Self.lengthBits) * SizeClass.step
        let length = Int(place & (1 << Self.lengthBits - 1))
        return unsafe UnsafeMutableRawBufferPointer(start: arena.base + offset, count: length)
    }

    /// A place for `length` bytes, 1 to `SizeClass.largest`; nil when the pool is
    /// at its capacity. Any thread.
    public func allocate(length: Int) -> UInt64? {
        let sizeClass = SizeClass.of(bytes: length)
        return state.withLock { state in
            if state.partial[sizeClass] == Self.none {
                guard addSlab(sizeClass, &state) else { return nil }
            }
            let slab = state.partial[sizeClass]
            let object = takeObject(slab, sizeClass, &state)
            payload.add(length, ordering: .relaxed)
            return Self.place(slab: slab, object: object, sizeClass: sizeClass, length: length)
        }
    }

    /// Any thread.
    public func free(_ place: UInt64) {
        let offset = Int(place >> Self.lengthBits) * SizeClass.step
        let slab = UInt32(offset / SizeClass.slabSize)
        state.withLock { state in
            payload.subtract(Int(place & (1 << Self.lengthBits - 1)), ordering: .relaxed)
            let sizeClass = unsafe Int(state.slabs[Int(slab)].sizeClass)
            let object = UInt16(offset % SizeClass.slabSize / SizeClass.size(of: sizeClass))
            returnObject(object, slab, sizeClass, &state)
        }
    }

    /// Gives the memory of empty slabs back to the host. Worker thread.
    public func trim() {
        while true {
            let slab: UInt32? = state.withLock { state in
                state.emptyCount > Self.spareSlabs ? popEmpty(&state) : nil
            }
            guard let slab else { return }
            // Nobody else knows the slab while it is on no list.
            arena.release(
                offset: Int(slab) * SizeClass.slabSize, length: SizeClass.slabSize)
            state.withLock { state in
                unsafe state.slabs[Int(slab)].next = state.firstReleased
                state.firstReleased = slab
            }
            heldSlabs.subtract(1, ordering: .relaxed)
        }
    }

    /// Host memory held, in bytes, waste included.
    public var heldBytes: Int { heldSlabs.value * SizeClass.slabSize }
    /// Compressed data held, in bytes.
    public var payloadBytes: Int { payload.value }
    /// Memory of the bookkeeping, in bytes.
    public var metadataBytes: Int {
        state.withLock { $0.slabCount } * MemoryLayout<Slab>.stride
    }

    private func addSlab(_ sizeClass: Int, _ state: inout State) -> Bool {
        let slab: UInt32
        if let reused = popEmpty(&state) {
            slab = reused
        } else if state.firstReleased != Self.none {
            slab = state.firstReleased
            state.firstReleased = unsafe state.slabs[Int(slab)].next
            heldSlabs.add(1, ordering: .relaxed)
        } else {
            guard (state.slabCount + 1) * SizeClass.slabSize <= arena.length else { return false }
            slab = UInt32(state.slabCount)
            state.slabCount += 1
            heldSlabs.add(1, ordering: .relaxed)
        }
        unsafe state.slabs[Int(slab)] = Slab(sizeClass: UInt8(sizeClass))
        link(slab, sizeClass, &state)
        return true
    }

    private func popEmpty(_ state: inout State) -> UInt32? {
        guard state.firstEmpty != Self.none else { return nil }
        let slab = state.firstEmpty
        state.firstEmpty = unsafe state.slabs[Int(slab)].next
        state.emptyCount -= 1
        return slab
    }

    private func takeObject(_ slab: UInt32, _ sizeClass: Int, _ state: inout State) -> UInt16 {
        let object: UInt16
        if unsafe state.slabs[Int(slab)].firstFree != .max {
            object = unsafe state.slabs[Int(slab)].firstFree
            unsafe state.slabs[Int(slab)].firstFree = freeLink(object, slab, sizeClass).pointee
        } else {
            object = unsafe state.slabs[Int(slab)].high
            unsafe state.slabs[Int(slab)].high += 1
        }
        unsafe state.slabs[Int(slab)].used += 1
        if unsafe Int(state.slabs[Int(slab)].used) == SizeClass.objectsPerSlab(sizeClass) {
            unlink(slab, sizeClass, &state)
        }
        return object
    }

    private func returnObject(
        _ object: UInt16, _ slab: UInt32, _ sizeClass: Int, _ state: inout State
    ) {
        unsafe freeLink(object, slab, sizeClass).pointee = state.slabs[Int(slab)].firstFree
        unsafe state.slabs[Int(slab)].firstFree = object
        let wasFull = unsafe Int(state.slabs[Int(slab)].used) == SizeClass.objectsPerSlab(sizeClass)
        unsafe state.slabs[Int(slab)].used -= 1
        if unsafe state.slabs[Int(slab)].used == 0 {
            if !wasFull { unlink(slab, sizeClass, &state) }
            unsafe state.slabs[Int(slab)].next = state.firstEmpty
            state.firstEmpty = slab
            state.emptyCount += 1
        } else if wasFull {
            link(slab, sizeClass, &state)
        }
    }

    /// A free object's first bytes hold the number of the next free one.
    private func freeLink(
        _ object: UInt16, _ slab: UInt32, _ sizeClass: Int
    ) -> UnsafeMutablePointer<UInt16> {
        let offset = Int(slab) * SizeClass.slabSize + Int(object) * SizeClass.size(of: sizeClass)
        return unsafe (arena.base + offset).assumingMemoryBound(to: UInt16.self)
    }

    private func link(_ slab: UInt32, _ sizeClass: Int, _ state: inout State) {
        let head = state.partial[sizeClass]
        unsafe state.slabs[Int(slab)].next = head
        unsafe state.slabs[Int(slab)].previous = Self.none
        if head != Self.none { unsafe state.slabs[Int(head)].previous = slab }
        state.partial[sizeClass] = slab
    }

    private func unlink(_ slab: UInt32, _ sizeClass: Int, _ state: inout State) {
        let next = unsafe state.slabs[Int(slab)].next
        let previous = unsafe state.slabs[Int(slab)].previous
        if next != Self.none { unsafe state.slabs[Int(next)].previous = previous }
        if previous == Self.none {
            state.partial[sizeClass] = next
        } else {
            unsafe state.slabs[Int(previous)].next = next
        }
    }
}
