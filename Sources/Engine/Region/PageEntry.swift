/// Where a page is now. The raw value is what a page-table entry stores.
///
///     resident ─▶ leaving ─▶ staged ─▶ (punching) ─▶ stored ─▶ arriving ─▶ placing ─▶ resident
///                 │  ▲ fault    │ fault
///                 ▼  │          ▼
///                 wanted ──▶ rescuing ──────────────────────────────────────────▶ resident
///
/// `leaving`, `wanted`, `rescuing`, `punching`, `placing` and `filling` last for one
/// system call of the thread that entered them. Only these may be waited for.
public enum PageState: UInt64, Sendable {
    /// The kernel decides: a present page, or a hole, which reads as zeros because
    /// the page was never written or was discarded.
    case resident = 0
    /// The worker is taking it from the guest.
    case leaving = 1
    /// Like `leaving`, and an access waits: the worker puts it back at once.
    case wanted = 2
    /// Taken, and the only copy until the store has it: in staging, in its file and not
    /// mapped, or where it was and protected.
    case staged = 3
    /// Being put back from there.
    case rescuing = 4
    /// In the store, and nowhere else.
    case stored = 5
    /// Being read from the store.
    case arriving = 6
    /// Read, and being placed in the guest; or unreadable, and being poisoned.
    case placing = 7
    /// A hole being filled with zeros, a page of shared memory being mapped again, or one
    /// whose protection is being lifted.
    case filling = 8
    /// Between the begin and the end of a discard: has no contents.
    case discarding = 9
    /// Lost by the store and poisoned: an access is a machine check.
    case poisoned = 10
    /// The store has it, and its file, or the guest, is being rid of it.
    case punching = 11

    /// Left by its own thread after one system call, so another may wait for that.
    public var isShort: Bool {
        switch self {
        case .leaving, .wanted, .rescuing, .placing, .filling, .punching: true
        case .resident, .staged, .stored, .arriving, .discarding, .poisoned: false
        }
    }
}

/// One page's entry: state, generation, age, and where the contents are, in 64 bits, so
/// that each transition is one compare-and-swap. An all-zero entry is `resident`,
/// hence page-table memory that was never written costs nothing and is right.
public struct PageEntry: Equatable, Sendable {
    public var word: UInt64

    private static let stateBits: UInt64 = 4
    private static let generationBits: UInt64 = 9
    private static let agedBit: UInt64 = 1 << (stateBits + generationBits)
    private static let payloadShift: UInt64 = stateBits + generationBits + 1
    /// Bits of a payload.
    public static let payloadBits: UInt64 = 64 - payloadShift

    @inline(__always)
    public init(word: UInt64) { self.word = word }

    @inline(__always)
    public init(_ state: PageState, generation: UInt64 = 0, payload: UInt64 = 0) {
        assert(payload >> Self.payloadBits == 0)
        word =
            state.rawValue
            | (generation & (1 << Self.generationBits - 1)) << Self.stateBits
            | payload << Self.payloadShift
    }

    @inline(__always)
    public var state: PageState {
        guard let state = PageState(rawValue: word & (1 << Self.stateBits - 1)) else {
            preconditionFailure("a page-table entry was overwritten")
        }
        return state
    }

    /// `stored`: it was there already when demotion last came by. Any transition clears it.
    @inline(__always)
    public var isAged: Bool { word & Self.agedBit != 0 }

    @inline(__always)
    func aged() -> PageEntry { PageEntry(word: word | Self.agedBit) }

    /// Counts the times the page left, modulo 512: with the payload it tells a
    /// late completion from the present stay.
    @inline(__always)
    public var generation: UInt64 { word >> Self.stateBits & (1 << Self.generationBits - 1) }

    /// A `Locator`. `punching` to `placing`: of the page. `resident`, `leaving` to `rescuing`,
    /// `filling`: of a copy that the store kept when the page came back; 0 for none.
    @inline(__always)
    public var payload: UInt64 { word >> Self.payloadShift }

    /// The page is in the guest, and the store has kept a copy of what it was.
    @inline(__always)
    public var namesCopy: Bool { state == .resident && payload != 0 }

    /// All that it says is how often the page has left.
    @inline(__always)
    var isForgettable: Bool { state == .resident && payload == 0 }

    /// The same page in another state, with the same generation and payload.
    @inline(__always)
    public func becoming(_ state: PageState) -> PageEntry {
        PageEntry(state, generation: generation, payload: payload)
    }

    /// The same page in another state, with another payload.
    @inline(__always)
    public func becoming(_ state: PageState, payload: UInt64) -> PageEntry {
        PageEntry(state, generation: generation, payload: payload)
    }
}
