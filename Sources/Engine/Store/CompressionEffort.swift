/// How much of what leaves is compressed while pages must leave quickly. Where the device is
/// quicker than compression, it waits for the CPU; writing some pages as they are has both at
/// work all the time. Without a hurry, all pages are compressed.
public struct CompressionEffort: Sendable {
    /// Pages of a thousand that are compressed.
    public private(set) var sharePerMille: UInt32 = Self.all

    private static let all: UInt32 = 1000
    /// What the share gives way by, and comes back by.
    private static let stepDown: UInt32 = 125
    private static let stepUp: UInt32 = 50
    /// Fewer pages say nothing of the device.
    private static let pagesMin = 128

    public init() {}

    /// Some pages were stored. `waited`: for the device, of the time that it took; nanoseconds.
    public mutating func judge(pages: Int, elapsed: UInt64, waited: UInt64, isHurried: Bool) {
        guard isHurried else {
            sharePerMille = Self.all
            return
        }
        guard pages >= Self.pagesMin else { return }
        // The last writes of a batch are waited for in any case.
        if waited < elapsed / 8 {
            sharePerMille -= min(sharePerMille, Self.stepDown)
        } else if waited > elapsed / 4 {
            sharePerMille = min(Self.all, sharePerMille + Self.stepUp)
        }
    }
}
