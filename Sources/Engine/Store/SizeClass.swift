import Kernel

/// A size in which the compressed pool hands out memory. Objects of one class fill slabs
/// of one size, so freeing never fragments a slab for its own class.
public struct SizeClass: Sendable {
    /// Bytes of an object, a multiple of 8.
    public let size: Int
    /// Objects in a slab.
    public let count: Int
    /// Where the first one is; before it is the slab's bookkeeping.
    public let firstOffset: Int

    /// Bytes of a slab. Large, so that what no object fits in is little, also of whole pages.
    /// A slab that is not full costs no more for it: its pages count one by one.
    public static let slabSize = 128 << 10
    static let pagesPerSlab = slabSize / pageSize
    /// What a page must be compressed to: one that compresses no better is not worth a copy.
    public static let largest = pageSize - 256

    /// Whether each object has a seal, in the bookkeeping.
    private let isSealed: Bool

    init(size: Int, sealed: Bool) {
        var count = Self.slabSize / size
        while Slab.bookkeepingSize(count, sealed: sealed) + count * size > Self.slabSize { count -= 1 }
        self.size = size
        self.count = count
        isSealed = sealed
        firstOffset = Slab.bookkeepingSize(count, sealed: sealed)
    }

    @inline(__always)
    func offset(of object: Int) -> Int { firstOffset + object * size }

    /// Where an object's seal is.
    @inline(__always)
    func sealOffset(of object: Int) -> Int { Slab.sealOffset(of: object, among: count) }

    /// A bit for each page of a slab that these bytes of it lie in.
    static func pages(_ bytes: Range<Int>) -> UInt32 {
        let first = UInt32(bytes.lowerBound / pageSize)
        let last = UInt32((bytes.upperBound - 1) / pageSize)
        return (~0 << first) & (~0 >> (UInt32(Self.pagesPerSlab) - 1 - last))
    }

    /// Those that so many bytes of an object, and its seal, lie in.
    func pages(of object: Int, length: Int) -> UInt32 {
        let start = offset(of: object)
        let pages = Self.pages(start..<start + length)
        return isSealed ? pages | Self.pages(sealOffset(of: object)..<sealOffset(of: object + 1)) : pages
    }

    /// How many pages of a slab hold its bookkeeping and the first so many objects, at least one.
    func pages(holding objects: Int) -> Int {
        let bookkeeping = isSealed ? sealOffset(of: objects) : firstOffset
        return (Self.pages(0..<bookkeeping) | Self.pages(firstOffset..<firstOffset + objects * size))
            .nonzeroBitCount
    }
}

/// All size classes, by size.
@safe public struct SizeClasses: ~Copyable, @unchecked Sendable {
    private let classes: UnsafeMutableBufferPointer<SizeClass>
    /// By an object's length.
    private let indices: UnsafeMutableBufferPointer<UInt8>

    /// Bytes of the smallest class.
    private static let smallest = 64
    /// Classes lie at least this share apart: with more of them, fewer objects would share
    /// a slab, and more slabs would be partly empty.
    private static let gapShare = 40
    private static let gapMin = 16

    init(sealed: Bool) {
        let sizes = Self.sizes(sealed: sealed)
        unsafe classes = .allocate(capacity: sizes.count)
        unsafe indices = .allocate(capacity: pageSize + 1)
        var next = 0
        for (index, size) in sizes.enumerated() {
            unsafe classes.initializeElement(at: index, to: SizeClass(size: size, sealed: sealed))
            while next <= size {
                unsafe indices.initializeElement(at: next, to: UInt8(index))
                next += 1
            }
        }
    }

    /// Ascending. Each is as large as it can be for its number of objects in a slab, but the
    /// smallest, and the largest, which is that of whole pages.
    private static func sizes(sealed: Bool) -> [Int] {
        var sizes = [pageSize]
        var count = SizeClass.slabSize / SizeClass.largest
        while true {
            let room = SizeClass.slabSize - Slab.bookkeepingSize(count, sealed: sealed)
            let size = room / count / 8 * 8
            count += 1
            if size < smallest + gapMin { break }
            if size < SizeClass.largest, sizes.last! - size < max(gapMin, sizes.last! / gapShare) {
                continue
            }
            sizes.append(size)
        }
        sizes.append(smallest)
        return sizes.reversed()
    }

    public var count: Int { unsafe classes.count }

    @inline(__always)
    public subscript(index: Int) -> SizeClass { unsafe classes[index] }

    /// The class for an object of `length` bytes, 1 to a page.
    @inline(__always)
    public func index(for length: Int) -> Int {
        precondition(length > 0 && length <= pageSize)
        return unsafe Int(indices[length])
    }

    deinit {
        unsafe classes.deallocate()
        unsafe indices.deallocate()
    }
}
