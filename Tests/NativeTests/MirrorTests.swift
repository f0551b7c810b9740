import Engine
import Glibc
import Kernel
import Testing

extension RemoteStorage {
    /// Real memory whose cold pages are in several places: what is wrong with one of them does not
    /// reach those whose pages are elsewhere.
    @Suite("Memory in several places", .serialized)
    struct MirrorTests {
        /// 64 MiB of memory under a 32 MiB limit: half of it must be out.
        private static let pages = (64 << 20) / pageSize

        private struct Rig {
            let live: LivePager
            let memory: VersionedMemory
            let region: Region
            let log = HostLog()

            init(_ tiers: [TierOptions]) throws {
                live = try LivePager(
                    PagerOptions(
                        tracker: .none, store: .tiers(tiers), readErrorAction: .stop,
                        limit: Settings.limitMin, idleAge: 0),
                    host: log.host)
                memory = try VersionedMemory(pageCount: MirrorTests.pages)
                region = try live.attach(name: "ram", start: memory.start, length: memory.length)
                for page in 0..<memory.pageCount { memory.advance(page) }
                try #require(waitUntil { live.pager.counters.evictions.value > MirrorTests.pages / 3 })
            }

            func tier(of page: Int) -> TierIndex? {
                let entry = region.table[page]
                return entry.state == .stored ? Locator(payload: entry.payload).tier : nil
            }

            func pages(in tier: Int) -> [Int] {
                (0..<memory.pageCount).filter { self.tier(of: $0) == TierIndex(tier + 1) }
            }

            /// Nothing leaves any more.
            func rest() {
                live.pager.settings.setMode(.off)
                live.settingsChanged()
                Kernel.sleep(nanoseconds: 200_000_000)
            }

            func mismatches(_ pages: [Int]) -> Int { pages.count { !memory.verify($0) } }

            func finish() {
                #expect(mismatches(Array(0..<memory.pageCount)) == 0)
                live.pager.detach(region)
                live.stop()
            }
        }

        private func mirrored(_ kind: TierOptions.Kind, by mirror: TierOptions.Kind) -> TierOptions {
            var tier = TierOptions(kind, maxBytes: 128 << 20)
            var second = TierOptions(mirror, maxBytes: 128 << 20)
            if case .nbd = mirror { second.timeoutSeconds = 1 }
            tier.mirror = TierOptions.Mirror(second)
            return tier
        }

        @Test(
            "that are mirrored comes back right when all that one of them holds is wrong", arguments: [0, 1])
        func corruption(side: Int) throws {
            let paths = [temporaryPath("mirror-first"), temporaryPath("mirror-second")]
            let rig = try Rig([mirrored(.file(path: paths[0]), by: .file(path: paths[1]))])
            rig.rest()
            let stored = rig.pages(in: 0)
            #expect(stored.count > Self.pages / 4)
            let file = StolenFile(path: paths[side])
            let contents = file.takeAway()
            file.giveBack([UInt8](repeating: 0xa5, count: contents.count))
            #expect(rig.mismatches(stored) == 0)
            #expect(rig.log.errors == [])
            #expect(rig.live.pager.counters.readErrors.value == 0)
            // The first is asked first, so nobody sees what the second holds.
            let isSeen = side == 0
            #expect((rig.live.pager.store.tiers[0].failedReads > 0) == isSeen)
            if isSeen { waitUntil { !rig.log.unawaitedReadFailures.isEmpty } }
            #expect(rig.log.unawaitedReadFailures == (isSeen ? ["tier 0: \(EIO)"] : []))
            rig.finish()
        }

        @Test("comes back when the server of one of them is gone, and leaves again when it is back")
        func serverIsGone() throws {
            let backing = try NBDBacking("mirror-nbd", size: 128 << 20)
            let socket = temporaryPath("mirror.sock")
            let server = try NBDServer(["nbdkit", "-f", "-U", socket, "file", backing.path], socket: socket)
            let file = TierOptions.Kind.file(path: temporaryPath("mirror-file"))
            let rig = try Rig([mirrored(file, by: .nbd(uri: "nbd+unix:///?socket=\(socket)"))])
            let stored = rig.pages(in: 0)
            server.kill()
            #expect(rig.mismatches(stored) == 0)
            #expect(!rig.log.errors.contains { $0.hasPrefix("read failed") })
            #expect(
                waitUntil {
                    for page in 0..<256 { rig.memory.advance(page) }
                    return rig.log.errors.contains { $0.hasPrefix("write failed") }
                }, "one copy is not enough")
            try server.start()
            #expect(waitUntil { rig.log.errors.contains("write recovered") })
            rig.finish()
            server.kill()
        }

        @Test("comes back from the other when one of them does not answer, and is not given up")
        func oneHangs() throws {
            let socket = temporaryPath("mirror-hangs.sock")
            let server = try NBDServer(["nbdkit", "-f", "-U", socket, "memory", "128M"], socket: socket)
            let file = TierOptions.Kind.file(path: temporaryPath("mirror-hangs-file"))
            var tier = mirrored(.nbd(uri: "nbd+unix:///?socket=\(socket)"), by: file)
            tier.timeoutSeconds = 3600
            let rig = try Rig([tier])
            rig.rest()
            let stored = rig.pages(in: 0)
            #expect(stored.count > Self.pages / 4)
            let traffic = rig.live.pager.store.tiers[0].traffic
            #expect(waitUntil { traffic?.inFlight.load(ordering: .relaxed) == 0 })

            server.stop()
            #expect(rig.mismatches(stored) == 0)
            #expect(rig.log.errors == [])
            #expect(waitUntil { rig.log.unawaitedReadFailures == ["tier 0: \(EIO)"] }, "it is told")
            let owed = traffic?.inFlight.load(ordering: .relaxed) ?? 0
            print("\(stored.count) pages came back; \(owed) reads were left to the server that hangs")
            #expect(owed > 0)
            server.goOn()
            #expect(waitUntil { traffic?.inFlight.load(ordering: .relaxed) == 0 }, "nobody need ask")
            rig.finish()
            server.kill()
        }

        @Test("comes back from the others while many accesses wait for one")
        func crowd() throws {
            let backing = try NBDBacking("crowd-nbd", size: 128 << 20)
            let socket = temporaryPath("crowd.sock")
            let server = try NBDServer(["nbdkit", "-f", "-U", socket, "file", backing.path], socket: socket)
            let rig = try Rig([
                TierOptions(.nbd(uri: "nbd+unix:///?socket=\(socket)"), maxBytes: 8 << 20),
                TierOptions(.file(path: temporaryPath("crowd-file")), maxBytes: 128 << 20),
            ])
            rig.rest()
            let there = rig.pages(in: 0)
            let elsewhere = rig.pages(in: 1)
            try #require(there.count > 400 && elsewhere.count > 400)
            #expect(Glibc.kill(server.processIdentifier, SIGSTOP) == 0)
            let right = Lock(0)
            let waiting = try (0..<200).map { number in
                try Kernel.Thread(name: "waits") {
                    if rig.memory.verify(there[number * 2]) { right.withLock { $0 += 1 } }
                }
            }
            Kernel.sleep(nanoseconds: 200_000_000)
            #expect(right.withLock { $0 } < 200, "they wait")
            let done = Lock(-1)
            let other = try Kernel.Thread(name: "other") {
                let mismatches = rig.mismatches(elsewhere)
                done.withLock { $0 = mismatches }
            }
            #expect(waitUntil { done.withLock { $0 } == 0 }, "nobody else does")
            #expect(right.withLock { $0 } < 200)
            #expect(Glibc.kill(server.processIdentifier, SIGCONT) == 0)
            waiting.forEach { $0.join() }
            other.join()
            #expect(right.withLock { $0 } == 200)
            rig.finish()
            server.kill()
        }
    }
}
