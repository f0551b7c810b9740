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

/// Compressed pages in this process's own memory, sealed on demand: against who reads that memory
/// where the host has swapped or dumped it, and so that damage to it is noticed.
public final class CompressedStore: PageStore, @unchecked Sendable {
    public let options: CompressedStoreOptions
    public let pool: CompressedPool
    private let tier: TierIndex
    private let sealer: Sealer?
    /// Objects that were sealed. Worker thread only.
    private var serial: UInt64 = 0
    /// Worker thread only.
    public let compaction: PoolCompaction
    private let compressor: Compressor
    /// The fault thread's, and the worker's.
    private let decompressor: Decompressor
    private let workersDecompressor: Decompressor
    private let scratch: Mapping

    /// `sealer`: of this store's own.
    public init(
        _ options: CompressedStoreOptions = CompressedStoreOptions(), tier: TierIndex = TierIndex(1),
        sealer: Sealer? = nil
    ) throws(Errno) {
        self.options = options
        self.tier = tier
        self.sealer = sealer
        pool = try CompressedPool(bytesMax: options.bytesMax ?? .max, sealed: sealer != nil)
        compaction = try PoolCompaction(of: pool)
        compressor = try Compressor(options.compression)
        decompressor = try Decompressor(options.compression)
        workersDecompressor = try Decompressor(options.compression)
        scratch = try Mapping(length: pageSize)
    }

    public var cipher: Sealer.Cipher? { sealer?.cipher }

    public func put(
        _ pages: UnsafeBufferPointer<PagePut>, outcomes: UnsafeMutableBufferPointer<PutOutcome>
    ) {
        for index in pages.indices {
            let page = unsafe UnsafeRawPointer(bitPattern: UInt(pages[index].address))!
            unsafe outcomes[index] = put(page, pages[index].identity)
        }
    }

    private func put(_ page: UnsafeRawPointer, _ identity: PageIdentity) -> PutOutcome {
        let length = unsafe compressor.compress(page, into: scratch.base, room: SizeClass.largest)
        if length == 0 {
            guard options.incompressible == .keepRaw else { return .refused(.incompressible) }
            return unsafe keep(UnsafeRawBufferPointer(start: page, count: pageSize), identity)
        }
        return unsafe keep(UnsafeRawBufferPointer(start: scratch.base, count: length), identity)
    }

    private func keep(_ data: UnsafeRawBufferPointer, _ identity: PageIdentity) -> PutOutcome {
        guard let place = pool.take(length: data.count) else { return .refused(.full) }
        if let sealer {
            unsafe seal(data, place, identity, by: sealer)
        } else {
            unsafe pool.data(place).copyMemory(from: data)
        }
        return .stored(place: place)
    }

    private func seal(
        _ data: UnsafeRawBufferPointer, _ place: UInt64, _ identity: PageIdentity, by sealer: Sealer
    ) {
        serial += 1
        let seal = unsafe pool.seal(place).baseAddress!
        unsafe seal.storeBytes(of: serial, as: UInt64.self)
        unsafe sealer.seal(
            data.baseAddress!, length: data.count, to: pool.data(place).baseAddress!,
            tag: seal + Self.tagOffset, Sealer.Position(serial: serial, sector: 0), tier, identity)
    }

    private static let tagOffset = Slab.sealSize - Sealer.tagLength

    public func get(
        _ place: UInt64, _ identity: PageIdentity, into buffer: FetchBuffer, token: UInt64
    ) -> GetOutcome {
        read(place, identity, into: buffer, by: decompressor)
    }

    /// Reads a page on behalf of the worker, as `get` does.
    func readBack(_ place: UInt64, _ identity: PageIdentity, into buffer: FetchBuffer) -> GetOutcome {
        read(place, identity, into: buffer, by: workersDecompressor)
    }

    private func read(
        _ place: UInt64, _ identity: PageIdentity, into buffer: FetchBuffer,
        by decompressor: borrowing Decompressor
    ) -> GetOutcome {
        var data = unsafe UnsafeRawBufferPointer(pool.data(place))
        if let sealer {
            let contents = unsafe data.count == pageSize ? buffer.page : buffer.raw
            guard unsafe open(data, place, identity, to: contents, by: sealer) else {
                return .failed(.badMessage)
            }
            unsafe data = UnsafeRawBufferPointer(start: contents, count: data.count)
        }
        if data.count == pageSize {
            if sealer == nil {
                unsafe buffer.page.copyMemory(from: data.baseAddress!, byteCount: pageSize)
            }
            return .ready
        }
        // The pool is our own memory: data that do not decompress were overwritten.
        return unsafe decompressor.decompress(data, into: buffer.page) ? .ready : .failed(.inputOutput)
    }

    private func open(
        _ data: UnsafeRawBufferPointer, _ place: UInt64, _ identity: PageIdentity,
        to contents: UnsafeMutableRawPointer, by sealer: Sealer
    ) -> Bool {
        let seal = unsafe pool.seal(place).baseAddress!
        let serial = unsafe seal.load(as: UInt64.self)
        return unsafe sealer.open(
            data.baseAddress!, tag: seal + Self.tagOffset, length: data.count, to: contents,
            Sealer.Position(serial: serial, sector: 0), tier, identity)
    }

    public func finish(
        _ place: UInt64, _ identity: PageIdentity, _ completion: TransferCompletion, _ buffer: FetchBuffer
    ) -> GetOutcome { preconditionFailure("reads of memory are never pending") }

    public func drop(_ place: UInt64) { pool.free(place) }
    public func trim() { pool.trim() }

    /// Memory of the bookkeeping beside the slabs, in bytes. Worker thread only.
    var metadataBytes: Int { pool.metadataBytes + compaction.metadataBytes }
}
