import CLinux

/// Anonymous memory of this process: reserved address space that costs host
/// memory only where it was written, and is left out of core dumps.
@safe public struct Mapping: ~Copyable, @unchecked Sendable {
    public let base: UnsafeMutableRawPointer
    /// Bytes.
    public let length: Int

    /// Reserves `length` bytes, a multiple of the page size, aligned to
    /// `alignment`, a power of two.
    public init(length: Int, alignment: Int = pageSize) throws(Errno) {
        precondition(length > 0 && length % pageSize == 0)
        precondition(alignment >= pageSize && alignment & (alignment - 1) == 0)
        var start: UnsafeMutableRawPointer?
        if let errno = unsafe Errno.from(clinux_map(UInt64(length), UInt64(alignment), &start)) {
            throw errno
        }
        unsafe base = start!
        self.length = length
    }

    /// Has host memory come in pages of the page size only, so that what was not written
    /// costs nothing, whatever the host's setting for transparent huge pages.
    public func forbidHugePages() { unsafe clinux_forbid_huge(base, UInt64(length)) }

    /// Gives a part back to the host; it reads as zeros afterwards.
    public func release(offset: Int, length: Int) {
        precondition(offset >= 0 && length >= 0 && offset + length <= self.length)
        let code = unsafe clinux_release(base + offset, UInt64(length))
        precondition(code == 0, "MADV_DONTNEED of our own mapping cannot fail")
    }

    /// Whether the page at an offset is resident now (mincore).
    public func isResident(offset: Int) -> Bool {
        precondition(offset >= 0 && offset % pageSize == 0 && offset < length)
        return unsafe clinux_resident(base + offset, UInt64(pageSize)) > 0
    }

    /// Bytes that are resident now (mincore).
    public var residentBytes: Int { residentBytes(below: length) }

    /// Those of its first `end` bytes that are resident now.
    public func residentBytes(below end: Int) -> Int {
        precondition(end >= 0 && end <= length)
        return unsafe Int(max(0, clinux_resident(base, UInt64(end))))
    }

    /// Gives pages that hold only zeros back to the host, which reads them as zeros
    /// still. Returns the bytes that stay resident. A page written meanwhile may lose
    /// what was written.
    public func trimBlank() -> Int {
        unsafe Int(max(0, clinux_trim_blank(base, UInt64(length))))
    }

    deinit { _ = unsafe clinux_unmap(base, UInt64(length)) }
}

/// The only page size that Frostline handles, in bytes.
public let pageSize = 4096
/// A transparent huge page: the unit in which page tables, scans and moves are cheap.
public let hugePageSize = 2 << 20
