import Kernel
import Synchronization

/// Memory for compressed pages, packed by size class into slabs. Allocation and
/// freeing are a few instructions under a lock; data are copied outside it. Empty
/// slabs are given back to the host by `trim`, not by whoever freed the last
/// object: that may be the fault server, which makes no system call it can avoid.
public final class CompressedPool: Sendable {
    private let arena: Mapping
    private let state: Lock<State>
    /// Slabs whose memory is held, empty ones included; read without the lock.
    private let heldSlabs = Atomic<Int>(0)
    private let payload = Atomic<Int>(0)

    /// Slabs kept for reuse although empty, so that a pool that breathes does not
    /// go to the kernel with every breath.
    private static let spareSlabs = 4
    private static let none: UInt32 = .max

    /// A slab's bookkeeping, in its own last bytes: it counts as pool memory, comes
    /// with the slab and goes with it.
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
    private struct State: ~Copyable {
        /// Slabs ever used: those above were never touched.
        var slabCount = 0
        /// Per class, the slabs with room.
        var partial = [UInt32](repeating: CompressedPool.none, count: SizeClass.count)
        /// Empty slabs whose memory is still held.
        var firstEmpty = CompressedPool.none
        var emptyCount = 0
        /// Slabs whose memory was given back, their bookkeeping with it.
        var released: ReleasedSlabs
    }

    /// A pool of at most `capacity` bytes of host memory. Reserves address space only.
    public init(capacity: Int) throws(Errno) {
        arena = try Mapping(
            length: roundUp(capacity, to: SizeClass.slabSize), alignment: hugePageSize)
        precondition(MemoryLayout<Slab>.size <= SizeClass.slabTail)
        let slabs = arena.length / SizeClass.slabSize
        state = Lock(State(released: try ReleasedSlabs(capacity: slabs)))
    }

    /// Under the lock; the slab's memory must be held.
    private func slab(_ index: UInt32) -> UnsafeMutablePointer<Slab> {
        let end = (Int(index) + 1) * SizeClass.slabSize
        return unsafe (arena.base + end - SizeClass.slabTail).assumingMemoryBound(to: Slab.self)
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
            let sizeClass = unsafe Int(self.slab(slab).pointee.sizeClass)
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
            state.withLock { state in state.released.insert(slab) }
            heldSlabs.subtract(1, ordering: .relaxed)
        }
    }

    /// Host memory held, in bytes, waste included.
    public var heldBytes: Int { heldSlabs.value * SizeClass.slabSize }
    /// Compressed data held, in bytes.
    public var payloadBytes: Int { payload.value }
    /// Memory of the bookkeeping beside the slabs, in bytes.
    public var metadataBytes: Int { state.withLock { $0.released.residentBytes } }

    private func addSlab(_ sizeClass: Int, _ state: inout State) -> Bool {
        let slab: UInt32
        if let reused = popEmpty(&state) {
            slab = reused
        } else if let released = state.released.takeLowest() {
            slab = released
            heldSlabs.add(1, ordering: .relaxed)
        } else {
            guard (state.slabCount + 1) * SizeClass.slabSize <= arena.length else { return false }
            slab = UInt32(state.slabCount)
            state.slabCount += 1
            heldSlabs.add(1, ordering: .relaxed)
        }
        unsafe self.slab(slab).initialize(to: Slab(sizeClass: UInt8(sizeClass)))
        link(slab, sizeClass, &state)
        return true
    }

    private func popEmpty(_ state: inout State) -> UInt32? {
        guard state.firstEmpty != Self.none else { return nil }
        let slab = state.firstEmpty
        state.firstEmpty = unsafe self.slab(slab).pointee.next
        state.emptyCount -= 1
        return slab
    }

    private func takeObject(_ index: UInt32, _ sizeClass: Int, _ state: inout State) -> UInt16 {
        let slab = unsafe slab(index)
        let object: UInt16
        if unsafe slab.pointee.firstFree != .max {
            object = unsafe slab.pointee.firstFree
            unsafe slab.pointee.firstFree = freeLink(object, index, sizeClass).pointee
        } else {
            object = unsafe slab.pointee.high
            unsafe slab.pointee.high += 1
        }
        unsafe slab.pointee.used += 1
        if unsafe Int(slab.pointee.used) == SizeClass.objectsPerSlab(sizeClass) {
            unlink(index, sizeClass, &state)
        }
        return object
    }

    private func returnObject(
        _ object: UInt16, _ index: UInt32, _ sizeClass: Int, _ state: inout State
    ) {
        let slab = unsafe slab(index)
        unsafe freeLink(object, index, sizeClass).pointee = slab.pointee.firstFree
        unsafe slab.pointee.firstFree = object
        let wasFull = unsafe Int(slab.pointee.used) == SizeClass.objectsPerSlab(sizeClass)
        unsafe slab.pointee.used -= 1
        if unsafe slab.pointee.used == 0 {
            if !wasFull { unlink(index, sizeClass, &state) }
            unsafe slab.pointee.next = state.firstEmpty
            state.firstEmpty = index
            state.emptyCount += 1
        } else if wasFull {
            link(index, sizeClass, &state)
        }
    }

    /// A free object's first bytes hold the number of the next free one.
    private func freeLink(
        _ object: UInt16, _ slab: UInt32, _ sizeClass: Int
    ) -> UnsafeMutablePointer<UInt16> {
        let offset = Int(slab) * SizeClass.slabSize + Int(object) * SizeClass.size(of: sizeClass)
        return unsafe (arena.base + offset).assumingMemoryBound(to: UInt16.self)
    }

    private func link(_ index: UInt32, _ sizeClass: Int, _ state: inout State) {
        let head = state.partial[sizeClass]
        unsafe slab(index).pointee.next = head
        unsafe slab(index).pointee.previous = Self.none
        if head != Self.none { unsafe slab(head).pointee.previous = index }
        state.partial[sizeClass] = index
    }

    private func unlink(_ index: UInt32, _ sizeClass: Int, _ state: inout State) {
        let next = unsafe slab(index).pointee.next
        let previous = unsafe slab(index).pointee.previous
        if next != Self.none { unsafe slab(next).pointee.previous = previous }
        if previous == Self.none {
            state.partial[sizeClass] = next
        } else {
            unsafe slab(previous).pointee.next = next
        }
    }
}
