/// How a tier is wanted, after the C types are gone.
public struct TierOptions: Sendable {
    public enum Kind: Equatable, Sendable {
        case compressed
        case file(path: String)
        case nbd(uri: String)
    }

    /// Whether what is stored is encrypted and authenticated.
    public enum Seal: Equatable, Sendable {
        /// With a key of the pager's `keySource`, but for memory.
        case automatic
        case off
        /// Memory, too.
        case on
    }

    public var kind: Kind
    /// Bytes: of the memory held, of the file in use, or of the export; 0 for no ceiling and
    /// for the whole export.
    public var maxBytes: UInt64
    /// Of compressed memory.
    public var compression = Compression.lz4
    public var incompressible = IncompressiblePages.refuse
    public var seal = Seal.automatic
    var isSealed: Bool { seal == .on || seal == .automatic && kind != .compressed }
    /// A file's space is set aside at the start, and kept.
    public var preallocates = false
    /// A folder.
    public var tlsCertificates: String?
    /// 0: 2, where the server allows it.
    public var connections = 0
    /// How long a lost server is waited for; 0 for 30.
    public var timeoutSeconds = 0
    public var readLimits = RateLimits()
    public var writeLimits = RateLimits()
    /// A second place that holds the same: of its options, kind, size and what belongs to NBD.
    public var mirror: Mirror?
    /// The only one, asked for without a list: nobody calls it a tier.
    var isShortForm = false

    public init(_ kind: Kind, maxBytes: UInt64 = 0) {
        self.kind = kind
        self.maxBytes = maxBytes
    }

    /// Options of another tier; a class, since a struct cannot hold one of its kind.
    public final class Mirror: Sendable {
        let options: TierOptions
        public init(_ options: TierOptions) { self.options = options }
    }

    /// Of a file, a block device or an export: from room for one batch of evictions to what a page's
    /// entry can name a place in. Bytes.
    public static let deviceSizes: ClosedRange<UInt64> = 2 << 20...2 << 50
    public static let connectionsMax = 16
    /// A day.
    public static let timeoutSecondsMax = 86_400
}

extension TierOptions.Kind {
    public var name: StaticString {
        switch self {
        case .compressed: TierKind.compressed.name
        case .file: TierKind.file.name
        case .nbd: TierKind.nbd.name
        }
    }
}
