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
            move: has(uffdFeatureMove),
            poison: has(uffdFeaturePoison),
            minorShared: has(uffdFeatureMissingShared | uffdFeatureMinorShared),
            minorHuge: has(uffdFeatureMissingHuge | uffdFeatureMinorHuge))
    }
}

// The importer leaves out macros with casts.
let uffdFeatureWP: UInt64 = 1 << 0
let uffdFeatureWPAsync: UInt64 = 1 << 15
let uffdFeatureMissingHuge: UInt64 = 1 << 4
let uffdFeatureMinorHuge: UInt64 = 1 << 9
let uffdFeatureMissingShared: UInt64 = 1 << 5
let uffdFeatureMinorShared: UInt64 = 1 << 10
let uffdFeaturePoison: UInt64 = 1 << 14
let uffdFeatureMove: UInt64 = 1 << 16
let uffdFeatureRWP: UInt64 = 1 << 17
let uffdFeatureRWPAsync: UInt64 = 1 << 18
let uffdRegisterMissing: UInt64 = 1
let uffdRegisterWP: UInt64 = 2
let uffdRegisterMinor: UInt64 = 4
let uffdRegisterRWP: UInt64 = 8
let uffdFaultWrite: UInt64 = 1
let uffdFaultWP: UInt64 = 2
let uffdFaultMinor: UInt64 = 4
let uffdFaultRWP: UInt64 = 8
let pageIsWritten: UInt64 = 1 << 1
let pageIsPresent: UInt64 = 1 << 3
let pageIsSwapped: UInt64 = 1 << 4
let pageIsHuge: UInt64 = 1 << 6
let pageIsAccessed: UInt64 = 1 << 9
