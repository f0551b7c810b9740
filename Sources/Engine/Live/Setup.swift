import Kernel

/// The checks at start: everything that can be refused is refused here, with a
/// reason, and not found out later by a guest.
enum Setup {
    static func probeKernel() throws(SetupFailure) -> KernelFeatures {
        let features: KernelFeatures
        do {
            features = try KernelFeatures.probe()
        } catch {
            switch error {
            case .notPermitted, .accessDenied:
                throw SetupFailure(
                    .notPermitted,
                    "no permission for a userfaultfd that handles faults of the kernel (KVM, "
                        + "device I/O): give this user access to /dev/userfaultfd, or set "
                        + "vm.unprivileged_userfaultfd=1, or run with CAP_SYS_PTRACE")
            default:
                throw SetupFailure(
                    .notSupported,
                    "this kernel gives no userfaultfd (\(error.text)): it needs CONFIG_USERFAULTFD")
            }
        }
        guard features.move else {
            throw SetupFailure(
                .notSupported,
                "this kernel has no UFFDIO_MOVE, by which pages leave the guest: use Linux 6.8 or later")
        }
        return features
    }

    /// How to track, and how the guard that is demanded, if one is, needs it.
    static func chooseTracking(
        _ options: PagerOptions, _ features: KernelFeatures, _ host: Host
    ) throws(SetupFailure) -> PageTracking {
        switch options.guard {
        case .automatic, .move, .minor: return try chooseTracking(options.tracker, features, host)
        case .freeze: return try trackingForFreeze(options.tracker, features)
        case .writeProtect: return try trackingForWriteProtect(options.tracker, features)
        }
    }

    private static func chooseTracking(
        _ choice: PagerOptions.TrackerChoice, _ features: KernelFeatures, _ host: Host
    ) throws(SetupFailure) -> PageTracking {
        switch choice {
        case .none:
            return .none
        case .zapping:
            guard features.minorShared, features.writeProtection else {
                throw SetupFailure(
                    .notSupported,
                    "tracker zap was demanded, but this kernel lacks userfaultfd minor faults on "
                        + "shmem (Linux 5.14) or asynchronous write protection (Linux 6.7): use a "
                        + "later one, or tracker auto or none")
            }
            // Protects nothing: a touch of a mapping registered with it does not map the
            // page's neighbours, too (fault-around), which would look touched.
            return .writeProtection
        case .readWriteProtection:
            guard features.readWriteProtection else {
                throw SetupFailure(
                    .notSupported,
                    "tracker rwp was demanded, but this kernel has no userfaultfd read-write "
                        + "protection: use Linux 7.3 or later, or tracker auto or none")
            }
            return .readWriteProtection
        case .writeProtection:
            guard features.writeProtection else {
                throw SetupFailure(
                    .notSupported,
                    "tracker wp was demanded, but this kernel has no asynchronous userfaultfd write "
                        + "protection: use Linux 6.7 or later, or tracker auto or none")
            }
            return .writeProtection
        case .automatic:
            if features.readWriteProtection {
                host.log(
                    .info,
                    "tracker rwp: this kernel has userfaultfd read-write protection, which tells "
                        + "reads and writes of each page")
                return .readWriteProtection
            }
            guard features.writeProtection else {
                host.log(
                    .warning,
                    "this kernel has neither userfaultfd read-write protection (Linux 7.3) nor "
                        + "asynchronous write protection (Linux 6.7), so touches of private memory "
                        + "are not tracked: a page is as old as its last arrival in RAM")
                return .none
            }
            host.log(
                .warning,
                "this kernel has no userfaultfd read-write protection (Linux 7.3), so only writes "
                    + "to private memory are tracked (tracker wp): pages that are only read look "
                    + "cold and come back")
            return .writeProtection
        }
    }

    /// Whether touches of shared memory are found by unmapping it: on demand, or where
    /// reads would go unnoticed otherwise.
    static func zapsShared(
        _ choice: PagerOptions.TrackerChoice, _ tracking: PageTracking, _ features: KernelFeatures
    ) -> Bool {
        switch choice {
        case .zapping: true
        case .automatic: tracking == .writeProtection && features.minorShared
        case .readWriteProtection, .writeProtection, .none: false
        }
    }

    static func makeSealer(_ source: Sealer.KeySource) throws(SetupFailure) -> Sealer {
        do {
            return try Sealer(source)
        } catch {
            throw keyRefusal(error)
        }
    }

    fileprivate static func keyRefusal(_ errno: Errno) -> SetupFailure {
        if errno == .noMemory {
            return SetupFailure(
                .noMemory,
                "cannot lock memory for the key that seals the store; raise the limit of locked "
                    + "memory (ulimit -l, RLIMIT_MEMLOCK) by 8 KiB")
        }
        return SetupFailure(errno, "cannot make a key to seal the store: \(errno.text)")
    }
}

extension SealSecret {
    /// What is kept of a secret that was given to seal the store with.
    public convenience init(given secret: UnsafeRawBufferPointer) throws(SetupFailure) {
        do {
            unsafe try self.init(secret)
        } catch {
            throw Setup.keyRefusal(error)
        }
    }
}
