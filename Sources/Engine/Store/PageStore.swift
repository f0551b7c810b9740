import Kernel

/// Why a store did not take a page. The page goes back to the guest.
public enum Refusal: Equatable, Sendable {
    /// It would cost as much in the store as in RAM. Not an error.
    case incompressible
    /// No room.
    case full
    /// It was not asked, since it failed a short while ago, say. Not an error.
    case notNow
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

/// Which page of which block: what is stored outside RAM is bound to it.
public struct PageIdentity: Equatable, Sendable {
    /// `Region.serial`.
    public var block: UInt32
    public var page: UInt32

    @inline(__always)
    public init(block: UInt32, page: UInt32) {
        self.block = block
        self.page = page
    }
}

/// A page to store.
public struct PagePut: Sendable {
    /// Where it can be read; page-aligned.
    public var address: UInt64
    public var identity: PageIdentity

    @inline(__always)
    public init(address: UInt64, identity: PageIdentity) {
        self.address = address
        self.identity = identity
    }
}

/// Where a page is read to. Both are page-aligned.
@safe public struct FetchBuffer {
    /// A page: gets its contents.
    public let page: UnsafeMutableRawPointer
    /// Two pages: for what is stored of it, before it is decoded.
    public let raw: UnsafeMutableRawPointer

    @inline(__always)
    public init(page: UnsafeMutableRawPointer, raw: UnsafeMutableRawPointer) {
        unsafe self.page = page
        unsafe self.raw = raw
    }
}

/// A tier. A put page is either stored or refused, nothing in between; what was
/// stored can be got, any number of times, until it is dropped.
public protocol PageStore: ~Copyable {
    /// Takes pages; sets an outcome for each. May block on I/O. Worker thread only.
    func put(
        _ pages: UnsafeBufferPointer<PagePut>, outcomes: UnsafeMutableBufferPointer<PutOutcome>)

    /// Reads a page. Never blocks. Fault thread only.
    func get(
        _ place: UInt64, _ identity: PageIdentity, into buffer: FetchBuffer, token: UInt64
    ) -> GetOutcome

    /// Ends a pending read, whose transfer has completed. `pending`: what came was wrong, and is
    /// being read from elsewhere; it completes once more. Fault thread only.
    func finish(
        _ place: UInt64, _ identity: PageIdentity, _ completion: TransferCompletion, _ buffer: FetchBuffer
    ) -> GetOutcome

    /// Frees a page's place. Does no I/O. Any thread.
    func drop(_ place: UInt64)

    /// Gives back to the host what drops have freed. Worker thread only.
    func trim()
}
