import CLinux

/// A second mapping of a block of shared memory: the I/O view. It is not registered with
/// the userfaultfd, so the pager reads and punches through it what the guest's own
/// mapping would fault on. Left out of core dumps and forks; needs no descriptor.
///
/// Reading a hole through it would fill the hole, in hugetlbfs perhaps end the process
/// (SIGBUS, where no huge page is free): only pages known to be in RAM are read.
public struct SharedView: ~Copyable, Sendable {
    public let start: UInt64
    /// Bytes.
    public let length: UInt64

    /// Maps the memory at `start` again: one shared mapping, or several that continue
    /// each other in one file (`MemoryKind.shared`). EINVAL when it is private. With `isHuge`
    /// it is in huge pages (`MemoryKind.sharedHuge`): ENOENT when no descriptor of its file
    /// is open in this process.
    public init(of start: UInt64, length: UInt64, isHuge: Bool = false) throws(Errno) {
        precondition(start % UInt64(pageSize) == 0 && length % UInt64(pageSize) == 0 && length > 0)
        var view: UnsafeMutableRawPointer?
        let block = unsafe UnsafeMutableRawPointer(bitPattern: UInt(start))
        var answer = unsafe clinux_map_again(block, length, &view)
        // Linux refuses that for huge pages of hugetlbfs.
        if isHuge, Errno.from(answer) == .invalid {
            answer = unsafe clinux_map_huge_again(block, length, &view)
        }
        if let errno = Errno.from(answer) { throw errno }
        self.start = UInt64(UInt(bitPattern: view))
        self.length = length
    }

    deinit { _ = unsafe clinux_unmap(UnsafeMutableRawPointer(bitPattern: UInt(start)), length) }
}
