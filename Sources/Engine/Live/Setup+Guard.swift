import Kernel

extension Setup {
    /// How the pages of a block can be taken, by what its memory is and what was asked for.
    static func chooseGuard(
        _ choice: PagerOptions.GuardChoice, for kind: MemoryKind, block name: String,
        _ features: KernelFeatures
    ) throws(SetupFailure) -> Guard {
        switch (kind, choice) {
        case (.privateAnonymous, .automatic), (.privateAnonymous, .move):
            return .move
        case (.privateAnonymous, .freeze):
            return .freeze
        case (.privateAnonymous, .writeProtect):
            return .writeProtect
        case (.shared, .writeProtect):
            throw SetupFailure(
                .notSupported,
                "guard write-protect was demanded, but block \(name) is shared memory, which stays "
                    + "in its file when it is dropped; use share=off, or guard auto or minor")
        case (.sharedHuge, .automatic), (.sharedHuge, .minor):
            return .minorHuge
        case (.sharedHuge, .move), (.sharedHuge, .freeze), (.sharedHuge, .writeProtect):
            throw SetupFailure(
                .notSupported,
                "guard \(choice == .move ? "move" : choice == .freeze ? "freeze" : "write-protect") was "
                    + "demanded, but block \(name) is made of huge pages (hugetlbfs), which leave by guard "
                    + "minor only; use guard auto or minor, or memory of ordinary pages")
        case (.privateAnonymous, .minor):
            throw SetupFailure(
                .notSupported,
                "guard minor was demanded, but block \(name) is private anonymous memory, where "
                    + "no minor faults are; use share=on, or guard auto or move")
        case (.shared, .move):
            throw SetupFailure(
                .notSupported,
                "guard move was demanded, but block \(name) is shared memory, which UFFDIO_MOVE "
                    + "does not move; use share=off, or guard auto or minor")
        case (.shared, .automatic), (.shared, .minor), (.shared, .freeze):
            guard features.minorShared else {
                throw SetupFailure(
                    .notSupported,
                    "block \(name) is shared memory, which needs userfaultfd minor faults on shmem; "
                        + "use Linux 5.14 or later, or share=off")
            }
            return choice == .freeze ? .freezeShared : .minor
        case (.other(let other), _):
            throw SetupFailure(
                .invalid,
                "block \(name) is \(describe(other)); only private anonymous memory and unnamed "
                    + "shared memory, of ordinary pages or of huge ones of 2 MiB, can be paged: use "
                    + "memory-backend-ram or memory-backend-memfd")
        }
    }

    /// Refuses a block whose pages are not of the size that the host program says.
    static func checkPages(
        of pageBytes: Int, for kind: MemoryKind, block name: String
    ) throws(SetupFailure) {
        let isHuge = pageBytes == hugePageSize
        guard isHuge != (kind == .sharedHuge),
            kind == .sharedHuge || kind == .shared || kind == .privateAnonymous
        else { return }
        throw SetupFailure(
            .invalid,
            "block \(name) is said to have pages of \(pageBytes) bytes, but its memory is "
                + (isHuge ? "not hugetlbfs" : "hugetlbfs, of pages of \(hugePageSize) bytes"))
    }

    /// Huge pages are tracked by read-write protection alone: write protection would call cold
    /// what is only read, at the price of 2 MiB each time, and zapping costs a fault for each
    /// touch that the guard cannot spare.
    static func checkHuge(
        _ tracking: PageTracking, block name: String, _ features: KernelFeatures
    ) throws(SetupFailure) {
        guard features.readWriteProtection, features.minorHuge else {
            throw SetupFailure(
                .notSupported,
                "block \(name) is made of huge pages (hugetlbfs), which are paged by userfaultfd "
                    + "read-write protection only, and this kernel has none: use Linux 7.3 or later, or "
                    + "memory of ordinary pages (hugetlb=off; transparent huge pages are fine)")
        }
        guard tracking == .readWriteProtection else {
            throw SetupFailure(
                .notSupported,
                "block \(name) is made of huge pages (hugetlbfs), which only tracker rwp tracks, but "
                    + "another one was demanded: use tracker auto or rwp, or memory of ordinary pages")
        }
    }

    /// Merging takes a page's protection away without a message, and a write to it would be
    /// lost while it is being stored. Where pages leave by MOVE, that refuses merged ones.
    static func checkMerging(under chosen: Guard, block name: String) throws(SetupFailure) {
        guard chosen == .writeProtect else { return }
        throw SetupFailure(
            .notSupported,
            "guard write-protect was demanded, but block \(name) may be merged (KSM), which takes "
                + "the protection away; use merge=off, or guard auto or move")
    }

    /// Pages are frozen by the protection that tracks them.
    static func trackingForFreeze(
        _ tracker: PagerOptions.TrackerChoice, _ features: KernelFeatures
    ) throws(SetupFailure) -> PageTracking {
        guard tracker == .automatic || tracker == .readWriteProtection else {
            throw SetupFailure(
                .notSupported,
                "guard freeze was demanded, which stands on read-write protection, together with "
                    + "another tracker; use tracker rwp or auto, or guard auto")
        }
        guard features.readWriteProtection else {
            throw SetupFailure(
                .notSupported,
                "guard freeze was demanded, but this kernel has no userfaultfd read-write "
                    + "protection: use Linux 7.3 or later, or guard auto")
        }
        return .readWriteProtection
    }

    /// A write must wait while its page is stored, so the protection may not resolve writes by
    /// itself; a userfaultfd cannot do both.
    static func trackingForWriteProtect(
        _ tracker: PagerOptions.TrackerChoice, _ features: KernelFeatures
    ) throws(SetupFailure) -> PageTracking {
        guard tracker == .automatic || tracker == .writeProtection else {
            throw SetupFailure(
                .notSupported,
                "guard write-protect was demanded, which stands on write protection, together with "
                    + "another tracker; use tracker wp or auto, or guard auto")
        }
        // Both came with Linux 6.7: the scan that tells written pages, and this feature.
        guard features.writeProtection else {
            throw SetupFailure(
                .notSupported,
                "guard write-protect was demanded, but this kernel cannot tell which write-protected "
                    + "pages were written: use Linux 6.7 or later, or guard auto")
        }
        return .synchronousWriteProtection
    }

    /// Refuses a block whose memory the tracker that was asked for cannot look at.
    static func checkTracker(
        _ choice: PagerOptions.TrackerChoice, for kind: MemoryKind, block name: String
    ) throws(SetupFailure) {
        guard choice == .zapping, kind == .privateAnonymous else { return }
        throw SetupFailure(
            .notSupported,
            "tracker zap was demanded, but block \(name) is private anonymous memory, which would "
                + "lose its contents by being unmapped; use share=on, or tracker auto, rwp or wp (of "
                + "a pager of its own, if other blocks are to be zapped)")
    }

    private static func describe(_ other: MemoryKind.Other) -> String {
        switch other {
        case .unmapped: "not mapped throughout"
        case .notWritable: "not readable and writable throughout"
        case .privateFile: "a private mapping of a file or of huge pages"
        case .otherFile: "a mapping of a file with a name, or of huge pages of another size than 2 MiB"
        case .mixed: "made of several mappings that do not belong together"
        }
    }
}

extension Guard {
    /// What it guards, for a message.
    var memory: StaticString {
        switch self {
        case .move, .freeze, .writeProtect: "private anonymous memory"
        case .minor, .freezeShared: "shared memory"
        case .minorHuge: "shared memory in huge pages (hugetlbfs), which leave whole"
        }
    }
}
