import Kernel

/// What becomes of pages that compression does not make smaller.
public enum IncompressiblePages: Sendable {
    /// They are refused: whoever asks next may take them.
    case refuse
    /// They are kept as they are.
    case keepRaw
}

/// How a compressed store is wanted.
public struct CompressedStoreOptions: Equatable, Sendable {
    public var compression = Compression.lz4
    public var incompressible = IncompressiblePages.refuse
    /// Bytes of host memory; nil for no ceiling.
    public var bytesMax: Int?

    /// Room for a slab or two of each size class. Bytes.
    public static let bytesMin = 16 << 20

    public init(
        compression: Compression = .lz4, incompressible: IncompressiblePages = .refuse,
        bytesMax: Int? = nil
    ) {
        self.compression = compression
        self.incompressible = incompressible
        self.bytesMax = bytesMax
    }
}

/// Compressed pages in this process's own memory.
public final class CompressedStore: PageStore, @unchecked Sendable {
    public let options: CompressedStoreOptions
    public let pool: CompressedPool
    /// Worker thread only.
    public let compaction: PoolCompaction
    private let compressor: Compressor
    /// The fault thread's, and the worker's.
    private let decompressor: Decompressor
    private let workersDecompressor: Decompressor
    private let scratch: Mapping

    public init(_ options: CompressedStoreOptions = CompressedStoreOptions()) throws(Errno) {
        self.options = options
        pool = try CompressedPool(bytesMax: options.bytesMax ?? .max)
        compaction = try PoolCompaction(of: pool)
        compressor = try Compressor(options.compression)
        decompressor = try Decompressor(options.compression)
        workersDecompressor = try Decompressor(options.compression)
        scratch = try Mapping(length: pageSize)
    }

    public func put(
        _ pages: UnsafeBufferPointer<PagePut>, outcomes: UnsafeMutableBufferPointer<PutOutcome>
    ) {
        for index in pages.indices {
            unsafe outcomes[index] = put(UnsafeRawPointer(bitPattern: UInt(pages[index].address))!)
        }
    }

    private func put(_ page: UnsafeRawPointer) -> PutOutcome {
        let length = unsafe compressor.compress(page, into: scratch.base, room: SizeClass.largest)
        if length == 0 {
            guard options.incompressible == .keepRaw else { return .refused(.incompressible) }
            return unsafe keep(UnsafeRawBufferPointer(start: page, count: pageSize))
        }
        return unsafe keep(UnsafeRawBufferPointer(start: scratch.base, count: length))
    }

    private func keep(_ data: UnsafeRawBufferPointer) -> PutOutcome {
        guard let place = pool.take(length: data.count) else { return .refused(.full) }
        unsafe pool.data(place).copyMemory(from: data)
        return .stored(place: place)
    }

    public func get(
        _ place: UInt64, _ identity: PageIdentity, into buffer: FetchBuffer, token: UInt64
    ) -> GetOutcome {
        read(place, into: buffer, by: decompressor)
    }

    /// Reads a page on behalf of the worker, as `get` does.
    func readBack(_ place: UInt64, into buffer: FetchBuffer) -> GetOutcome {
        read(place, into: buffer, by: workersDecompressor)
    }

    private func read(
        _ place: UInt64, into buffer: FetchBuffer, by decompressor: borrowing Decompressor
    ) -> GetOutcome {
        let data = unsafe UnsafeRawBufferPointer(pool.data(place))
        if data.count == pageSize {
            unsafe buffer.page.copyMemory(from: data.baseAddress!, byteCount: pageSize)
            return .ready
        }
        // The pool is our own memory: data that do not decompress were overwritten.
        return unsafe decompressor.decompress(data, into: buffer.page) ? .ready : .failed(.inputOutput)
    }

    public func finish(
        _ place: UInt64, _ identity: PageIdentity, _ completion: TransferCompletion, _ buffer: FetchBuffer
    ) -> GetOutcome { preconditionFailure("reads of memory are never pending") }

    public func drop(_ place: UInt64) { pool.free(place) }
    public func trim() { pool.trim() }

    /// Memory of the bookkeeping beside the slabs, in bytes. Worker thread only.
    var metadataBytes: Int { pool.metadataBytes + compaction.metadataBytes }
}
