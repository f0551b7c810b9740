import CFrostline
import Engine
import Kernel

@c @implementation
public func frostline_pager_tier_stats(
    _ pager: OpaquePointer?, _ index: UInt32, _ stats: UnsafeMutablePointer<frostline_tier_stats>?
) {
    guard let stats = unsafe stats else { return }
    let pager = unsafe livePager(pager).pager
    var filled = unsafe pager.store.reading { unsafe snapshot(pager, Int(index)) }
    unsafe copyKnownFields(of: &filled, to: stats)
}

private func snapshot(_ pager: Pager<LinuxKernel>, _ index: Int) -> frostline_tier_stats {
    var stats = unsafe frostline_tier_stats()
    guard index < TierIndex.tiersMax, let tier = pager.store.tier(TierIndex(index + 1)) else {
        unsafe stats.state = FROSTLINE_TIER_REMOVED.rawValue
        return unsafe stats
    }
    let pages = pager.counters.pages(in: tier.index)
    unsafe stats.kind = tier.kind.rawValue
    unsafe stats.state = UInt32(tier.state.rawValue)
    unsafe stats.stored_pages = UInt64(max(0, pages))
    unsafe stats.stored_bytes = stats.stored_pages * UInt64(pageSize)
    unsafe stats.copy_pages = UInt64(max(0, tier.objectCount - pages))
    unsafe stats.cost = UInt64(tier.backing.cost)
    unsafe stats.payload = UInt64(tier.backing.payload)
    unsafe stats.max_bytes = UInt64(tier.maxBytes)
    unsafe stats.writes = tier.writes.load(ordering: .relaxed)
    unsafe stats.reads = tier.reads.load(ordering: .relaxed)
    unsafe stats.demotions = tier.demotions.load(ordering: .relaxed)
    unsafe stats.write_errors = tier.writeErrors.load(ordering: .relaxed)
    unsafe stats.read_errors = tier.failedReads
    if let traffic = tier.traffic {
        unsafe stats.write_transfers = traffic.writes.load(ordering: .relaxed)
        unsafe stats.write_bytes = traffic.writtenBytes.load(ordering: .relaxed)
        unsafe stats.read_transfers = traffic.reads.load(ordering: .relaxed)
        unsafe stats.read_bytes = traffic.readBytes.load(ordering: .relaxed)
    }
    if case .log(let log) = tier.backing, let traffic = tier.traffic {
        // Two counters that move while they are read.
        unsafe stats.in_flight = UInt64(max(0, traffic.inFlight.load(ordering: .relaxed)))
        unsafe stats.in_flight_max = UInt64(log.inFlightMax.transfers)
        unsafe stats.in_flight_bytes = UInt64(max(0, traffic.inFlightBytes.load(ordering: .relaxed)))
        unsafe stats.in_flight_bytes_max = UInt64(log.inFlightMax.bytes)
    }
    unsafe stats.seal = cString(tier.backing.cipher?.name ?? "none")
    tier.device?.forEachExport { unsafe fillConnections(&stats, $0) }
    return unsafe stats
}

private func fillConnections(_ stats: inout frostline_tier_stats, _ export: NBDDevice) {
    let counters = export.counters
    unsafe stats.connections += UInt32(export.connectionCount)
    unsafe stats.connected += UInt32(max(0, counters.connected.load(ordering: .relaxed)))
    unsafe stats.lost_connections += counters.losses.load(ordering: .relaxed)
    unsafe stats.reconnections += counters.reconnections.load(ordering: .relaxed)
    unsafe stats.failed_reconnections += counters.failedAttempts.load(ordering: .relaxed)
    unsafe stats.refused_reconnections += counters.refusals.load(ordering: .relaxed)
    unsafe stats.repeated_requests += counters.resubmissions.load(ordering: .relaxed)
    unsafe stats.timed_out_requests += counters.timeouts.load(ordering: .relaxed)
    unsafe stats.failed_reads += counters.readErrors.load(ordering: .relaxed)
    unsafe stats.failed_writes += counters.writeErrors.load(ordering: .relaxed)
}

@c @implementation
public func frostline_pager_add_tier(
    _ pager: OpaquePointer?, _ tier: UnsafePointer<frostline_tier>?,
    _ index: UnsafeMutablePointer<UInt32>?, _ error: UnsafeMutablePointer<CChar>?, _ errorSize: Int
) -> Int32 {
    unsafe answer(error, errorSize) { () throws(SetupFailure) in
        guard let tier = unsafe tier, let index = unsafe index else {
            throw SetupFailure(.invalid, "a tier and a place for its index must be given")
        }
        let live = unsafe livePager(pager)
        let options = unsafe try TierOptions(checking: tier, live.nextTier)
        unsafe index.pointee = UInt32(try live.addTier(options))
    }
}

@c @implementation
public func frostline_pager_remove_tier(
    _ pager: OpaquePointer?, _ index: UInt32, _ error: UnsafeMutablePointer<CChar>?, _ errorSize: Int
) -> Int32 {
    unsafe answer(error, errorSize) { () throws(SetupFailure) in
        try unsafe livePager(pager).removeTier(Int(index))
    }
}

extension TierOptions {
    /// `index`: how messages call it.
    init(checking given: UnsafePointer<frostline_tier>, _ index: Int) throws(SetupFailure) {
        let tier = unsafe try known(given, index)
        let kind = unsafe try Kind(checking: tier, index)
        unsafe self.init(kind, maxBytes: tier.max_bytes)
        let subject = "tier \(index) (\(kind.name)): "
        func refusal(_ reason: String) -> SetupFailure { SetupFailure(.invalid, subject + reason) }
        compression = unsafe try Compression(
            checking: tier.compression, level: tier.compression_level, subject)
        incompressible = unsafe try IncompressiblePages(checking: tier.incompressible, subject)
        seal = unsafe try Seal(checking: tier.seal, subject)
        switch unsafe tier.preallocate {
        case 0: preallocates = false
        case 1: preallocates = true
        default: throw refusal(unsafe "preallocate is \(tier.preallocate); it is 0 or 1")
        }
        tlsCertificates = unsafe tier.tls_certificates.map { unsafe String(cString: $0) }
        connections = unsafe Int(tier.connections)
        timeoutSeconds = unsafe Int(tier.timeout_seconds)
        readLimits = unsafe RateLimits(transfers: tier.read_iops_max, bytes: tier.read_bytes_max)
        writeLimits = unsafe RateLimits(transfers: tier.write_iops_max, bytes: tier.write_bytes_max)
        if let mirror = unsafe tier.mirror {
            if unsafe mirror.pointee.mirror != nil {
                throw refusal("a mirror has no mirror of its own; leave it out")
            }
            self.mirror = Mirror(unsafe try TierOptions(checking: mirror, index))
        }
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

private func known(
    _ given: UnsafePointer<frostline_tier>, _ index: Int
) throws(SetupFailure) -> frostline_tier {
    let name = "tier \(index): frostline_tier"
    let known = unsafe try callerStruct(
        given, size: given.pointee.struct_size,
        leastSize: MemoryLayout<frostline_tier>.offset(of: \.mirror)!, empty: frostline_tier(), name)
    unsafe try requireZero(known.reserved, "\(name).reserved")
    return unsafe known
}
