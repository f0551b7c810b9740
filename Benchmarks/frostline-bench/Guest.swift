import CBareLoops
import CCodec
import Kernel

/// Memory as a guest would have it: pages that LZ4 halves, each with contents of its
/// own. It is measured in parts of a few milliseconds, so that turns are short and a
/// busy neighbour spoils few of them; within a part, pages are touched in an order that
/// no hardware guesses.
final class Guest {
    let mapping: Mapping
    let pageCount: Int
    /// Of its memory's file, while that must stay open.
    var descriptor: Int32?
    private let allParts: [UInt32]

    static let pagesPerPart = 1024

    init(pageCount: Int) throws {
        precondition(pageCount % Self.pagesPerPart == 0)
        // One page more: a bare server stops on it.
        mapping = try Mapping(length: (pageCount + 1) * pageSize, alignment: hugePageSize)
        self.pageCount = pageCount
        allParts = stride(from: 0, to: pageCount, by: Self.pagesPerPart).flatMap { first in
            (UInt32(first)..<UInt32(first + Self.pagesPerPart)).shuffled()
        }
        for page in 0..<pageCount { bench_fill(base + page * pageSize, UInt64(page)) }
    }

    deinit {
        if let descriptor { bare_close(descriptor) }
    }

    var base: UnsafeMutableRawPointer { mapping.base }
    var start: UInt64 { UInt64(UInt(bitPattern: mapping.base)) }
    var length: UInt64 { UInt64(pageCount * pageSize) }
    var partCount: Int { pageCount / Self.pagesPerPart }

    /// The pages of a part; rounds go from part to part and around.
    func pages(ofPart part: Int) -> Range<Int> {
        let first = part % partCount * Self.pagesPerPart
        return first..<first + Self.pagesPerPart
    }

    /// Other memory of the same contents.
    func copy() throws -> Guest {
        let other = try Guest(pageCount: pageCount)
        other.base.copyMemory(from: base, byteCount: Int(length))
        return other
    }

    /// All pages, a part after the other.
    var order: ArraySlice<UInt32> { allParts[...] }

    /// A part's pages in the order of touching.
    func order(ofPart part: Int) -> ArraySlice<UInt32> { allParts[pages(ofPart: part)] }

    func drop(part: Int) {
        let pages = pages(ofPart: part)
        mapping.release(offset: pages.lowerBound * pageSize, length: pages.count * pageSize)
    }

    /// Times one read of every page of a part, nanoseconds; at `other`, of the same contents there.
    func touch(part: Int, check: Bool = true, at other: UnsafeMutableRawPointer? = nil) -> [UInt32] {
        let order = order(ofPart: part)
        return [UInt32](unsafeUninitializedCapacity: order.count) { times, count in
            let sum = order.withUnsafeBufferPointer {
                bench_touch(other ?? base, $0.baseAddress!, Int32($0.count), times.baseAddress!)
            }
            precondition(!check || sum == Self.sum(order), "a page came back wrong")
            count = order.count
        }
    }

    /// Changes the last word of every page of a part, which nobody checks.
    func write(part: Int) {
        for page in pages(ofPart: part) {
            let word = base + (page + 1) * pageSize - 8
            word.storeBytes(of: word.load(as: UInt64.self) &+ 1, as: UInt64.self)
        }
    }

    /// Contents that no codec makes smaller; the first words stay.
    func fillWithNoise() {
        var state: UInt64 = 1
        for page in 0..<pageCount {
            for offset in stride(from: 8, to: pageSize, by: 8) {
                state ^= state << 13
                state ^= state >> 7
                state ^= state << 17
                (base + page * pageSize).storeBytes(of: state, toByteOffset: offset, as: UInt64.self)
            }
        }
    }

    @inline(__always)
    func touch(_ page: Int, isWrite: Bool) {
        if isWrite {
            bench_write(base, UInt32(page))
        } else {
            _ = bench_read(base, UInt32(page))
        }
    }

    /// Waits until pages are there.
    func bringBack(_ pages: Range<Int>) {
        for page in pages { touch(page, isWrite: false) }
    }

    /// Reads a part from its first page to its last; pages per second.
    func touchInOrder(part: Int) -> Double {
        let order = pages(ofPart: part).map { UInt32($0) }
        var elapsed: UInt64 = 0
        let sum = order.withUnsafeBufferPointer {
            bench_touch_threads(base, $0.baseAddress!, Int32($0.count), 1, 0, &elapsed)
        }
        precondition(sum == Self.sum(order[...]), "a page came back wrong")
        return Double(order.count) * 1e9 / Double(elapsed)
    }

    /// Reads a part from several threads, which take turns on the first `cpus` CPUs (0: run
    /// anywhere); pages per second. At `other`, of the same contents there.
    func touch(
        part: Int, threads: Int, cpus: Int32, at other: UnsafeMutableRawPointer? = nil
    ) -> Double {
        let order = order(ofPart: part)
        var elapsed: UInt64 = 0
        let sum = order.withUnsafeBufferPointer {
            bench_touch_threads(
                other ?? base, $0.baseAddress!, Int32($0.count), Int32(threads), cpus, &elapsed)
        }
        precondition(sum == Self.sum(order), "a page came back wrong")
        return Double(order.count) * 1e9 / Double(elapsed)
    }

    /// The first word of a page is its number.
    private static func sum(_ order: ArraySlice<UInt32>) -> UInt64 {
        order.reduce(0) { $0 + UInt64($1) }
    }
}

/// The guest's pages as LZ4 leaves them, packed; and LZ4 alone over all of them.
final class CompressedPages {
    private(set) var data: [UInt8] = []
    private(set) var offsets: [UInt64] = [0]
    private let pageCount: Int
    private let state: UnsafeMutableRawPointer
    private let out = UnsafeMutableRawPointer.allocate(byteCount: 2 * pageSize, alignment: pageSize)

    init(of guest: Guest) {
        pageCount = guest.pageCount
        let stateSize = Int(ccodec_lz4_state_size())
        state = .allocate(byteCount: stateSize, alignment: 16)
        state.initializeMemory(as: UInt8.self, repeating: 0, count: stateSize)
        for page in 0..<pageCount {
            let length = ccodec_lz4_compress(
                state, guest.base + page * pageSize, Int32(pageSize), out, Int32(2 * pageSize))
            data += UnsafeRawBufferPointer(start: out, count: Int(length))
            offsets.append(UInt64(data.count))
        }
    }

    deinit {
        state.deallocate()
        out.deallocate()
    }

    /// Uncompressed to compressed.
    var ratio: Double { Double(pageCount * pageSize) / Double(data.count) }

    /// LZ4 compression alone, of the guest's own pages or copies of them.
    func compress(_ pages: Range<Int>, at base: UnsafeRawPointer, room: Int) {
        for page in pages {
            let length = ccodec_lz4_compress(
                state, base + page * pageSize, Int32(pageSize), out, Int32(room))
            precondition(length > 0)
        }
    }

    /// Copies a page's compressed data.
    func copy(_ page: Int, to target: UnsafeMutableRawPointer) {
        let bytes = Int(offsets[page])..<Int(offsets[page + 1])
        data.withUnsafeBytes {
            target.copyMemory(from: $0.baseAddress! + bytes.lowerBound, byteCount: bytes.count)
        }
    }

    /// LZ4 decompression alone.
    func decompress(_ order: ArraySlice<UInt32>) {
        data.withUnsafeBytes { data in
            for page in order {
                let from = Int(offsets[Int(page)])
                let length = Int(offsets[Int(page) + 1]) - from
                let answer = ccodec_lz4_decompress(
                    data.baseAddress! + from, Int32(length), out, Int32(pageSize))
                precondition(answer == 0)
            }
        }
    }
}

/// Nanoseconds of CPU that `body` takes of the calling thread, system calls included:
/// unlike elapsed time, untouched by what else the CPU runs meanwhile.
func cpuTime(_ body: () -> Void) -> Double {
    let start = bench_cpu_time()
    body()
    return Double(bench_cpu_time() - start)
}
