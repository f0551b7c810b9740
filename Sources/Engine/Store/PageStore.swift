import Kernel

/// Why a store did not take a page. The page goes back to the guest.
public enum Refusal: Equatable, Sendable {
    /// It would cost as much in the store as in RAM. Not an error.
    case incompressible
    /// No room.
    case full
    case failed(Errno)
}

public enum PutOutcome: Equatable, Sendable {
    /// The store has the page; `place` finds it again.
    case stored(place: UInt64)
    case refused(Refusal)
}

public enum GetOutcome: Equatable, Sendable {
    /// The buffer holds the page.
    case ready
    /// The buffer will hold the page when the transfer with this token completes.
    case pending
    case failed(Errno)
}

/// A tier. A put page is either stored or refused, nothing in between; what was
/// stored can be got, any number of times, until it is dropped.
public protocol PageStore: ~Copyable {
    var tier: Tier { get }

    /// Takes pages, each at a page-aligned address in `pages`; sets an outcome for
    /// each. May block on I/O. Worker thread only.
    func put(
        _ pages: UnsafeBufferPointer<UInt64>, outcomes: UnsafeMutableBufferPointer<PutOutcome>)

    /// Reads a page into a page-aligned buffer. Never blocks. Fault thread only.
    func get(_ place: UInt64, into buffer: UnsafeMutableRawPointer, token: UInt64) -> GetOutcome

    /// Frees a page's place. Does no I/O. Any thread.
    func drop(_ place: UInt64)

    /// Gives back to the host what drops have freed. Worker thread only.
    func trim()
}
