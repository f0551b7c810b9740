import Kernel
import Synchronization

/// How long ago each resident page was touched, in passes of the tracker: one byte
/// a page. The worker writes it on a pass, the fault server when a page arrives; a
/// lost race costs one pass of age, so relaxed order is enough.
@safe public struct AgeMap: ~Copyable, @unchecked Sendable {
    private let mapping: Mapping
    private let ages: UnsafeMutablePointer<Atomic<UInt8>>
    public let pageCount: Int

    /// Not resident, as far as the last pass saw.
    public static let absent: UInt8 = 0
    /// Touched since the pass before.
    public static let touched: UInt8 = 1
    /// Ages stop here.
    public static let oldest: UInt8 = 255

    public init(pageCount: Int) throws(Errno) {
        mapping = try Mapping(length: roundUp(pageCount, to: pageSize))
        unsafe ages = mapping.base.assumingMemoryBound(to: Atomic<UInt8>.self)
        self.pageCount = pageCount
    }

    @inline(__always)
    public subscript(page: Int) -> UInt8 {
        get {
            assert(page >= 0 && page < pageCount)
            return unsafe ages[page].load(ordering: .relaxed)
        }
        nonmutating set {
            assert(page >= 0 && page < pageCount)
            unsafe ages[page].store(newValue, ordering: .relaxed)
        }
    }

    /// Marks pages absent, without touching memory that says so already.
    func forget(_ pages: Range<Int>) {
        for page in pages where self[page] != Self.absent { self[page] = Self.absent }
    }

    /// Gives memory back that speaks of absent pages only; returns the bytes of host
    /// memory that are left. A page that arrives meanwhile may lose its age, which it
    /// gets again on the next pass. Worker thread only.
    public func trim() -> Int { mapping.trimBlank() }

    /// Host memory behind it, in bytes.
    public var residentBytes: Int { mapping.residentBytes }
}
