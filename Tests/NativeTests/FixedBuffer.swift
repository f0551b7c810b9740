import Glibc
import Kernel
import Testing

/// A registered buffer of an io_uring: memory that the kernel pins for as long as the ring
/// lives, as it does for direct I/O and for devices. One read at a time goes into it.
struct FixedBuffer {
    private let ring: Int32
    private let start: UInt64
    private let length: Int
    /// The queue of one submission, and the submission itself.
    private let queue: UnsafeMutableRawPointer
    private let entry: UnsafeMutableRawPointer
    private let tailOffset: Int

    private enum Number {
        static let setUp = 425
        static let enter = 426
        static let register = 427
    }
    private static let entriesOffset = 0x1000_0000
    private static let getEvents = 1
    private static let readFixed: UInt8 = 4

    init(_ start: UInt64, pages: Int) throws {
        var parameters = [UInt32](repeating: 0, count: 30)
        let ring = parameters.withUnsafeMutableBytes {
            Self.syscall(Number.setUp, 1, Int(bitPattern: $0.baseAddress!))
        }
        try #require(ring >= 0)
        self.ring = Int32(ring)
        self.start = start
        length = pages * pageSize
        tailOffset = Int(parameters[11])  // sq_off.tail
        queue = try Self.map(self.ring, 0)
        entry = try Self.map(self.ring, Self.entriesOffset)
        var buffer = iovec(iov_base: UnsafeMutableRawPointer(bitPattern: UInt(start)), iov_len: length)
        let answer = withUnsafeMutablePointer(to: &buffer) {
            Self.syscall(Number.register, ring, 0, Int(bitPattern: $0), 1)
        }
        try #require(answer == 0)
        // sq_off.array: the first submission is the only one.
        queue.storeBytes(of: 0, toByteOffset: Int(parameters[16]), as: UInt32.self)
    }

    /// A read that ends when there is something to be read.
    func beginRead(from descriptor: Int32) throws {
        memset(entry, 0, 64)
        entry.storeBytes(of: Self.readFixed, as: UInt8.self)
        entry.storeBytes(of: descriptor, toByteOffset: 4, as: Int32.self)
        entry.storeBytes(of: UInt64.max, toByteOffset: 8, as: UInt64.self)
        entry.storeBytes(of: start, toByteOffset: 16, as: UInt64.self)
        entry.storeBytes(of: UInt32(length), toByteOffset: 24, as: UInt32.self)
        let tail = queue.load(fromByteOffset: tailOffset, as: UInt32.self)
        queue.storeBytes(of: tail &+ 1, toByteOffset: tailOffset, as: UInt32.self)
        try #require(Self.syscall(Number.enter, Int(ring), 1) == 1)
    }

    func waitForRead() throws {
        try #require(Self.syscall(Number.enter, Int(ring), 0, 1, Self.getEvents) == 0)
    }

    func release() {
        munmap(queue, pageSize)
        munmap(entry, pageSize)
        close(ring)
    }

    private static func map(_ ring: Int32, _ offset: Int) throws -> UnsafeMutableRawPointer {
        let mapped = mmap(nil, pageSize, PROT_READ | PROT_WRITE, MAP_SHARED, ring, offset)
        guard let mapped, mapped != MAP_FAILED else { throw Errno(errno) }
        return mapped
    }

    /// Swift does not import variadic functions.
    private static func syscall(
        _ number: Int, _ a: Int, _ b: Int, _ c: Int = 0, _ d: Int = 0
    ) -> Int {
        typealias Call = @convention(c) (Int, Int, Int, Int, Int, Int, Int) -> Int
        return unsafeBitCast(dlsym(nil, "syscall"), to: Call.self)(number, a, b, c, d, 0, 0)
    }
}
