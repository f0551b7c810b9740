import Kernel

/// The tiers that are asked for: every refusal names the tier, by its index and kind.
extension Setup {
    /// The tiers that the short form stands for, or those of the long one.
    static func tiers(_ options: PagerOptions) throws(SetupFailure) -> [TierOptions] {
        let compressed = options.compressed
        switch options.store {
        case .compressed:
            var tier = TierOptions(.compressed, maxBytes: UInt64(compressed.bytesMax ?? 0))
            tier.isShortForm = true
            tier.compression = compressed.compression
            tier.incompressible = compressed.incompressible
            tier.seal = options.seal
            try check(tier, 0)
            return [tier]
        case .file(let path, let size):
            guard compressed == CompressedStoreOptions() else {
                throw SetupFailure(
                    .invalid,
                    "compression, its level, incompressible and pool-max are for store compressed, and "
                        + "store file has none of them; leave them out, or choose store compressed")
            }
            var tier = TierOptions(.file(path: path), maxBytes: size)
            tier.isShortForm = true
            tier.seal = options.seal
            try check(tier, 0)
            return [tier]
        case .tiers(let tiers):
            guard compressed == CompressedStoreOptions() else {
                throw SetupFailure(
                    .invalid,
                    "tiers were given, and compression, its level, incompressible or pool-max as well; "
                        + "say them of a tier")
            }
            guard options.seal == .automatic else {
                throw SetupFailure(
                    .invalid, "tiers were given, and seal on or off as well; say it of each tier")
            }
            try checkList(tiers)
            return tiers
        }
    }

    private static func checkList(_ tiers: [TierOptions]) throws(SetupFailure) {
        guard (1...TierIndex.tiersMax).contains(tiers.count) else {
            throw SetupFailure(
                .invalid, "\(tiers.count) tiers were given; a pager has 1 to \(TierIndex.tiersMax)")
        }
        for (index, tier) in tiers.enumerated() {
            if index > 0, tier.kind == .compressed {
                let cure =
                    tiers[0].kind == .compressed
                    ? "there is one already: leave this one out" : "move it to the front"
                throw refusal(index, tier, .invalid, "compressed memory comes first and once; \(cure)")
            }
            try check(tier, index)
        }
    }

    /// Everything that can be refused without opening anything.
    static func check(_ tier: TierOptions, _ index: Int) throws(SetupFailure) {
        func require(_ holds: Bool, _ reason: @autoclosure () -> String) throws(SetupFailure) {
            if !holds { throw refusal(index, tier, .invalid, reason()) }
        }
        switch tier.kind {
        case .compressed:
            try checkCompressed(tier, index)
            try require(
                tier.readLimits.isNone && tier.writeLimits.isNone,
                "memory has no rate limits; leave them out")
        case .file:
            try checkSize(tier, index)
            try checkIsNotCompressed(tier, index)
        case .nbd:
            if tier.maxBytes != 0 { try checkSize(tier, index) }
            try checkIsNotCompressed(tier, index)
            try require(
                (0...TierOptions.connectionsMax).contains(tier.connections),
                "there cannot be \(tier.connections) connections; choose 1 to "
                    + "\(TierOptions.connectionsMax), or 0 for 2, where the server allows it")
            try require(
                (0...TierOptions.timeoutSecondsMax).contains(tier.timeoutSeconds),
                "the timeout is \(tier.timeoutSeconds) s; choose 1 to \(TierOptions.timeoutSecondsMax), "
                    + "or leave it out for 30")
        }
        if tier.preallocates {
            guard case .file = tier.kind else {
                throw refusal(index, tier, .invalid, "preallocation is for kind file; leave it out")
            }
        }
        if let mirror = tier.mirror?.options { try checkMirror(mirror, of: tier, index) }
        if case .nbd = tier.kind { return }
        try require(
            tier.tlsCertificates == nil && tier.connections == 0 && tier.timeoutSeconds == 0,
            "certificates, connections and a timeout are for kind nbd; leave them out")
    }

    private static func checkMirror(
        _ mirror: TierOptions, of tier: TierOptions, _ index: Int
    ) throws(SetupFailure) {
        let reason: String? =
            if tier.kind == .compressed || mirror.kind == .compressed {
                "memory has no mirror and is none; mirror a file, a device or an export by another"
            } else if tier.seal == .off {
                "a mirrored tier is sealed, since only the seal tells which of the two is right; leave seal "
                    + "off out, or the mirror"
            } else if mirror.mirror != nil {
                "a mirror has no mirror of its own; leave it out"
            } else if mirror.kind == tier.kind {
                "its mirror is the same \(tier.kind.name); name another place"
            } else {
                nil
            }
        if let reason { throw refusal(index, tier, .invalid, reason) }
        do {
            try check(mirror, index)
        } catch {
            throw SetupFailure(error.errno, "mirror of \(error.message)")
        }
    }

    private static func checkSize(_ tier: TierOptions, _ index: Int) throws(SetupFailure) {
        let sizes = TierOptions.deviceSizes
        guard sizes.contains(tier.maxBytes), tier.maxBytes % UInt64(pageSize) == 0 else {
            throw refusal(
                index, tier, .invalid,
                "the store's size is \(tier.maxBytes) bytes; it must be a multiple of 4096, at least "
                    + "\(sizes.lowerBound) (2 MiB), and at most \(sizes.upperBound) (2 PiB)")
        }
    }

    private static func checkCompressed(_ tier: TierOptions, _ index: Int) throws(SetupFailure) {
        if case .zstd(let level) = tier.compression, !Compression.zstdLevels.contains(level) {
            let levels = Compression.zstdLevels
            throw refusal(
                index, tier, .invalid,
                "compression level \(level) is out of range; zstd has \(levels.lowerBound) (quick) to "
                    + "\(levels.upperBound) (thorough), and 0 stands for \(Compression.zstdLevelDefault)")
        }
        let least = CompressedStoreOptions.bytesMin
        if tier.maxBytes != 0, tier.maxBytes < UInt64(least) {
            throw refusal(
                index, tier, .invalid,
                "\(tier.isShortForm ? "pool-max" : "the ceiling") is \(tier.maxBytes) bytes; it must be 0 "
                    + "(no ceiling) or at least \(least) (16 MiB): raise it, or leave it out")
        }
    }

    private static func checkIsNotCompressed(_ tier: TierOptions, _ index: Int) throws(SetupFailure) {
        if tier.compression == .lz4, tier.incompressible == .refuse { return }
        throw refusal(
            index, tier, .invalid,
            "compression and incompressible are choices of kind compressed only; leave them out")
    }

    static func refusal(
        _ index: Int, _ tier: TierOptions, _ errno: Errno, _ reason: String
    ) -> SetupFailure {
        SetupFailure(errno, tier.isShortForm ? reason : "tier \(index) (\(tier.kind.name)): \(reason)")
    }

    static func openAll(
        _ tiers: [TierOptions], _ keySource: Sealer.KeySource, _ host: Host
    ) throws(SetupFailure) -> [Store<LinuxKernel>.Setup] {
        var setups: [Store<LinuxKernel>.Setup] = []
        for (position, tier) in tiers.enumerated() {
            setups.append(try open(tier, TierIndex(position + 1), keySource, host))
        }
        return setups
    }

    static func open(
        _ tier: TierOptions, _ index: TierIndex, _ keySource: Sealer.KeySource, _ host: Host
    ) throws(SetupFailure) -> Store<LinuxKernel>.Setup {
        let device = try openMirrored(tier, index.position, host)
        // Each has a key of its own: nonces are counted by the store.
        let sealer = tier.isSealed ? try makeSealer(keySource) : nil
        do {
            guard let device else {
                let bytesMax = tier.maxBytes == 0 ? nil : Int(clamping: tier.maxBytes)
                let options = CompressedStoreOptions(
                    compression: tier.compression, incompressible: tier.incompressible, bytesMax: bytesMax)
                return Store<LinuxKernel>.Setup(
                    .compressed(try CompressedStore(options, tier: index, sealer: sealer)),
                    maxBytes: bytesMax ?? 0)
            }
            let log = try LogStore(
                device: device, size: device.size, tier: index, sealer: sealer, helpers: compressionHelpers)
            var setup = Store<LinuxKernel>.Setup(.log(log), maxBytes: Int(device.size))
            setup.readLimits = tier.readLimits
            setup.writeLimits = tier.writeLimits
            return setup
        } catch {
            throw refusal(index.position, tier, error, "cannot set up the store: \(error.text)")
        }
    }

    /// Threads that compress for a device: they sleep but while pages leave, and two keep up with
    /// a quick disk. None on a single CPU.
    private static var compressionHelpers: Int { min(2, usableCPUs - 1) }

    /// Opens what a tier keeps its pages on, and its mirror; nil for memory.
    private static func openMirrored(
        _ tier: TierOptions, _ index: Int, _ host: Host
    ) throws(SetupFailure) -> LinuxDevice? {
        let device = try openDevice(tier, index, host)
        guard let device, let mirror = tier.mirror?.options else { return device }
        let second: LinuxDevice?
        do {
            second = try openDevice(mirror, index, host)
        } catch {
            throw SetupFailure(error.errno, "mirror of \(error.message)")
        }
        guard let second else { return device }
        do {
            return try LinuxDevice(device, mirroredBy: second)
        } catch {
            throw refusal(index, tier, error, "cannot set up the mirror: \(error.text)")
        }
    }

    private static func openDevice(
        _ tier: TierOptions, _ index: Int, _ host: Host
    ) throws(SetupFailure) -> LinuxDevice? {
        switch tier.kind {
        case .compressed: return nil
        case .nbd(let uri): return LinuxDevice(try openExport(uri, tier, index, host))
        case .file(let path):
            do {
                return LinuxDevice(
                    try StoreFile(path: path, size: tier.maxBytes, preallocates: tier.preallocates))
            } catch {
                let reason = describe(error, path: path, size: tier.maxBytes, tier.preallocates)
                throw refusal(index, tier, reason.errno, reason.message)
            }
        }
    }

    private static func describe(
        _ failure: StoreFile.OpenFailure, path: String, size: UInt64, _ preallocates: Bool
    ) -> SetupFailure {
        switch failure {
        case .failed(.noSpace) where preallocates:
            SetupFailure(
                .noSpace,
                "the file system of \(path) has no \(size) bytes free to preallocate; lower the size, "
                    + "or let the file grow")
        case .failed(.notSupported) where preallocates:
            SetupFailure(
                .notSupported,
                "\(path) cannot be preallocated: a block device has its space, and not every file "
                    + "system can; leave it out")
        case .failed(let errno):
            SetupFailure(
                errno,
                "cannot open the store \(path): \(errno.text); name a file in a folder that this "
                    + "user may write to, or a block device")
        case .locked:
            SetupFailure(
                .busy, "the store \(path) is in use by another process; give each VM its own path")
        case .inUse:
            SetupFailure(
                .busy,
                "the block device \(path) is mounted, or in use by another process or device, and would "
                    + "be overwritten; name one that is free")
        case .deviceTooSmall:
            SetupFailure(
                .noSpace,
                "the block device \(path) is smaller than the store's size of \(size) bytes; "
                    + "lower the size or name a larger device")
        case .notEmpty:
            SetupFailure(
                .exists,
                "the store \(path) is a file with contents, which would be overwritten; "
                    + "name a path that does not exist yet, or remove the file")
        case .neitherFileNorDevice:
            SetupFailure(
                .invalid, "the store \(path) is neither a regular file nor a block device; name one")
        case .noDirectIO:
            SetupFailure(
                .notSupported,
                "the file system of \(path) has no O_DIRECT, without which evicted pages would "
                    + "stay in RAM as page cache; name a path on another file system")
        }
    }
}
