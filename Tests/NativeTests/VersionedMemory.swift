import Glibc
import Kernel
import Synchronization

/// Memory as a guest would have it, whose every page says which page it is and which
/// version of it, so that a lost write, a stale page or a page of zeros shows.
/// Each page is written by one thread only.
final class VersionedMemory: @unchecked Sendable {
    private let base: UnsafeMutableRawPointer
    private let kind: MemoryKind
    let pageCount: Int
    /// Threads touch disjoint elements only.
    private let versions: UnsafeMutablePointer<UInt32>

    /// Pages that can only be dropped together.
    var unitPages: Int { kind == .sharedHuge ? hugePageSize / pageSize : 1 }
    /// The file, kept open as a host program keeps it.
    private var descriptor: Int32 = -1

    /// Private anonymous memory, or a memfd mapped shared, as a guest's would be.
    init(pageCount: Int, _ kind: MemoryKind = .privateAnonymous) throws {
        self.pageCount = pageCount
        self.kind = kind
        let length = pageCount * pageSize
        // Address space for the alignment to a huge page, which is left mapped.
        let room = mmap(
            nil, length + hugePageSize, PROT_READ | PROT_WRITE,
            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        guard let room, room != MAP_FAILED else { throw Errno(errno) }
        let aligned = (Int(bitPattern: room) + hugePageSize - 1) / hugePageSize * hugePageSize
        base = UnsafeMutableRawPointer(bitPattern: aligned)!
        versions = .allocate(capacity: pageCount)
        versions.initialize(repeating: 0, count: pageCount)
        if kind != .privateAnonymous { descriptor = try Self.mapShared(base, length, kind) }
        // As QEMU does: a fork by one test must not share the memory of the others.
        guard madvise(base, length, MADV_DONTFORK) == 0 else { throw Errno(errno) }
    }

    private static func mapShared(
        _ base: UnsafeMutableRawPointer, _ length: Int, _ kind: MemoryKind
    ) throws -> Int32 {
        let descriptor = memoryFile("versioned-memory", isHuge: kind == .sharedHuge)
        guard descriptor >= 0, ftruncate(descriptor, length) == 0 else { throw Errno(errno) }
        let flags = MAP_SHARED | MAP_FIXED
        let mapped = mmap(base, length, PROT_READ | PROT_WRITE, flags, descriptor, 0)
        if mapped == MAP_FAILED { throw Errno(errno) }
        return descriptor
    }

    deinit {
        versions.deallocate()
        // The addresses stay taken: an object goes after its last use, which may be before its
        // block is detached, and what a pager still evicts from must not become another's.
        madvise(base, pageCount * pageSize, Int32(kind == .privateAnonymous ? MADV_DONTNEED : MADV_REMOVE))
        if descriptor >= 0 { close(descriptor) }
    }

    var start: UInt64 { UInt64(UInt(bitPattern: base)) }
    /// Bytes.
    var length: UInt64 { UInt64(pageCount * pageSize) }

    private func words(_ page: Int) -> UnsafeMutablePointer<UInt64> {
        (base + page * pageSize).assumingMemoryBound(to: UInt64.self)
    }

    /// What word `index` of a page holds at a version: some versions are zero pages,
    /// some same-filled, the others half noise and half constant.
    private func word(_ page: Int, _ version: UInt32, _ index: Int) -> UInt64 {
        if version == 0 || version % 13 == 5 { return 0 }
        let tag = UInt64(page) << 32 | UInt64(version)
        if version % 7 == 3 { return tag }
        guard index % 2 == 0 else { return tag }
        var mixed = tag &+ UInt64(index) &* 0x9e37_79b9_7f4a_7c15
        mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
        return mixed ^ (mixed >> 27)
    }

    /// Compares the whole page with its version; false when a byte differs, after saying what
    /// is there instead.
    func verify(_ page: Int) -> Bool {
        let words = words(page)
        let version = versions[page]
        for index in 0..<pageSize / 8 where words[index] != word(page, version, index) {
            print(describe(page, version, differsAt: index))
            return false
        }
        return true
    }

    /// For each version that any of the words is of, which words those are.
    private func describe(_ page: Int, _ version: UInt32, differsAt first: Int) -> String {
        let found = (0..<pageSize / 8).map { words(page)[$0] }
        let versions = (0...version + 1).reversed().compactMap { candidate -> String? in
            let same = found.indices.filter { found[$0] == word(page, candidate, $0) }
            guard let low = same.first, let high = same.last, same.count > 1 else { return nil }
            return "\(same.count) words of version \(candidate), from \(low) to \(high)"
        }
        return "page \(page) is not version \(version) from word \(first) on: "
            + (versions.isEmpty
                ? "of no version; word \(first) is \(found[first])" : versions.joined(separator: "; "))
    }

    /// Writes the next version.
    func advance(_ page: Int) {
        let version = versions[page] + 1
        let words = words(page)
        for index in 0..<pageSize / 8 { words[index] = word(page, version, index) }
        versions[page] = version
    }

    /// Gives pages back to the host, as a host program does.
    func drop(_ pages: Range<Int>) {
        let advice = kind == .privateAnonymous ? MADV_DONTNEED : MADV_REMOVE
        precondition(
            madvise(base + pages.lowerBound * pageSize, pages.count * pageSize, Int32(advice)) == 0)
    }

    /// The page reads as zeros from now on.
    func forget(_ page: Int) { versions[page] = 0 }
}

/// memfd_create, which the C library declares for GNU sources only.
private func memoryFile(_ name: String, isHuge: Bool) -> Int32 {
    typealias Create = @convention(c) (UnsafePointer<CChar>, UInt32) -> Int32
    let symbol = dlsym(nil, "memfd_create")
    return unsafeBitCast(symbol, to: Create.self)(
        name, isHuge ? 1 | 4 | 21 << 26 : 1)  // MFD_CLOEXEC, MFD_HUGETLB, MFD_HUGE_2MB
}
