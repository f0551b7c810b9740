import Kernel

/// Where pages go when they leave the guest, until the store has them: address space
/// for one huge page, aligned like one, so that a whole huge page moves as one.
/// A page's position in staging is its position in its huge page. The worker fills
/// and empties it; the fault server copies out of it.
public final class Staging: Sendable {
    private let mapping: Mapping

    public init() throws(Errno) {
        mapping = try Mapping(length: hugePageSize, alignment: hugePageSize)
    }

    public var start: UInt64 { unsafe UInt64(UInt(bitPattern: mapping.base)) }
    /// Bytes; also the most that can ever be staged.
    public var length: Int { mapping.length }

    @inline(__always)
    public func address(of position: Int) -> UInt64 {
        assert(position >= 0 && position < hugePageSize / pageSize)
        return start + UInt64(position * pageSize)
    }

    @inline(__always)
    public func contents(of position: Int) -> UnsafeRawPointer {
        unsafe UnsafeRawPointer(mapping.base + position * pageSize)
    }
}
