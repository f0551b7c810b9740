import Kernel

/// Where pages go when they leave the guest, until the store has them: address space
/// for two huge pages, aligned like them, so that a whole huge page moves as one. They are
/// used in turns: those of the first are being written while the second is filled.
/// A page's huge page says which of them it goes to, and its position there is its position in
/// its huge page. The worker fills and empties staging; the fault server copies out of it.
public final class Staging: Sendable {
    private let mapping: Mapping

    public init() throws(Errno) {
        mapping = try Mapping(length: Self.turns * hugePageSize, alignment: hugePageSize)
    }

    public var start: UInt64 { unsafe UInt64(UInt(bitPattern: mapping.base)) }
    /// Bytes; also the most that can ever be staged.
    public var length: Int { mapping.length }

    /// Huge pages that can be on their way out at once.
    static var turns: Int { 2 }

    /// Which of the two parts pages of a huge page go to.
    @inline(__always)
    func turn(of region: Region, _ page: Int) -> Int { region.hugePage(of: page) % Self.turns }

    @inline(__always)
    public func address(of region: Region, _ page: Int) -> UInt64 {
        start + UInt64(turn(of: region, page) * hugePageSize + region.positionInHugePage(page) * pageSize)
    }
}
