import CFrostline
import Engine

/// A caller's struct as this library knows it: an older caller's is shorter, and the rest is 0.
/// `size`: what it says of itself; at least `leastSize`, the bytes of its first version.
/// `name`: in messages.
func callerStruct<Struct: BitwiseCopyable>(
    _ given: UnsafePointer<Struct>, size: UInt32, leastSize: Int, empty: Struct, _ name: String
) throws(SetupFailure) -> Struct {
    guard Int(size) >= leastSize else {
        throw SetupFailure(.invalid, "\(name).struct_size is too small")
    }
    var known = empty
    unsafe withUnsafeMutableBytes(of: &known) { bytes in
        unsafe bytes.copyMemory(
            from: UnsafeRawBufferPointer(start: given, count: min(Int(size), bytes.count)))
    }
    return known
}

/// Fields without a meaning must be 0, so that they can get one. `name`: of the field, with its
/// struct or tier.
func requireZero(_ reserved: UInt32, _ name: @autoclosure () -> String) throws(SetupFailure) {
    guard reserved == 0 else {
        throw SetupFailure(
            .invalid, "\(name()) is \(reserved); it means nothing yet and must be 0: clear the struct first")
    }
}

// Choices by number, of a pager and of its tiers. `subject`: whose choice it is, before the message.

extension Compression {
    init(checking compression: UInt32, level: Int32, _ subject: String) throws(SetupFailure) {
        switch (compression, level) {
        case (FROSTLINE_COMPRESSION_LZ4.rawValue, 0): self = .lz4
        case (FROSTLINE_COMPRESSION_LZ4.rawValue, _):
            throw SetupFailure(
                .invalid, "\(subject)compression lz4 has no levels; leave the level out, or choose zstd")
        case (FROSTLINE_COMPRESSION_ZSTD.rawValue, 0): self = .zstd(level: Self.zstdLevelDefault)
        case (FROSTLINE_COMPRESSION_ZSTD.rawValue, _): self = .zstd(level: Int(level))
        default:
            throw SetupFailure(
                .invalid, "\(subject)compression \(compression) is unknown; there are lz4 and zstd")
        }
    }
}

extension IncompressiblePages {
    init(checking choice: UInt32, _ subject: String) throws(SetupFailure) {
        switch choice {
        case FROSTLINE_INCOMPRESSIBLE_REFUSE.rawValue: self = .refuse
        case FROSTLINE_INCOMPRESSIBLE_KEEP_RAW.rawValue: self = .keepRaw
        default:
            throw SetupFailure(
                .invalid, "\(subject)incompressible \(choice) is unknown; there are refuse and keep-raw")
        }
    }
}

extension TierOptions.Seal {
    init(checking seal: UInt32, _ subject: String) throws(SetupFailure) {
        switch seal {
        case FROSTLINE_SEAL_AUTO.rawValue: self = .automatic
        case FROSTLINE_SEAL_ON.rawValue: self = .on
        case FROSTLINE_SEAL_OFF.rawValue: self = .off
        default:
            throw SetupFailure(.invalid, "\(subject)seal \(seal) is unknown; there are auto, off and on")
        }
    }
}
