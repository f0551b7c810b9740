import Engine
import Kernel
import Testing

/// What `auto` comes to is no secret: the operator is told, and why.
@Suite("The tracker and guard that are picked")
struct ChoiceTests {
    /// What a pager says of itself, at its start and of a block.
    private func words(
        _ kind: MemoryKind, tracker: PagerOptions.TrackerChoice = .automatic,
        guard: PagerOptions.GuardChoice = .automatic
    ) throws -> (notes: [String], warnings: [String]) {
        let log = HostLog()
        let live = try LivePager(
            PagerOptions(
                tracker: tracker, guard: `guard`, store: .compressed, readErrorAction: .stop, limit: 0,
                idleAge: 0),
            host: log.host)
        let memory = try VersionedMemory(pageCount: 8, kind)
        let region = try live.attach(name: "ram", start: memory.start, length: memory.length)
        live.pager.detach(region)
        live.stop()
        return (log.notes, log.warnings)
    }

    @Test(
        "are write tracking and MOVE for private memory, with a warning of what that misses",
        .disabled(if: hasReadWriteProtection, "this kernel has userfaultfd read-write protection"))
    func privateMemory() throws {
        let (notes, warnings) = try words(.privateAnonymous)
        #expect(notes.contains("block ram is private anonymous memory: guard move"))
        #expect(
            warnings.contains {
                $0.contains("tracker wp") && $0.contains("Linux 7.3") && $0.contains("only read look cold")
            })
    }

    @Test(
        "are unmapping and minor faults for shared memory",
        .disabled(if: hasReadWriteProtection, "this kernel has userfaultfd read-write protection"))
    func sharedMemory() throws {
        #expect(
            try words(.shared).notes.contains {
                $0.hasPrefix("block ram is shared memory: guard minor; tracker zap")
                    && $0.contains("reads among them")
            })
    }

    @Test(
        "are read-write protection with either guard",
        .enabled(if: hasReadWriteProtection, "this kernel has no userfaultfd read-write protection"))
    func readWriteProtected() throws {
        for (kind, line) in [
            (MemoryKind.privateAnonymous, "block ram is private anonymous memory: guard move"),
            (.shared, "block ram is shared memory: guard minor"),
        ] {
            let (notes, warnings) = try words(kind)
            #expect(notes.contains(line))
            #expect(notes.contains { $0.hasPrefix("tracker rwp: ") && $0.contains("reads and writes") })
            #expect(warnings.isEmpty)
        }
    }

    @Test(
        "are not replaced by others when they are demanded",
        .disabled(if: hasReadWriteProtection, "this kernel has userfaultfd read-write protection"))
    func demanded() {
        for (tracker, guardChoice) in [
            (PagerOptions.TrackerChoice.readWriteProtection, PagerOptions.GuardChoice.automatic),
            (.automatic, .freeze),
        ] {
            let refusal = #expect(throws: SetupFailure.self) {
                try words(.privateAnonymous, tracker: tracker, guard: guardChoice)
            }
            #expect(refusal?.errno == .notSupported)
            #expect(refusal?.message.contains("Linux 7.3") == true)
        }
    }
}
