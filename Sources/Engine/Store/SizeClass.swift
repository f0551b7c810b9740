import Kernel

/// Sizes in which the compressed pool hands out memory. Objects of one class fill
/// slabs of one size, so freeing never fragments a slab for its own class.
public enum SizeClass {
    /// Bytes between classes, and the alignment of every object.
    public static let step = 64
    /// The largest object: a page that compresses no better is not worth a copy.
    public static let largest = pageSize - 4 * step
    public static let count = largest / step
    /// Bytes of a slab; at 64 KiB the tail no object fits in stays below 1 %
    /// on average over the classes.
    public static let slabSize = 64 << 10

    /// The class for an object of `bytes`, 1 to `largest`.
    @inline(__always)
    public static func of(bytes: Int) -> Int {
        precondition(bytes > 0 && bytes <= largest)
        return (bytes - 1) / step
    }

    @inline(__always)
    public static func size(of sizeClass: Int) -> Int { (sizeClass + 1) * step }

    /// Last bytes of a slab, kept for its bookkeeping; few sizes fill a slab so well
    /// that it costs them an object.
    public static let slabTail = 16

    @inline(__always)
    public static func objectsPerSlab(_ sizeClass: Int) -> Int {
        (slabSize - slabTail) / size(of: sizeClass)
    }
}
