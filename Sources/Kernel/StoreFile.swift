import CLinux

/// A file or block device that holds evicted pages, opened O_DIRECT and locked,
/// with one ring for the fault thread's reads and one for the worker's writes.
@safe public final class StoreFile: @unchecked Sendable {
    private let descriptor: Descriptor
    private let fetchRing: OpaquePointer
    private let evictRing: OpaquePointer
    /// Bytes.
    public let size: UInt64
    /// What O_DIRECT asks for: 512 to 4096 bytes.
    let blockSize: Int
    private let isPreallocated: Bool

    public enum OpenFailure: Error, Equatable {
        case failed(Errno)
        /// Another process has the file.
        case locked
        /// The block device is mounted, or another device or process has it.
        case inUse
        case deviceTooSmall
        case notEmpty
        case neitherFileNorDevice
        case noDirectIO
    }

    /// Opens `path`, creating a file of mode 0600 and `size` bytes where there is none: sparse, or,
    /// when it `preallocates`, with all its space, which is not given back before it is closed. A
    /// block device must be in no other use.
    /// EOPNOTSUPP then: it is no file, or its file system cannot.
    public init(path: String, size: UInt64, preallocates: Bool = false) throws(OpenFailure) {
        let number = unsafe path.withCString { unsafe clinux_store_file_open($0, size, preallocates) }
        if number < 0 { throw Self.failure(number) }
        let descriptor = Descriptor(adopting: number)
        let block = clinux_store_block_size(number)
        if block < 0 { throw Self.failure(block) }
        // Larger ones would not fit the buffers.
        guard block <= pageSize else { throw .noDirectIO }
        blockSize = max(Int(block), 512)
        var fetch: OpaquePointer?
        if let errno = unsafe Errno.from(clinux_ring_open(number, UInt32(TransferQueue.depth), &fetch)) {
            throw .failed(errno)
        }
        var evict: OpaquePointer?
        if let errno = unsafe Errno.from(clinux_ring_open(number, UInt32(TransferQueue.depth), &evict)) {
            unsafe clinux_ring_close(fetch)
            throw .failed(errno)
        }
        self.descriptor = descriptor
        unsafe fetchRing = fetch!
        unsafe evictRing = evict!
        self.size = size
        isPreallocated = preallocates
    }

    private static func failure(_ answer: Int32) -> OpenFailure {
        switch answer {
        case Int32(CLINUX_STORE_LOCKED): .locked
        case Int32(CLINUX_STORE_TOO_SMALL): .deviceTooSmall
        case Int32(CLINUX_STORE_NOT_EMPTY): .notEmpty
        case Int32(CLINUX_STORE_KIND): .neitherFileNorDevice
        case Int32(CLINUX_STORE_NO_DIRECT): .noDirectIO
        case Int32(CLINUX_STORE_IN_USE): .inUse
        default: .failed(Errno(-answer))
        }
    }

    var fetchDescriptor: Int32 { unsafe clinux_ring_descriptor(fetchRing) }

    func offer(_ queue: TransferQueue, memory: UInt64, length: Int) {
        unsafe clinux_ring_offer(ring(queue), memory, UInt64(length))
    }

    func letGo(_ queue: TransferQueue) { unsafe clinux_ring_let_go(ring(queue)) }

    private func ring(_ queue: TransferQueue) -> OpaquePointer {
        unsafe queue == .fetch ? fetchRing : evictRing
    }

    func read(_ transfer: Transfer) -> Errno? {
        unsafe .from(
            clinux_ring_read(
                fetchRing, UnsafeMutableRawPointer(bitPattern: UInt(transfer.memory)),
                UInt32(transfer.length), transfer.offset, transfer.token))
    }

    func startReads() -> Bool { unsafe clinux_ring_start(fetchRing) }

    func write(_ transfer: Transfer) -> Errno? {
        let answer = unsafe clinux_ring_write(
            evictRing, UnsafeRawPointer(bitPattern: UInt(transfer.memory)),
            UInt32(transfer.length), transfer.offset, transfer.token)
        // What is not begun now is by `reap`.
        if answer == 0 { _ = unsafe clinux_ring_start(evictRing) }
        return .from(answer)
    }

    /// Begun by `reap`.
    func readBack(_ transfer: Transfer) -> Errno? {
        unsafe .from(
            clinux_ring_read(
                evictRing, UnsafeMutableRawPointer(bitPattern: UInt(transfer.memory)),
                UInt32(transfer.length), transfer.offset, transfer.token))
    }

    func discard(offset: UInt64, length: UInt64) -> Errno? {
        isPreallocated ? .notSupported : .from(clinux_store_discard(descriptor.number, offset, length))
    }

    func allocate(offset: UInt64, length: UInt64) -> Errno? {
        isPreallocated ? .notSupported : .from(clinux_store_allocate(descriptor.number, offset, length))
    }

    func reap(
        _ queue: TransferQueue, into completions: UnsafeMutableBufferPointer<TransferCompletion>,
        wait: Bool
    ) -> Int {
        let ring = unsafe ring(queue)
        return unsafe withUnsafeTemporaryAllocation(of: clinux_completion.self, capacity: completions.count) {
            raw in
            let count = unsafe clinux_ring_reap(ring, raw.baseAddress!, Int32(raw.count), wait)
            precondition(count >= 0, "waiting on our own ring failed")
            for index in 0..<Int(count) {
                unsafe completions[index] = TransferCompletion(
                    token: raw[index].token, result: raw[index].result)
            }
            return Int(count)
        }
    }

    deinit {
        unsafe clinux_ring_close(fetchRing)
        unsafe clinux_ring_close(evictRing)
    }
}
