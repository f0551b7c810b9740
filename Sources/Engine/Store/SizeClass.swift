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

    init(size: Int) {
        var count = Self.slabSize / size
        while Slab.bookkeepingSize(count) + count * size > Self.slabSize { count -= 1 }
        self.size = size
        self.count = count
        firstOffset = Slab.bookkeepingSize(count)
    }

    @inline(__always)
    func offset(of object: Int) -> Int { firstOffset + object * size }

    /// Pages of a slab, from its first on, that hold the bookkeeping and so many objects.
    func pages(holding objects: Int) -> Int {
        (firstOffset + objects * size + pageSize - 1) / pageSize
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

    init() {
        let sizes = Self.sizes()
        unsafe classes = .allocate(capacity: sizes.count)
        unsafe indices = .allocate(capacity: pageSize + 1)
        var next = 0
        for (index, size) in sizes.enumerated() {
            unsafe classes.initializeElement(at: index, to: SizeClass(size: size))
            while next <= size {
                unsafe indices.initializeElement(at: next, to: UInt8(index))
                next += 1
            }
        }
    }

    /// Ascending. Each is as large as it can be for its number of objects in a slab, but the
    /// smallest, and the largest, which is that of whole pages.
    private static func sizes() -> [Int] {
        var sizes = [pageSize]
        var count = SizeClass.slabSize / SizeClass.largest
        while true {
            let size = (SizeClass.slabSize - Slab.bookkeepingSize(count)) / count / 8 * 8
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
