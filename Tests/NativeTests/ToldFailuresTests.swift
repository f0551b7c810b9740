import Engine
import Glibc
import Kernel
import Testing

extension RemoteStorage {
    /// Failures by which no access suffers, yet: the host program hears of them all the same.
    @Suite("A failure that nobody waits for", .serialized)
    struct ToldFailuresTests {
        /// 64 MiB of memory under a 32 MiB limit: half of it must be out.
        private static let pages = (64 << 20) / pageSize

        private func start(_ tiers: [TierOptions], _ log: HostLog) throws -> LivePager {
            var options = PagerOptions(
                tracker: .none, store: .tiers(tiers), readErrorAction: .stop, limit: Settings.limitMin,
                idleAge: 0)
            options.answerMax = 3_000_000_000
            return try LivePager(options, host: log.host)
        }

        private func mismatches(_ memory: VersionedMemory) -> Int {
            (0..<memory.pageCount).count { !memory.verify($0) }
        }

        @Test("of writes that do not end is told, and of their end", .enabled(if: LoopDisk.obstacle == nil))
        func hungWrites() throws {
            let disk = try LoopDisk("hung-disk", size: 192 << 20)
            defer { disk.end() }
            let folder = try disk.mounted(.ext4)
            let log = HostLog()
            let live = try start([TierOptions(.file(path: folder + "/store"), maxBytes: 128 << 20)], log)
            let memory = try VersionedMemory(pageCount: Self.pages)
            let region = try live.attach(name: "ram", start: memory.start, length: memory.length)
            for page in 0..<memory.pageCount { memory.advance(page) }
            try #require(waitUntil { live.pager.counters.evictions.value > Self.pages / 3 })
            #expect(log.errors == [])
            let tier = live.pager.store.tiers[0]

            try NBDServer.run(["fsfreeze", "--freeze", folder])
            // Should a check throw; otherwise, it is done by then, and fails.
            defer { _ = NBDServer.attempt(["fsfreeze", "--unfreeze", folder]) }
            // What comes back is written to, so it must be written when it leaves.
            let isTold = waitUntil {
                for page in 0..<memory.pageCount where log.errors.isEmpty { memory.advance(page) }
                return !log.errors.isEmpty
            }
            #expect(isTold)
            #expect(log.errors == ["write failed: \(ETIMEDOUT)"])
            #expect(tier.state == .failing)
            #expect(tier.writeErrors.value >= 1 && live.pager.counters.writeErrors.value >= 1)

            try NBDServer.run(["fsfreeze", "--unfreeze", folder])
            #expect(waitUntil { log.errors.last == "write recovered" && tier.state == .active })
            #expect(Set(log.errors) == ["write failed: \(ETIMEDOUT)", "write recovered"])
            #expect(mismatches(memory) == 0)
            live.pager.detach(region)
            live.stop()
        }

        @Test("of pages that cannot be read to be moved is told")
        func unreadableMoves() throws {
            let log = HostLog()
            let path = temporaryPath("told-first")
            let live = try start(
                [
                    TierOptions(.file(path: path), maxBytes: 128 << 20),
                    TierOptions(.file(path: temporaryPath("told-second")), maxBytes: 128 << 20),
                ], log)
            let memory = try VersionedMemory(pageCount: Self.pages)
            let region = try live.attach(name: "ram", start: memory.start, length: memory.length)
            for page in 0..<memory.pageCount { memory.advance(page) }
            try #require(waitUntil { live.pager.counters.evictions.value > Self.pages / 3 })
            live.pager.settings.setMode(.off)
            live.settingsChanged()
            Kernel.sleep(nanoseconds: 200_000_000)

            let file = StolenFile(path: path)
            let contents = file.takeAway()
            try live.removeTier(0)
            live.pager.settings.setMode(.active)
            live.settingsChanged()
            #expect(waitUntil { !log.unawaitedReadFailures.isEmpty })
            let tellings = [EIO, EBADMSG].map { "tier 0: \($0)" }
            #expect(log.unawaitedReadFailures.count == 1)
            #expect(log.unawaitedReadFailures.allSatisfy { tellings.contains($0) })
            #expect(live.pager.counters.readErrors.value >= 1)
            #expect(!log.errors.contains { $0.hasPrefix("read failed") }, "no access waits")

            file.giveBack(contents)
            #expect(waitUntil { live.pager.store.reading { live.pager.store.tiers.count == 1 } })
            #expect(mismatches(memory) == 0)
            live.pager.detach(region)
            live.stop()
        }
    }
}
