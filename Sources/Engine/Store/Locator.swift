/// The kinds of place a stored page can be in.
public enum Tier: UInt64, Sendable {
    /// One 64-bit word, repeated.
    case sameFilled = 0
    case compressed = 1
    case file = 2
}

/// Where a stored page is: a tier and a place within it, in the bits that a
/// page-table entry has for it, so that a stored page needs no other metadata.
public struct Locator: Equatable, Sendable {
    public let tier: Tier
    public let place: UInt64

    /// Bits of a place.
    public static let placeBits = PageEntry.payloadBits - 2

    @inline(__always)
    public init(tier: Tier, place: UInt64) {
        precondition(place >> Self.placeBits == 0)
        self.tier = tier
        self.place = place
    }

    @inline(__always)
    public init(payload: UInt64) {
        guard let tier = Tier(rawValue: payload & 3) else {
            preconditionFailure("a page-table entry was overwritten")
        }
        self.tier = tier
        place = payload >> 2
    }

    @inline(__always)
    public var payload: UInt64 { place << 2 | tier.rawValue }
}
