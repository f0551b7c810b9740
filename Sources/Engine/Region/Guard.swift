/// How pages are taken from the guest without losing a write: a property of a block's
/// memory. What each does is in `Evict/Pager+Guard.swift`.
public enum Guard: Sendable {
    /// UFFDIO_MOVE to staging. Private anonymous memory.
    case move
    /// The page is unmapped, stays in its file meanwhile, and faults as a minor fault.
    /// Shared memory.
    case minor

    public var name: StaticString {
        switch self {
        case .move: "move"
        case .minor: "minor"
        }
    }

    /// What a page becomes when the store has it: with `minor`, its memory must still
    /// be freed.
    @inline(__always)
    var stateWhenStored: PageState {
        switch self {
        case .move: .stored
        case .minor: .punching
        }
    }
}
