import CFrostline
import Engine
import Kernel

@c @implementation
public func frostline_pager_create(
    _ options: UnsafePointer<frostline_options>?, _ host: UnsafePointer<frostline_host>?,
    _ out: UnsafeMutablePointer<OpaquePointer?>?, _ error: UnsafeMutablePointer<CChar>?,
    _ errorSize: Int
) -> Int32 {
    unsafe answer(error, errorSize) { () throws(SetupFailure) in
        guard let out = unsafe out else { throw SetupFailure(.invalid, "no place for the pager was given") }
        unsafe out.pointee = nil
        guard let options = unsafe options, let host = unsafe host else {
            throw SetupFailure(.invalid, "options and host must be given")
        }
        let pager = unsafe try LivePager(
            try PagerOptions(checking: known(options)), host: try Host(checking: host.pointee))
        unsafe out.pointee = OpaquePointer(Unmanaged.passRetained(pager).toOpaque())
    }
}

@c @implementation
public func frostline_pager_destroy(_ pager: OpaquePointer?) {
    guard let pager = unsafe pager else { return }
    let retained = unsafe Unmanaged<LivePager>.fromOpaque(UnsafeRawPointer(pager))
    unsafe retained.takeUnretainedValue().stop()
    unsafe retained.release()
}

@c @implementation
public func frostline_pager_set(
    _ pager: OpaquePointer?, _ setting: UInt32, _ value: UInt64,
    _ error: UnsafeMutablePointer<CChar>?, _ errorSize: Int
) -> Int32 {
    unsafe answer(error, errorSize) { () throws(SetupFailure) in
        let pager = unsafe livePager(pager)
        let settings = pager.pager.settings
        do {
            switch setting {
            case FROSTLINE_SETTING_LIMIT.rawValue: try settings.setLimit(value)
            case FROSTLINE_SETTING_IDLE_AGE.rawValue: try settings.setIdleAge(value)
            case FROSTLINE_SETTING_MODE.rawValue: settings.setMode(try Mode(checking: value))
            case FROSTLINE_SETTING_STALL_BUDGET.rawValue: try settings.setStallBudget(millionths: value)
            case FROSTLINE_SETTING_VCPUS.rawValue: try settings.setVCPUCount(value)
            case FROSTLINE_SETTING_RUNNING.rawValue:
                pager.pager.setRunning(try isRunning(checking: value))
                // A look is due when it was, by the guest's clock.
                return
            default:
                throw SetupFailure(
                    .invalid,
                    "setting \(setting) is unknown; there are limit (1), idle age (2), mode (3), "
                        + "stall budget (4), vCPUs (5) and running (6)")
            }
        } catch let failure as SetupFailure {
            throw failure
        } catch let failure as Settings.OutOfRange {
            throw SetupFailure(.invalid, failure.reason)
        } catch {
            preconditionFailure("settings throw nothing else")
        }
        pager.settingsChanged()
    }
}

private func isRunning(checking value: UInt64) throws(SetupFailure) -> Bool {
    guard value <= 1 else {
        throw SetupFailure(
            .invalid, "running is \(value); it must be 1 while the VM runs, or 0 while it stands still")
    }
    return value == 1
}

extension Mode {
    init(checking value: UInt64) throws(SetupFailure) {
        guard let raw = UInt8(exactly: value), let mode = Mode(rawValue: raw) else {
            throw SetupFailure(
                .invalid,
                "mode \(value) is unknown; there are active (0), observe (1), off (2) and drain (3)")
        }
        self = mode
    }
}

func livePager(_ pointer: OpaquePointer?) -> LivePager {
    guard let pointer = unsafe pointer else { preconditionFailure("a null pager was passed") }
    return unsafe Unmanaged<LivePager>.fromOpaque(UnsafeRawPointer(pointer)).takeUnretainedValue()
}

private func known(_ options: UnsafePointer<frostline_options>) throws(SetupFailure) -> frostline_options {
    let known = unsafe try callerStruct(
        options, size: options.pointee.struct_size,
        leastSize: MemoryLayout<frostline_options>.offset(of: \.stall_budget)!, empty: frostline_options(),
        "frostline_options")
    unsafe try requireZero(known.reserved, "frostline_options.reserved")
    unsafe try requireZero(known.reserved3, "frostline_options.reserved3")
    return unsafe known
}

extension PagerOptions {
    init(checking options: frostline_options) throws(SetupFailure) {
        let tracker: TrackerChoice
        switch unsafe options.tracker {
        case FROSTLINE_TRACKER_AUTO.rawValue: tracker = .automatic
        case FROSTLINE_TRACKER_RWP.rawValue: tracker = .readWriteProtection
        case FROSTLINE_TRACKER_NONE.rawValue: tracker = .none
        case FROSTLINE_TRACKER_WP.rawValue: tracker = .writeProtection
        case FROSTLINE_TRACKER_ZAP.rawValue: tracker = .zapping
        default:
            throw SetupFailure(
                .invalid,
                unsafe "tracker \(options.tracker) is unknown; there are auto, rwp, wp, zap and none")
        }
        let chosen: GuardChoice
        switch unsafe options.guard {
        case FROSTLINE_GUARD_AUTO.rawValue: chosen = .automatic
        case FROSTLINE_GUARD_MOVE.rawValue: chosen = .move
        case FROSTLINE_GUARD_MINOR.rawValue: chosen = .minor
        case FROSTLINE_GUARD_FREEZE.rawValue: chosen = .freeze
        case FROSTLINE_GUARD_WRITE_PROTECT.rawValue: chosen = .writeProtect
        default:
            throw SetupFailure(
                .invalid,
                unsafe "guard \(options.guard) is unknown; there are auto, move, minor, freeze and "
                    + "write-protect")
        }
        let action: ReadErrorAction
        switch unsafe options.read_error {
        case FROSTLINE_READ_ERROR_STOP.rawValue: action = .stop
        case FROSTLINE_READ_ERROR_MACHINE_CHECK.rawValue: action = .machineCheck
        default:
            throw SetupFailure(
                .invalid,
                unsafe "read-error \(options.read_error) is unknown; there are stop and machine-check")
        }
        unsafe self.init(
            tracker: tracker, guard: chosen, store: try Self.store(options), readErrorAction: action,
            limit: options.limit, idleAge: options.idle_age)
        mode = unsafe try Mode(checking: UInt64(options.mode))
        stallBudget = unsafe options.stall_budget
        vcpuCount = unsafe max(1, Int(options.vcpus))
        compressed = unsafe try CompressedStoreOptions(checking: options)
        (seal, keySource) = unsafe try Self.seal(options)
    }

    private static func seal(
        _ options: frostline_options
    ) throws(SetupFailure) -> (TierOptions.Seal, Sealer.KeySource) {
        let seal = unsafe try TierOptions.Seal(checking: options.seal, "")
        guard seal == .off else { return (seal, unsafe try keySource(options)) }
        guard unsafe options.key == nil else {
            throw SetupFailure(.invalid, "seal off takes no key; leave it out, or seal")
        }
        return (.off, .random)
    }

    private static func keySource(_ options: frostline_options) throws(SetupFailure) -> Sealer.KeySource {
        guard let key = unsafe options.key else { return .random }
        guard unsafe options.key_length >= UInt64(FROSTLINE_KEY_MIN) else {
            throw SetupFailure(
                .invalid,
                unsafe "the key has \(options.key_length) bytes; it must have at least "
                    + "\(FROSTLINE_KEY_MIN), or leave it out for a random one")
        }
        let bytes = unsafe UnsafeRawBufferPointer(start: key, count: Int(options.key_length))
        return .derived(unsafe try SealSecret(given: bytes))
    }

    private static func store(_ options: frostline_options) throws(SetupFailure) -> StoreChoice {
        if unsafe options.tier_count > 0 { return .tiers(unsafe try tiers(options)) }
        switch unsafe options.store {
        case FROSTLINE_STORE_COMPRESSED.rawValue:
            guard unsafe options.store_path == nil, unsafe options.store_size == 0 else {
                throw SetupFailure(
                    .invalid,
                    "store compressed takes no path and no size; leave them out, or choose store file")
            }
            return .compressed
        case FROSTLINE_STORE_FILE.rawValue:
            guard let path = unsafe options.store_path else {
                throw SetupFailure(.invalid, "store file needs a path and a size; give both")
            }
            return unsafe .file(path: String(cString: path), size: options.store_size)
        default:
            throw SetupFailure(
                .invalid, unsafe "store \(options.store) is unknown; there are compressed and file")
        }
    }

    private static func tiers(_ options: frostline_options) throws(SetupFailure) -> [TierOptions] {
        guard unsafe options.store == 0, unsafe options.store_path == nil, unsafe options.store_size == 0
        else {
            throw SetupFailure(
                .invalid,
                "tiers were given, and a store as well; leave out store, its path and its size")
        }
        guard let first = unsafe options.tiers, unsafe options.tier_count <= UInt32(TierIndex.tiersMax) else {
            throw SetupFailure(
                .invalid,
                unsafe "\(options.tier_count) tiers were announced; give 1 to \(TierIndex.tiersMax) of them")
        }
        let stride = unsafe Int(first.pointee.struct_size)
        var tiers: [TierOptions] = []
        for index in unsafe 0..<Int(options.tier_count) {
            let tier = unsafe UnsafeRawPointer(first) + index * stride
            tiers.append(
                unsafe try TierOptions(checking: tier.assumingMemoryBound(to: frostline_tier.self), index))
        }
        return tiers
    }
}

extension CompressedStoreOptions {
    init(checking options: frostline_options) throws(SetupFailure) {
        self.init()
        compression = unsafe try Compression(
            checking: options.compression, level: options.compression_level, "")
        incompressible = unsafe try IncompressiblePages(checking: options.incompressible, "")
        guard let poolMax = unsafe Int(exactly: options.pool_max) else {
            throw SetupFailure(.invalid, unsafe "pool-max is \(options.pool_max) bytes, which no host has")
        }
        if poolMax != 0 { bytesMax = poolMax }
    }
}
