import Kernel
import Synchronization

/// Memory for compressed pages, packed by size class into slabs. Taking and freeing are a
/// few instructions under a lock; data are copied outside it. What is empty is given back to
/// the host by `trim`, not by whoever freed the last object: that may be the fault server,
/// which makes no system call it can avoid. `PoolCompaction` is what makes slabs empty.
///
/// Only the worker takes memory and gives it back to the host, so what it finds free, or
/// empty, stays so until it does something about it. Any thread frees objects.
public final class CompressedPool: Sendable {
    public let classes: SizeClasses
    /// Each object has a seal.
    let isSealed: Bool
    let arena: Mapping
    let state: Lock<State>
    private let held = Atomic<Int>(0)
    private let payload = Atomic<Int>(0)
    private let rawPages = Atomic<Int>(0)
    /// In pages: what may be held, bookkeeping beside the slabs included.
    private let pagesMax: Int

    /// Address space: more than any host has memory.
    private static let arenaLength = 1 << 40
    let slabsMax = arenaLength / SizeClass.slabSize
    /// Empty slabs kept for reuse, so that a pool that breathes does not go to the kernel
    /// with every breath.
    private static let spareSlabs = 2

    /// Slabs that are partly full are in the list of their class and fullness, so that the
    /// fullest are filled up and the emptiest get empty.
    static let fullnessLists = 4
    /// Slabs whose objects are to move out; none is taken there but in need.
    static let emptyingList = fullnessLists
    static let listsPerClass = fullnessLists + 1
    /// Full slabs and empty ones are in no list of their class.
    static let noList = listsPerClass

    /// Lists run through `Slab.next`, so that no operation allocates memory.
    struct State: ~Copyable {
        /// Slabs ever used: those above were never touched.
        var slabCount = 0
        /// Per class and list, its first slab.
        var lists: [UInt32]
        /// Per class: its slabs, and their objects.
        var slabs: [Int]
        var objects: [Int]
        /// Empty slabs whose memory is still held.
        var firstEmpty = Slab.none
        var emptyCount = 0
        /// Slabs whose memory was given back, their bookkeeping with it.
        var released: SlabSet
    }

    /// A pool of at most `bytesMax` bytes of host memory, a multiple of the page size, all its
    /// bookkeeping included. Reserves address space only. `sealed`: with room for a seal of each
    /// object, apart from it.
    public init(bytesMax: Int = .max, sealed: Bool = false) throws(Errno) {
        classes = SizeClasses(sealed: sealed)
        isSealed = sealed
        arena = try Mapping(length: Self.arenaLength, alignment: hugePageSize)
        arena.forbidHugePages()
        pagesMax = bytesMax / pageSize
        let slabs = slabsMax
        precondition(
            UInt64(slabs) << UInt64(Self.slabShift) <= 1 << UInt64(Locator.placeBits),
            "a page-table entry has no room for a place")
        state = Lock(
            State(
                lists: [UInt32](repeating: Slab.none, count: classes.count * Self.listsPerClass),
                slabs: [Int](repeating: 0, count: classes.count),
                objects: [Int](repeating: 0, count: classes.count),
                released: try SlabSet(capacity: slabs)))
    }

    // MARK: Places

    /// A place is slab, object and length; the length tells the class.
    private static let lengthBits = 12
    private static let objectBits = 11
    private static let slabShift = lengthBits + objectBits

    @inline(__always)
    private static func place(_ slab: UInt32, _ object: Int, _ length: Int) -> UInt64 {
        // A whole page's length wraps to 0, which no object has.
        UInt64(slab) << UInt64(slabShift) | UInt64(object) << UInt64(lengthBits)
            | UInt64(length & (1 << lengthBits - 1))
    }

    @inline(__always)
    static func slab(of place: UInt64) -> UInt32 { UInt32(place >> UInt64(slabShift)) }

    @inline(__always)
    static func object(of place: UInt64) -> Int {
        Int(place >> UInt64(lengthBits)) & (1 << objectBits - 1)
    }

    @inline(__always)
    static func length(of place: UInt64) -> Int {
        let length = Int(place) & (1 << lengthBits - 1)
        return length == 0 ? pageSize : length
    }

    /// The object's bytes. Valid between take and free.
    @inline(__always)
    public func data(_ place: UInt64) -> UnsafeMutableRawBufferPointer {
        let length = Self.length(of: place)
        let sizeClass = classes[classes.index(for: length)]
        let offset =
            Int(Self.slab(of: place)) * SizeClass.slabSize + sizeClass.offset(of: Self.object(of: place))
        return unsafe UnsafeMutableRawBufferPointer(start: arena.base + offset, count: length)
    }

    /// What the object is opened with, in a sealed pool. Valid between take and free.
    @inline(__always)
    public func seal(_ place: UInt64) -> UnsafeMutableRawBufferPointer {
        precondition(isSealed)
        let sizeClass = classes[classes.index(for: Self.length(of: place))]
        let offset =
            Int(Self.slab(of: place)) * SizeClass.slabSize
            + sizeClass.sealOffset(of: Self.object(of: place))
        return unsafe UnsafeMutableRawBufferPointer(start: arena.base + offset, count: Slab.sealSize)
    }

    /// Copies an object to another place.
    func copy(from old: UInt64, to new: UInt64) {
        unsafe data(new).copyMemory(from: UnsafeRawBufferPointer(data(old)))
        if isSealed { unsafe seal(new).copyMemory(from: UnsafeRawBufferPointer(seal(old))) }
    }

    /// Under the lock; the slab's memory must be held.
    func slab(_ index: UInt32) -> Slab {
        unsafe Slab(at: arena.base + Int(index) * SizeClass.slabSize)
    }

    // MARK: Taking and freeing

    /// A place for `length` bytes, 1 to a page; nil when the pool is full. Worker thread only.
    public func take(length: Int) -> UInt64? {
        let place = state.withLock { take(length, &$0) }
        if place != nil || state.withLock({ $0.emptyCount }) == 0 { return place }
        // Empty slabs may hold more memory than one of another class needs.
        trim(keeping: 0)
        return state.withLock { take(length, &$0) }
    }

    private func take(_ length: Int, _ state: inout State) -> UInt64? {
        let index = classes.index(for: length)
        if let place = takeFromPartial(index, length, &state) { return place }
        if let added = addSlab(index, &state) {
            if let place = takeObject(added, index, length, &state) { return place }
            setEmpty(added, slab(added), &state)
        }
        let emptying = state.lists[index * Self.listsPerClass + Self.emptyingList]
        guard emptying != Slab.none else { return nil }
        letStay(emptying, slab(emptying), &state)
        return takeObject(emptying, index, length, &state)
    }

    /// From a slab that is partly full, the fullest first.
    func takeFromPartial(_ index: Int, _ length: Int, _ state: inout State) -> UInt64? {
        for list in (0..<Self.fullnessLists).reversed() {
            let first = state.lists[index * Self.listsPerClass + list]
            guard first != Slab.none else { continue }
            if let place = takeObject(first, index, length, &state) { return place }
        }
        return nil
    }

    /// Nil when that would hold more than may be held.
    private func takeObject(
        _ number: UInt32, _ index: Int, _ length: Int, _ state: inout State
    ) -> UInt64? {
        let slab = slab(number)
        let object = slab.lowestFree
        guard hold(slab, classes[index].pages(of: object, length: length), &state) else { return nil }
        slab.take(object)
        state.objects[index] += 1
        payload.add(length, ordering: .relaxed)
        if length == pageSize { rawPages.add(1, ordering: .relaxed) }
        relist(number, slab, &state)
        return Self.place(number, object, length)
    }

    /// Counts pages of a slab that are needed now. False when they are too many.
    private func hold(_ slab: Slab, _ pages: UInt32, _ state: inout State) -> Bool {
        let new = (pages & ~slab.heldPages).nonzeroBitCount
        guard held.value + new + bookkeepingPages(slabs: state.slabCount) <= pagesMax else { return false }
        slab.heldPages |= pages
        held.add(new, ordering: .relaxed)
        return true
    }

    /// Of two sets of slabs: the one here and that of `PoolCompaction`.
    private func bookkeepingPages(slabs: Int) -> Int {
        2 * ((slabs + SlabSet.slabsPerPage - 1) / SlabSet.slabsPerPage)
    }

    /// Any thread.
    public func free(_ place: UInt64) { state.withLock { free(place, &$0) } }

    func free(_ place: UInt64, _ state: inout State) {
        let number = Self.slab(of: place)
        let length = Self.length(of: place)
        payload.subtract(length, ordering: .relaxed)
        if length == pageSize { rawPages.subtract(1, ordering: .relaxed) }
        let slab = slab(number)
        slab.free(Self.object(of: place))
        state.objects[slab.sizeClass] -= 1
        if slab.used == 0 {
            setEmpty(number, slab, &state)
        } else if slab.list != Self.emptyingList {
            relist(number, slab, &state)
        }
    }

    // MARK: Slabs

    /// A slab for a class, in no list; nil when that would hold more than may be held.
    private func addSlab(_ index: Int, _ state: inout State) -> UInt32? {
        let number: UInt32
        var heldPages: UInt32 = 0
        if let reused = popEmpty(&state) {
            number = reused
            heldPages = slab(reused).heldPages
        } else {
            // The bookkeeping's own page.
            let slabs = state.slabCount + (state.released.count == 0 ? 1 : 0)
            guard slabs * SizeClass.slabSize <= arena.length,
                held.value + 1 + bookkeepingPages(slabs: slabs) <= pagesMax
            else { return nil }
            number = state.released.takeLowest() ?? UInt32(state.slabCount)
            state.slabCount = max(state.slabCount, Int(number) + 1)
            heldPages = 1
            held.add(1, ordering: .relaxed)
        }
        let added = slab(number)
        added.begin(index, objects: classes[index].count, heldPages: heldPages)
        state.slabs[index] += 1
        link(number, added, list: 0, &state)
        return number
    }

    private func popEmpty(_ state: inout State) -> UInt32? {
        guard state.firstEmpty != Slab.none else { return nil }
        let number = state.firstEmpty
        state.firstEmpty = slab(number).next
        state.emptyCount -= 1
        return number
    }

    private func setEmpty(_ number: UInt32, _ slab: Slab, _ state: inout State) {
        unlink(number, slab, &state)
        state.slabs[slab.sizeClass] -= 1
        slab.next = state.firstEmpty
        state.firstEmpty = number
        state.emptyCount += 1
    }

    /// None of the slab's objects is to move any more.
    func letStay(_ number: UInt32, _ slab: Slab, _ state: inout State) {
        slab.movingFrom = Slab.nothingMoves
        relist(number, slab, &state)
    }

    /// Puts a slab that is not empty into the list that its fullness asks for.
    private func relist(_ number: UInt32, _ slab: Slab, _ state: inout State) {
        let count = classes[slab.sizeClass].count
        let list = slab.used == count ? Self.noList : slab.used * Self.fullnessLists / count
        guard list != slab.list else { return }
        unlink(number, slab, &state)
        link(number, slab, list: list, &state)
    }

    func link(_ number: UInt32, _ slab: Slab, list: Int, _ state: inout State) {
        slab.list = list
        guard list != Self.noList else { return }
        let head = slab.sizeClass * Self.listsPerClass + list
        slab.next = state.lists[head]
        slab.previous = Slab.none
        if slab.next != Slab.none { self.slab(slab.next).previous = number }
        state.lists[head] = number
    }

    func unlink(_ number: UInt32, _ slab: Slab, _ state: inout State) {
        guard slab.list != Self.noList else { return }
        if slab.next != Slab.none { self.slab(slab.next).previous = slab.previous }
        if slab.previous == Slab.none {
            state.lists[slab.sizeClass * Self.listsPerClass + slab.list] = slab.next
        } else {
            self.slab(slab.previous).next = slab.next
        }
        slab.list = Self.noList
    }

    // MARK: Giving back

    /// Gives the memory of empty slabs back to the host. Worker thread only.
    public func trim() { trim(keeping: Self.spareSlabs) }

    private func trim(keeping spare: Int) {
        while true {
            let found: (number: UInt32, pages: Int)? = state.withLock { state in
                guard state.emptyCount > spare, let number = popEmpty(&state) else { return nil }
                return (number, slab(number).heldPages.nonzeroBitCount)
            }
            guard let (number, pages) = found else { return }
            // Nobody else knows the slab while it is in no list.
            arena.release(offset: Int(number) * SizeClass.slabSize, length: SizeClass.slabSize)
            state.withLock { state in state.released.insert(number) }
            held.subtract(pages, ordering: .relaxed)
        }
    }

    /// Gives pages of a slab back that hold nothing. Worker thread only: it alone could take
    /// an object there meanwhile.
    func trimPages(ofSlab number: UInt32) {
        let blank: UInt32 = state.withLock { state in
            let slab = slab(number)
            let sizeClass = classes[slab.sizeClass]
            var used: UInt32 = 1
            for object in 0..<sizeClass.count where slab.isTaken(object) {
                used |= sizeClass.pages(of: object, length: sizeClass.size)
            }
            return slab.heldPages & ~used
        }
        var rest = blank
        while rest != 0 {
            let first = rest.trailingZeroBitCount
            let count = (~(rest >> UInt32(first))).trailingZeroBitCount
            arena.release(
                offset: Int(number) * SizeClass.slabSize + first * pageSize, length: count * pageSize)
            rest &= ~SizeClass.pages(first * pageSize..<(first + count) * pageSize)
        }
        state.withLock { _ in
            let slab = slab(number)
            slab.heldPages &= ~blank
        }
        held.subtract(blank.nonzeroBitCount, ordering: .relaxed)
    }

    /// Held by empty slabs, in bytes. Soon after `trim`, or they are many.
    func emptyBytes(_ state: borrowing State) -> Int {
        var pages = 0
        var number = state.firstEmpty
        while number != Slab.none {
            pages += slab(number).heldPages.nonzeroBitCount
            number = slab(number).next
        }
        return pages * pageSize
    }

    // MARK: Figures

    /// Host memory held, in bytes, waste included.
    public var heldBytes: Int { held.value * pageSize }
    /// Compressed data held, in bytes.
    public var payloadBytes: Int { payload.value }
    /// Objects that are pages as they were.
    public var rawPageCount: Int { rawPages.value }
    /// Memory of the bookkeeping beside the slabs, in bytes.
    public var metadataBytes: Int { state.withLock { $0.released.residentBytes } }
    /// What the kernel says that is held, in bytes: for tests, since it asks for each page.
    public var residentBytes: Int {
        let slabs = state.withLock { $0.slabCount }
        return arena.residentBytes(below: slabs * SizeClass.slabSize)
    }
}
