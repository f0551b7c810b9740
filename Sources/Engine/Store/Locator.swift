/// Which tier a stored page is in: the words of same-filled pages, or one of the
/// configured tiers, counted from 1 in their order.
public struct TierIndex: Hashable, Sendable {
    public let number: Int

    /// Tiers that one pager can have.
    public static let tiersMax = 7

    /// One 64-bit word, repeated.
    public static let sameFilled = TierIndex(0)

    /// How users call it: the configured tiers count from 0.
    public var position: Int { number - 1 }

    /// 0 to `tiersMax`.
    @inline(__always)
    public init(_ number: Int) {
        assert((0...Self.tiersMax).contains(number))
        self.number = number
    }
}

/// Where a stored page is: a tier and a place within it, in the bits that a
/// page-table entry has for it, so that a stored page needs no other metadata.
public struct Locator: Equatable, Sendable {
    public let tier: TierIndex
    public let place: UInt64

    private static let tierBits: UInt64 = 3
    /// Bits of a place.
    public static let placeBits = PageEntry.payloadBits - tierBits

    @inline(__always)
    public init(tier: TierIndex, place: UInt64) {
        precondition(place >> Self.placeBits == 0)
        self.tier = tier
        self.place = place
    }

    @inline(__always)
    public init(payload: UInt64) {
        tier = TierIndex(Int(payload & (1 << Self.tierBits - 1)))
        place = payload >> Self.tierBits
    }

    @inline(__always)
    public var payload: UInt64 { place << Self.tierBits | UInt64(tier.number) }
}
