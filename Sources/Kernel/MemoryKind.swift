import CLinux

/// What a range of this process's memory is: on that depends how its pages can be taken.
public enum MemoryKind: Equatable, Sendable {
    case privateAnonymous
    /// One shmem file without a name, mapped shared: a memfd, or shared anonymous memory.
    case shared
    /// The same in huge pages of 2 MiB (hugetlbfs).
    case sharedHuge
    case other(Other)

    /// What no page can be taken from.
    public enum Other: Sendable {
        case unmapped, notWritable, privateFile, otherFile, mixed
    }

    /// Asks /proc/self/maps.
    public init(start: UInt64, length: UInt64) throws(Errno) {
        let answer = clinux_memory_kind(start, length)
        if let errno = Errno.from(answer) { throw errno }
        switch UInt32(answer) {
        case CLINUX_MEMORY_PRIVATE_ANONYMOUS.rawValue: self = .privateAnonymous
        case CLINUX_MEMORY_SHARED.rawValue: self = .shared
        case CLINUX_MEMORY_SHARED_HUGE.rawValue: self = .sharedHuge
        case CLINUX_MEMORY_UNMAPPED.rawValue: self = .other(.unmapped)
        case CLINUX_MEMORY_NOT_WRITABLE.rawValue: self = .other(.notWritable)
        case CLINUX_MEMORY_PRIVATE_FILE.rawValue: self = .other(.privateFile)
        case CLINUX_MEMORY_OTHER_FILE.rawValue: self = .other(.otherFile)
        default: self = .other(.mixed)
        }
    }
}
