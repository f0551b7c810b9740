import Kernel

/// Tells the host program of tiers that do not give back what they were given, where no access
/// suffers by it: pages that were to come early or to move, and mirrored tiers of which one place
/// fails and the other is asked. Nothing else would tell before it is too late. Worker thread only.
struct ReadWatch {
    private struct Told {
        var mirrored: UInt64 = 0
        var unawaited: UInt64 = 0
        /// On the kernel's clock.
        var next: UInt64 = 0
    }

    private var told: [TierIndex: Told] = [:]
    /// Nanoseconds between two messages about a tier.
    private static let pause: UInt64 = 60_000_000_000

    mutating func look(_ tiers: [Tier<LinuxKernel>], at now: UInt64, _ host: Host) {
        for tier in tiers {
            let unawaited = tier.unawaitedReadErrors.load(ordering: .acquiring)
            let mirrored = tier.traffic?.secondReads.load(ordering: .relaxed) ?? 0
            var last = told[tier.index] ?? Told()
            // Another tier than the one that was called so.
            if mirrored < last.mirrored || unawaited < last.unawaited { last = Told() }
            guard mirrored > last.mirrored || unawaited > last.unawaited, now >= last.next else { continue }
            if mirrored > last.mirrored {
                host.log(
                    .warning,
                    "tier \(tier.index.position) (\(tier.kind.name)): one of its two places failed "
                        + "\(mirrored - last.mirrored) reads; the other was asked")
            }
            // Why a place failed, the mirrored device keeps to itself.
            let errno =
                unawaited > last.unawaited
                ? Errno(tier.unawaitedErrno.load(ordering: .relaxed)) : .inputOutput
            host.report(.unawaitedReadFailed(errno, tier.index))
            told[tier.index] = Told(mirrored: mirrored, unawaited: unawaited, next: now + Self.pause)
        }
    }
}
