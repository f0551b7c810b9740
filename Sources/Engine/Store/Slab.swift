/// One slab's bookkeeping, in its own first bytes: it counts as pool memory, comes with the
/// slab and goes with it. For the holder of the pool's lock, while the slab's memory is held.
///
/// Which objects are taken is a bit each here, and nothing is written into free objects: so
/// who frees one need not know whether another thread is copying it at this moment.
@safe struct Slab {
    private struct Header {
        var next: UInt32
        var previous: UInt32
        var heldPages: UInt32
        var used: UInt16
        var movingFrom: UInt16
        var sizeClass: UInt8
        var list: UInt8
    }

    private let header: UnsafeMutablePointer<Header>
    private let words: UnsafeMutablePointer<UInt64>
    private static let headerSize = 24

    /// In no list.
    static let none: UInt32 = .max
    /// No object is to move.
    static let nothingMoves = Int(UInt16.max)

    /// What a sealed object is opened with: its serial number, 8 bytes, and its tag.
    static let sealSize = 8 + Sealer.tagLength

    /// Bytes for a slab of so many objects, which may be sealed.
    static func bookkeepingSize(_ objects: Int, sealed: Bool) -> Int {
        sealed ? sealOffset(of: objects, among: objects) : headerSize + wordCount(objects) * 8
    }

    /// Where in a slab the seal of one of its objects is.
    @inline(__always)
    static func sealOffset(of object: Int, among objects: Int) -> Int {
        headerSize + wordCount(objects) * 8 + object * sealSize
    }

    private static func wordCount(_ objects: Int) -> Int { (objects + 63) / 64 }

    init(at base: UnsafeMutableRawPointer) {
        assert(MemoryLayout<Header>.size <= Self.headerSize)
        unsafe header = base.assumingMemoryBound(to: Header.self)
        unsafe words = (base + Self.headerSize).assumingMemoryBound(to: UInt64.self)
    }

    /// Makes it an empty slab of a class, of which `heldPages` are held.
    func begin(_ sizeClass: Int, objects: Int, heldPages: UInt32) {
        unsafe header.initialize(
            to: Header(
                next: Self.none, previous: Self.none, heldPages: heldPages, used: 0,
                movingFrom: UInt16(Self.nothingMoves), sizeClass: UInt8(sizeClass), list: 0))
        let count = Self.wordCount(objects)
        for index in 0..<count { unsafe words[index] = 0 }
        // Bits past the end count as taken.
        if objects % 64 != 0 { unsafe words[count - 1] = ~0 << UInt64(objects % 64) }
    }

    /// Neighbours in its list.
    var next: UInt32 {
        get { unsafe header.pointee.next }
        nonmutating set { unsafe header.pointee.next = newValue }
    }
    var previous: UInt32 {
        get { unsafe header.pointee.previous }
        nonmutating set { unsafe header.pointee.previous = newValue }
    }
    /// Which list it is in.
    var list: Int {
        get { unsafe Int(header.pointee.list) }
        nonmutating set { unsafe header.pointee.list = UInt8(newValue) }
    }
    /// A bit for each page of the slab that costs host memory.
    var heldPages: UInt32 {
        get { unsafe header.pointee.heldPages }
        nonmutating set { unsafe header.pointee.heldPages = newValue }
    }
    /// Objects from this one on are to move to other places.
    var movingFrom: Int {
        get { unsafe Int(header.pointee.movingFrom) }
        nonmutating set { unsafe header.pointee.movingFrom = UInt16(newValue) }
    }
    var sizeClass: Int { unsafe Int(header.pointee.sizeClass) }
    /// Objects that are taken.
    var used: Int { unsafe Int(header.pointee.used) }

    /// The lowest free object; there must be one.
    var lowestFree: Int {
        var index = 0
        while unsafe words[index] == ~0 { index += 1 }
        return unsafe index * 64 + (~words[index]).trailingZeroBitCount
    }

    func isTaken(_ object: Int) -> Bool {
        unsafe words[object / 64] >> UInt64(object % 64) & 1 != 0
    }

    func take(_ object: Int) {
        assert(!isTaken(object))
        unsafe words[object / 64] |= 1 << UInt64(object % 64)
        unsafe header.pointee.used += 1
    }

    func free(_ object: Int) {
        precondition(isTaken(object), "an object was freed twice")
        unsafe words[object / 64] &= ~(1 << UInt64(object % 64))
        unsafe header.pointee.used -= 1
    }
}
