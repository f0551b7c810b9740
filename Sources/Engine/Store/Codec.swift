import CCodec
import Kernel

/// How pages are compressed.
public enum Compression: Equatable, Sendable {
    case lz4
    /// Of `zstdLevels`.
    case zstd(level: Int)

    /// Its regular levels: those above want more memory and gain nothing on so small a page.
    public static let zstdLevels = Int(CCODEC_ZSTD_LEVEL_MIN)...Int(CCODEC_ZSTD_LEVEL_MAX)
    public static let zstdLevelDefault = Int(CCODEC_ZSTD_LEVEL_DEFAULT)
}

/// Compresses pages, in working memory of its own. One thread at a time; allocates nothing.
@safe public struct Compressor: ~Copyable, @unchecked Sendable {
    private let memory: Mapping
    /// Of zstd; nil for LZ4, whose state is the memory itself.
    private let context: UnsafeMutableRawPointer?

    /// The level must be of `Compression.zstdLevels`.
    public init(_ compression: Compression) throws(Errno) {
        switch compression {
        case .lz4:
            memory = try Mapping(length: roundUp(Int(ccodec_lz4_state_size()), to: pageSize))
            unsafe context = nil
        case .zstd(let level):
            precondition(Compression.zstdLevels.contains(level))
            let size = roundUp(
                ccodec_zstd_compressor_size(Int32(level), Int32(pageSize)), to: pageSize)
            let memory = try Mapping(length: size + pageSize)
            let context = unsafe ccodec_zstd_compressor(
                memory.base, size, Int32(level), Int32(pageSize))
            guard let context = unsafe context else { throw .noMemory }
            unsafe self.context = context
            self.memory = consume memory
        }
    }

    /// The compressed length of a page; 0 when it does not fit into `room`. The page may change
    /// meanwhile: then what comes out is worthless, and nothing else.
    public func compress(
        _ page: UnsafeRawPointer, into out: UnsafeMutableRawPointer, room: Int
    ) -> Int {
        if let context = unsafe context {
            // zstd does not promise to stay within bounds when its input changes.
            let still = unsafe memory.base + memory.length - pageSize
            unsafe still.copyMemory(from: page, byteCount: pageSize)
            return unsafe Int(
                ccodec_zstd_compress(context, still, Int32(pageSize), out, Int32(room)))
        }
        return unsafe Int(
            ccodec_lz4_compress(memory.base, page, Int32(pageSize), out, Int32(room)))
    }
}

/// Decompresses what a `Compressor` of the same kind made. One thread at a time; allocates
/// nothing.
@safe public struct Decompressor: ~Copyable, @unchecked Sendable {
    /// Of zstd; nil for LZ4, which needs none.
    private let memory: Mapping?
    private let context: UnsafeMutableRawPointer?

    public init(_ compression: Compression) throws(Errno) {
        switch compression {
        case .lz4:
            memory = nil
            unsafe context = nil
        case .zstd:
            let memory = try Mapping(
                length: roundUp(ccodec_zstd_decompressor_size(), to: pageSize))
            let context = unsafe ccodec_zstd_decompressor(memory.base, memory.length)
            guard let context = unsafe context else { throw .noMemory }
            unsafe self.context = context
            self.memory = consume memory
        }
    }

    /// False when the data are not a page that was compressed.
    public func decompress(
        _ data: UnsafeRawBufferPointer, into page: UnsafeMutableRawPointer
    ) -> Bool {
        if let context = unsafe context {
            return unsafe ccodec_zstd_decompress(
                context, data.baseAddress, Int32(data.count), page, Int32(pageSize)) == 0
        }
        return unsafe ccodec_lz4_decompress(
            data.baseAddress, Int32(data.count), page, Int32(pageSize)) == 0
    }
}
