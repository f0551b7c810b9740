import CFrostline
import Engine
import Kernel

@c @implementation
public func frostline_pager_tier_stats(
    _ pager: OpaquePointer?, _ index: UInt32, _ stats: UnsafeMutablePointer<frostline_tier_stats>?
) {
    guard let stats = unsafe stats else { return }
    var filled = snapshot(unsafe livePager(pager).pager, Int(index))
    unsafe copyKnownFields(of: &filled, to: stats)
}

private func snapshot(_ pager: Pager<LinuxKernel>, _ index: Int) -> frostline_tier_stats {
    var stats = frostline_tier_stats()
    guard index < pager.store.tiers.count else {
        stats.state = FROSTLINE_TIER_REMOVED.rawValue
        return stats
    }
    stats.stored_pages = UInt64(max(0, pager.counters.pages(in: TierIndex(index + 1))))
    stats.stored_bytes = stats.stored_pages * UInt64(pageSize)
    switch pager.store.tiers[index] {
    case .compressed(let store):
        stats.kind = FROSTLINE_TIER_COMPRESSED.rawValue
        stats.cost = UInt64(store.pool.heldBytes)
        stats.payload = UInt64(store.pool.payloadBytes)
        stats.max_bytes = UInt64(store.options.bytesMax ?? 0)
    case .log(let store):
        stats.kind = store.device.isRemote ? FROSTLINE_TIER_NBD.rawValue : FROSTLINE_TIER_FILE.rawValue
        stats.cost = UInt64(store.usedBytes)
        stats.payload = stats.cost
        stats.max_bytes = UInt64(store.capacity)
    }
    return stats
}

@c @implementation
public func frostline_pager_add_tier(
    _ pager: OpaquePointer?, _ tier: UnsafePointer<frostline_tier>?,
    _ index: UnsafeMutablePointer<UInt32>?, _ error: UnsafeMutablePointer<CChar>?, _ errorSize: Int
) -> Int32 {
    unsafe answer(error, errorSize) { () throws(SetupFailure) in
        throw SetupFailure(.notSupported, "adding tiers is not built yet")
    }
}

@c @implementation
public func frostline_pager_remove_tier(
    _ pager: OpaquePointer?, _ index: UInt32, _ error: UnsafeMutablePointer<CChar>?, _ errorSize: Int
) -> Int32 {
    unsafe answer(error, errorSize) { () throws(SetupFailure) in
        throw SetupFailure(.notSupported, "removing tiers is not built yet")
    }
}

extension TierOptions {
    /// `index`: how messages call it.
    init(checking given: UnsafePointer<frostline_tier>, _ index: Int) throws(SetupFailure) {
        let tier = unsafe try known(given, index)
        let kind = unsafe try Kind(checking: tier, index)
        unsafe self.init(kind, maxBytes: tier.max_bytes)
        func refusal(_ reason: String) -> SetupFailure {
            SetupFailure(.invalid, "tier \(index) (\(kind.name)): \(reason)")
        }
        switch unsafe (tier.compression, tier.compression_level) {
        case (FROSTLINE_COMPRESSION_LZ4.rawValue, 0): compression = .lz4
        case (FROSTLINE_COMPRESSION_LZ4.rawValue, _):
            throw refusal("lz4 has no levels; leave the level out, or choose zstd")
        case (FROSTLINE_COMPRESSION_ZSTD.rawValue, let level):
            compression = .zstd(level: level == 0 ? Compression.zstdLevelDefault : Int(level))
        default:
            throw refusal(unsafe "compression \(tier.compression) is unknown; there are lz4 and zstd")
        }
        switch unsafe tier.incompressible {
        case FROSTLINE_INCOMPRESSIBLE_REFUSE.rawValue: incompressible = .refuse
        case FROSTLINE_INCOMPRESSIBLE_KEEP_RAW.rawValue: incompressible = .keepRaw
        default:
            throw refusal(
                unsafe "what becomes of incompressible pages is \(tier.incompressible); there are refuse "
                    + "and keep-raw")
        }
        switch unsafe tier.seal {
        case FROSTLINE_SEAL_AUTO.rawValue: seal = .automatic
        case FROSTLINE_SEAL_OFF.rawValue: seal = .off
        default: throw refusal(unsafe "seal \(tier.seal) is unknown; there are auto and off")
        }
        tlsCertificates = unsafe tier.tls_certificates.map { unsafe String(cString: $0) }
        connections = unsafe Int(tier.connections)
        timeoutSeconds = unsafe Int(tier.timeout_seconds)
        readLimits = unsafe RateLimits(transfers: tier.read_iops_max, bytes: tier.read_bytes_max)
        writeLimits = unsafe RateLimits(transfers: tier.write_iops_max, bytes: tier.write_bytes_max)
    }
}

extension TierOptions.Kind {
    fileprivate init(checking tier: frostline_tier, _ index: Int) throws(SetupFailure) {
        let path = unsafe tier.path.map { unsafe String(cString: $0) }
        func refusal(_ reason: String) -> SetupFailure {
            SetupFailure(.invalid, "tier \(index) \(reason)")
        }
        switch unsafe (tier.kind, path) {
        case (FROSTLINE_TIER_COMPRESSED.rawValue, nil): self = .compressed
        case (FROSTLINE_TIER_COMPRESSED.rawValue, _):
            throw refusal("(compressed): memory has no path; leave it out, or choose kind file")
        case (FROSTLINE_TIER_FILE.rawValue, let path?): self = .file(path: path)
        case (FROSTLINE_TIER_FILE.rawValue, nil):
            throw refusal("(file): it needs a path and a size; give both")
        case (FROSTLINE_TIER_NBD.rawValue, let uri?): self = .nbd(uri: uri)
        case (FROSTLINE_TIER_NBD.rawValue, nil):
            throw refusal("(nbd): it needs a URI, such as nbd://host/export; give one")
        default:
            throw refusal(unsafe "is of kind \(tier.kind); there are compressed, file and nbd")
        }
    }
}

/// The caller's tier: an older caller has a shorter struct, the rest is 0.
private func known(
    _ given: UnsafePointer<frostline_tier>, _ index: Int
) throws(SetupFailure) -> frostline_tier {
    let size = unsafe Int(given.pointee.struct_size)
    guard unsafe size >= MemoryLayout<frostline_tier>.size else {
        throw SetupFailure(.invalid, "tier \(index): frostline_tier.struct_size is too small")
    }
    var known = unsafe frostline_tier()
    unsafe withUnsafeMutableBytes(of: &known) { bytes in
        unsafe bytes.copyMemory(from: UnsafeRawBufferPointer(start: given, count: min(size, bytes.count)))
    }
    return unsafe known
}
