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
        case (.shared, .automatic), (.shared, .minor):
            guard features.minorShared else {
                throw SetupFailure(
                    .notSupported,
                    "block \(name) is shared memory, which needs userfaultfd minor faults on shmem; "
                        + "use Linux 5.14 or later, or share=off")
            }
            return .minor
        case (.other(let other), _):
            throw SetupFailure(
                .invalid,
                "block \(name) is \(describe(other)); only private anonymous memory and unnamed "
                    + "shared memory can be paged: use memory-backend-ram or memory-backend-memfd")
        }
    }

    private static func describe(_ other: MemoryKind.Other) -> String {
        switch other {
        case .unmapped: "not mapped throughout"
        case .notWritable: "not readable and writable throughout"
        case .privateFile: "a private mapping of a file or of huge pages"
        case .otherFile: "a mapping of a file with a name or of huge pages"
        case .mixed: "made of several mappings that do not belong together"
        }
    }
}

extension Guard {
    /// What it guards, for a message.
    var memory: StaticString {
        switch self {
        case .move: "private anonymous memory"
        case .minor: "shared memory"
        }
    }
}
