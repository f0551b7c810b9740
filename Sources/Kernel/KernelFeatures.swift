import CLinux

/// What this kernel, for this process, can do. Probed, never inferred from a version.
public struct KernelFeatures: Equatable, Sendable {
    /// Asynchronous read-write protection.
    public var readWriteProtection: Bool
    /// Asynchronous write protection.
    public var writeProtection: Bool
    public var move: Bool
    public var poison: Bool
    /// Faults of shared memory whose page is in its file and only not mapped.
    public var minorShared: Bool
    /// The same for huge pages of hugetlbfs.
    public var minorHuge: Bool

    public init(
        readWriteProtection: Bool, writeProtection: Bool, move: Bool, poison: Bool, minorShared: Bool,
        minorHuge: Bool
    ) {
        self.readWriteProtection = readWriteProtection
        self.writeProtection = writeProtection
        self.move = move
        self.poison = poison
        self.minorShared = minorShared
        self.minorHuge = minorHuge
    }

    /// Asks a throw-away userfaultfd: UFFDIO_API answers what the kernel offers,
    /// and a descriptor whose features were refused cannot be used again.
    public static func probe() throws(Errno) -> KernelFeatures {
        let number = clinux_uffd_open()
        if let errno = Errno.from(number) { throw errno }
        let descriptor = Descriptor(adopting: number)
        var offered: UInt64 = 0
        if let errno = unsafe Errno.from(clinux_uffd_api(descriptor.number, 0, &offered)) { throw errno }
        func has(_ feature: UInt64) -> Bool { offered & feature == feature }
        return KernelFeatures(
            readWriteProtection: has(PageTracking.readWriteProtection.features),
            writeProtection: has(PageTracking.writeProtection.features),
            move: has(CLINUX_UFFD_FEATURE_MOVE),
            poison: has(CLINUX_UFFD_FEATURE_POISON),
            minorShared: has(CLINUX_UFFD_FEATURE_MISSING_SHMEM | CLINUX_UFFD_FEATURE_MINOR_SHMEM),
            minorHuge: has(CLINUX_UFFD_FEATURE_MISSING_HUGETLBFS | CLINUX_UFFD_FEATURE_MINOR_HUGETLBFS))
    }
}
