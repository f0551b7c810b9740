/// How pages are taken from the guest without losing a write: a property of a block's
/// memory. What each does is in `Evict/Pager+Guard.swift`.
public enum Guard: Sendable {
    /// UFFDIO_MOVE to staging. Private anonymous memory.
    case move
    /// The page is unmapped, stays in its file meanwhile, and faults as a minor fault.
    /// Shared memory.
    case minor
    /// The same for shared memory in huge pages (hugetlbfs), which leave whole.
    case minorHuge
    /// Accesses to armed pages wait while pages are moved. Private anonymous memory that is
    /// tracked by read-write protection.
    case freeze
    /// The same for shared memory, whose pages stay in place until they are stored.
    case freezeShared
    /// Writes wait while the page is stored, and it is dropped then. Private anonymous
    /// memory that is tracked by synchronous write protection.
    case writeProtect

    public var name: StaticString {
        switch self {
        case .move: "move"
        case .minor, .minorHuge: "minor"
        case .freeze, .freezeShared: "freeze"
        case .writeProtect: "write-protect"
        }
    }

    /// For shared memory: pages are in a file, mapped or not.
    @inline(__always)
    var isShared: Bool {
        switch self {
        case .minor, .minorHuge, .freezeShared: true
        case .move, .freeze, .writeProtect: false
        }
    }

    /// Accesses to armed pages wait while they are taken.
    @inline(__always)
    var freezes: Bool { self == .freeze || self == .freezeShared }

    /// Pages leave and come back a huge page at a time.
    @inline(__always)
    var leavesWhole: Bool { self == .minorHuge }

    /// The pages of one huge page can be written while those of the next are taken.
    @inline(__always)
    var overlaps: Bool {
        switch self {
        case .move, .freeze, .minor, .writeProtect: true
        // Memory is frozen until all have been let go; and there is one buffer for them.
        case .freezeShared, .minorHuge: false
        }
    }

    /// The guest, and whoever looks pages up for a device, can read taken pages until the
    /// store has them.
    @inline(__always)
    var leavesReadable: Bool { self == .writeProtect }

    /// What a page becomes when the store has it: where it has not left the guest's memory
    /// by then, that memory must still be freed.
    @inline(__always)
    var stateWhenStored: PageState {
        switch self {
        case .move, .freeze: .stored
        case .minor, .minorHuge, .freezeShared, .writeProtect: .punching
        }
    }
}
