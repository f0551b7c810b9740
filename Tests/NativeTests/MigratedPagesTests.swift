import Engine
import Foundation
import Kernel
import Synchronization
import Testing

/// The host's kernel moves pages about in RAM, to make room for huge pages. MOVE waits for one
/// that is on its way, and Linux 6.18 does not count what it moves after that.
@Suite("Pages that the host migrates", .serialized)
struct MigratedPagesTests {
    private static let trigger = "/proc/sys/vm/compact_memory"

    @Test(
        "are not lost when they leave meanwhile",
        .enabled(if: access(trigger, W_OK) == 0, "this user may not compact memory"))
    func compaction() throws {
        let rig = try FaultRig(TierOptions(.compressed, maxBytes: 64 << 20))
        let isEnough = Atomic<Bool>(false)
        let compacting = try Kernel.Thread(name: "compact") {
            while !isEnough.load(ordering: .relaxed) {
                try? Data("1".utf8).write(to: URL(fileURLWithPath: Self.trigger))
            }
        }
        let migratedBefore = Self.migrations
        let deadline = monotonicNow() + 8_000_000_000
        var rounds = 0
        var wrong = 0
        while monotonicNow() < deadline, wrong == 0 {
            rig.evictAll()
            wrong += (0..<FaultRig.pages).count { !rig.memory.verify($0) }
            for page in 0..<FaultRig.pages { rig.memory.advance(page) }
            rounds += 1
        }
        isEnough.store(true, ordering: .relaxed)
        compacting.join()
        print("\(rounds) rounds, \(Self.migrations - migratedBefore) pages migrated by the host")
        #expect(wrong == 0)
        rig.finish()
    }

    /// Pages that the host has migrated since it booted.
    private static var migrations: Int {
        let counts = (try? String(contentsOfFile: "/proc/vmstat", encoding: .utf8)) ?? ""
        let line = counts.split(separator: "\n").first { $0.hasPrefix("pgmigrate_success ") }
        return line.flatMap { Int($0.split(separator: " ")[1]) } ?? 0
    }
}
