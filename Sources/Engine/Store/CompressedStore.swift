import CCodec
import Kernel

/// Pages compressed with LZ4 into this process's own memory.
public final class CompressedStore: PageStore, @unchecked Sendable {
    public let pool: CompressedPool
    /// Working memory of the one compressing thread.
    private let codecState: Mapping
    private let scratch: Mapping

    /// A store of at most `capacity` bytes of host memory.
    public init(capacity: Int) throws(Errno) {
        pool = try CompressedPool(capacity: capacity)
        codecState = try Mapping(length: roundUp(Int(ccodec_lz4_state_size()), to: pageSize))
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
        let length = unsafe Int(
            ccodec_lz4_compress(
                codecState.base, page, Int32(pageSize), scratch.base, Int32(SizeClass.largest)))
        if length == 0 { return .refused(.incompressible) }
        guard let place = pool.allocate(length: length) else { return .refused(.full) }
        unsafe pool.data(place).copyMemory(
            from: UnsafeRawBufferPointer(start: scratch.base, count: length))
        return .stored(place: place)
    }

    public func get(
        _ place: UInt64, _ identity: PageIdentity, into buffer: FetchBuffer, token: UInt64
    ) -> GetOutcome {
        let data = unsafe pool.data(place)
        let answer = unsafe ccodec_lz4_decompress(
            data.baseAddress, Int32(data.count), buffer.page, Int32(pageSize))
        // The pool is our own memory: data that do not decompress were overwritten.
        return answer == 0 ? .ready : .failed(.inputOutput)
    }

    public func finish(
        _ place: UInt64, _ identity: PageIdentity, _ result: Int32, _ buffer: FetchBuffer
    ) -> Errno? { preconditionFailure("reads of memory are never pending") }

    public func drop(_ place: UInt64) { pool.free(place) }
    public func trim() { pool.trim() }
}
