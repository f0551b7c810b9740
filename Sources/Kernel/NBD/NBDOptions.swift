/// Which export to use, and how.
public struct NBDOptions: Equatable, Sendable {
    /// An NBD URI: `nbd://host[:port]/export`, `nbds://` for TLS, `nbd+unix:///export?socket=path`
    /// and `nbds+unix://`.
    public var uri: String
    /// Bytes of the export to use, a multiple of 4096; 0: all there are.
    public var size: UInt64
    /// Bytes that the export must have, and those of it that can be used at most.
    public var sizes: ClosedRange<UInt64>
    /// How long a transfer waits for a server that does not answer, in nanoseconds.
    public var timeout: UInt64
    /// A folder with `ca-cert.pem`, `client-cert.pem` and `client-key.pem`, or with `keys.psk`.
    public var tlsCertificates: String?
    /// Connections to use at most, where the server allows several.
    public var connections: Int

    public static let timeoutDefault: UInt64 = 30_000_000_000
    public static let timeoutMin: UInt64 = 1_000_000_000
    public static let connectionsDefault = 2
    public static let connectionsMax = 16
    /// A page, and what says that the export is ours; anything that an offset can name.
    public static let sizesDefault = UInt64(2 * pageSize)...UInt64(Int64.max)
    static let schemes = ["nbd", "nbds", "nbd+unix", "nbds+unix"]

    public init(
        uri: String, size: UInt64 = 0, sizes: ClosedRange<UInt64> = sizesDefault,
        timeout: UInt64 = timeoutDefault, tlsCertificates: String? = nil,
        connections: Int = connectionsDefault
    ) {
        self.uri = uri
        self.size = size
        self.sizes = sizes
        self.timeout = timeout
        self.tlsCertificates = tlsCertificates
        self.connections = connections
    }

    func check() throws(NBDFailure) {
        let scheme = uri.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false).first
        guard Self.schemes.contains(where: { scheme == $0[...] }) else {
            throw .badOption("uri is not one of nbd:, nbds:, nbd+unix:, nbds+unix:")
        }
        guard timeout >= Self.timeoutMin else {
            throw .badOption("timeout is less than a second")
        }
        guard (1...Self.connectionsMax).contains(connections) else {
            throw .badOption("connections is not between 1 and \(Self.connectionsMax)")
        }
        guard size % UInt64(pageSize) == 0 else { throw .badOption("size is not a multiple of 4096") }
    }
}

/// Why an export cannot be used.
public enum NBDFailure: Error, Equatable {
    case system(Errno)
    case badOption(String)
    case noLibrary(String)
    case unreachable(String)
    case cancelled
    case readOnly
    /// The export's size and the size wanted, in bytes.
    case tooSmall(export: UInt64, wanted: UInt64)
    /// The export's size and the most that can be used of it, in bytes.
    case tooLarge(export: UInt64, most: UInt64)
    /// The smallest or the largest transfer that the server takes, in bytes.
    case blockSize(UInt64)
    /// The first transfer failed.
    case unusable(Errno)
    /// After a reconnection, it is not what it was. The first sentence about it says how.
    case changed(String)

    public var reason: String {
        switch self {
        case .system(let errno): errno.text
        case .badOption(let text): text
        case .noLibrary(let text): "\(text); install libnbd0, 1.14 or later"
        case .unreachable(let text): text
        case .cancelled: "cancelled"
        case .readOnly: "the export is read-only"
        case .tooSmall(let export, let wanted):
            "the export has \(export) bytes, which is less than the \(wanted) wanted"
        case .tooLarge(let export, let most):
            "the export has \(export) bytes, of which at most \(most) can be used; give a size"
        case .blockSize(let bytes):
            "the server wants transfers of at least, or at most, \(bytes) bytes; 4096 must do"
        case .unusable(let errno): "the export cannot be written and read: \(errno.text)"
        case .changed(let text): text
        }
    }
}

/// What the host program may want to know of the connection.
public enum NBDNotice: Equatable, Sendable {
    /// The server is gone; transfers wait.
    case lost
    /// It has been away for the timeout, or what came back is not our export: transfers fail.
    case failing(String)
    /// Transfers go on, after so many nanoseconds.
    case back(UInt64)
}
