import Kernel

/// Tiers that come and go while the VM runs. Control thread, but where another is named.
extension LivePager {
    /// The index that a tier added now would have, or one too many.
    public var nextTier: Int { pager.freeTierIndex?.position ?? TierIndex.tiersMax }

    /// Adds a tier below all others, but for compressed memory, which becomes the first.
    /// Answers its index.
    public func addTier(_ options: TierOptions) throws(SetupFailure) -> Int {
        // Its device is told this one: a lower one may come free while it is opened.
        guard let index = pager.freeTierIndex else {
            throw SetupFailure(
                .noSpace,
                "a pager has at most \(TierIndex.tiersMax) tiers; remove one first, and wait until it is gone"
            )
        }
        try Setup.check(options, index.position)
        let hasMemory = pager.store.reading { pager.store.tiers.contains { $0.kind == .compressed } }
        if options.kind == .compressed, hasMemory {
            throw Setup.refusal(
                index.position, options, .invalid,
                "there is compressed memory already; remove it first, and wait until it is gone")
        }
        pager.addTier(try Setup.open(options, index, keySource, pager.host), at: index)
        pager.store.reading { pager.store.tier(index).map(watch) }
        settingsChanged()
        pager.host.log(.info, "tier \(index.position) (\(options.kind.name)) has been added")
        return index.position
    }

    /// Begins to remove a tier; the worker goes on.
    public func removeTier(_ position: Int) throws(SetupFailure) {
        let isIndex = (0..<TierIndex.tiersMax).contains(position)
        if let refusal = isIndex ? pager.removeTier(TierIndex(position + 1)) : .doesNotExist {
            let reason =
                switch refusal {
                case .doesNotExist: "does not exist; query the tiers for those that do"
                case .isGoingAlready: "is being removed already; wait until it is gone"
                case .isTheLast: "is the only one; add another first, or bring all back with mode drain"
                }
            throw SetupFailure(.invalid, "tier \(position) \(reason)")
        }
        settingsChanged()
        pager.host.log(.info, "tier \(position) is being removed")
    }

    func watch(_ tier: Tier<LinuxKernel>) {
        guard let device = tier.backing.device else { return }
        let watching = device.fetchDescriptors.map { loop.watch(descriptor: $0) }
        watches.withLock { $0[tier.index] = watching }
    }

    /// Worker thread.
    func unwatch(_ tier: Tier<LinuxKernel>) {
        let watching = watches.withLock { $0.removeValue(forKey: tier.index) }
        watching?.forEach { loop.unwatch($0) }
    }

    /// What the store as a whole is called; any thread.
    public var storeName: StaticString {
        pager.store.reading {
            let tiers = pager.store.tiers
            return tiers.count == 1 ? tiers[0].kind.name : "tiers"
        }
    }
}

/// What a tier keeps pages in. The raw values are the C interface's.
public enum TierKind: UInt32, Sendable {
    case compressed = 0
    case file = 1
    case nbd = 2

    public var name: StaticString {
        switch self {
        case .compressed: "compressed"
        case .file: "file"
        case .nbd: "nbd"
        }
    }
}

extension Tier where Port == LinuxKernel {
    public var kind: TierKind {
        guard let device = backing.device else { return .compressed }
        return device.isRemote ? .nbd : .file
    }
}
