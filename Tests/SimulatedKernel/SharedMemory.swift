import Glibc
import Kernel

/// Real shared memory of this process, so that the engine's second mapping of it is real too.
@safe final class SharedMemory {
    private let base: UnsafeMutableRawPointer
    private let length: Int
    /// Aligned to a huge page.
    let start: UInt64

    init(length: Int) throws(Errno) {
        self.length = length + hugePageSize
        let flags = MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE
        let address = mmap(nil, self.length, PROT_READ | PROT_WRITE, flags, -1, 0)
        guard let address, address != MAP_FAILED else { throw Errno(errno) }
        base = address
        let alignment = UInt64(hugePageSize)
        start = (UInt64(UInt(bitPattern: address)) + alignment - 1) / alignment * alignment
    }

    deinit { munmap(base, length) }
}
