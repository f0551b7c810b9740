import Engine
import Glibc
import Kernel
import SeededRandom
import Testing

extension RemoteStorage {
    /// Real memory whose cold pages are on an NBD server that misbehaves: what the guest sees is
    /// time lost, and never a wrong byte.
    @Suite("Memory on an NBD export", .serialized)
    struct NBDPagerTests {
        /// 64 MiB of memory under a 32 MiB limit: half of it must be out.
        private static let pages = (64 << 20) / pageSize

        private struct Rig {
            let server: NBDServer?
            let live: LivePager
            let memory: VersionedMemory
            let region: Region
            let log = HostLog()

            /// Of an nbdkit with these arguments.
            init(_ arguments: [String], timeoutSeconds: Int = 0) throws {
                let socket = temporaryPath("nbd.sock")
                var tier = TierOptions(.nbd(uri: "nbd+unix:///?socket=\(socket)"))
                tier.timeoutSeconds = timeoutSeconds
                try self.init(
                    NBDServer(["nbdkit", "-f", "-U", socket] + arguments, socket: socket), tier)
            }

            init(_ server: NBDServer?, _ tier: TierOptions) throws {
                self.server = server
                live = try LivePager(
                    PagerOptions(
                        tracker: .none, store: .tiers([tier]), readErrorAction: .stop,
                        limit: Settings.limitMin, idleAge: 0),
                    host: log.host)
                memory = try VersionedMemory(pageCount: NBDPagerTests.pages)
                region = try live.attach(name: "ram", start: memory.start, length: memory.length)
                for page in 0..<memory.pageCount { memory.advance(page) }
                try #require(waitUntil { live.pager.counters.evictions.value > NBDPagerTests.pages / 3 })
            }

            /// Every byte is what it should be, and the server is not needed any more.
            func finish() {
                var mismatches = 0
                for page in 0..<memory.pageCount where !memory.verify(page) { mismatches += 1 }
                #expect(mismatches == 0)
                live.pager.detach(region)
                live.stop()
                server?.kill()
            }
        }

        /// A guest's thread: reads and writes pages at random until told to stop, and checks all.
        private final class Guest: Sendable {
            private final class Tally: Sendable {
                let state = Lock((isDone: false, touches: 0, mismatches: 0))
            }
            private let tally = Tally()
            private let thread: Kernel.Thread

            init(_ memory: VersionedMemory, seed: UInt64) throws {
                thread = try Kernel.Thread(name: "guest") { [tally] in
                    var random = SplitMix(seed: seed)
                    while !tally.state.withLock({ $0.isDone }) {
                        let page = random.below(memory.pageCount)
                        let isRight = memory.verify(page)
                        if random.below(3) == 0 { memory.advance(page) }
                        tally.state.withLock {
                            $0.touches += 1
                            if !isRight { $0.mismatches += 1 }
                        }
                    }
                }
            }

            var touches: Int { tally.state.withLock { $0.touches } }

            func stop() -> (touches: Int, mismatches: Int) {
                tally.state.withLock { $0.isDone = true }
                thread.join()
                return tally.state.withLock { ($0.touches, $0.mismatches) }
            }
        }

        @Test("that fails now and then loses nothing, and each failure is told and counted")
        func errors() throws {
            let seed = seedForThisRun()
            print("seed \(seed)")
            let trigger = temporaryPath("nbd-errors")
            unlink(trigger)
            let rig = try Rig([
                "--filter=error", "memory", "256M", "error-file=\(trigger)", "error-pread-rate=2%",
                "error-pwrite-rate=10%",
            ])
            let guest = try Guest(rig.memory, seed: seed)
            close(open(trigger, O_WRONLY | O_CREAT, 0o600))
            let counters = rig.live.pager.counters
            #expect(waitUntil { counters.readErrors.value >= 5 && counters.writeErrors.value >= 1 })
            unlink(trigger)
            let seen = guest.touches
            #expect(waitUntil { guest.touches > seen + 1000 })
            let end = guest.stop()
            print("\(end.touches) touches, \(counters.readErrors.value) read errors")
            #expect(end.mismatches == 0)
            #expect(rig.log.errors.contains("read failed: \(EIO) poisoned: false"))
            #expect(rig.log.errors.contains("read recovered"))
            #expect(rig.log.errors.contains("write failed: \(EIO)"))
            rig.finish()
        }

        @Test("goes on when the server is back in time, and nobody is told of an error")
        func restarts() throws {
            let seed = seedForThisRun()
            print("seed \(seed)")
            let backing = try NBDBacking("nbd-pager", size: 256 << 20)
            let rig = try Rig(["file", backing.path])
            let guest = try Guest(rig.memory, seed: seed)
            for _ in 0..<5 {
                rig.server?.kill()
                Kernel.sleep(nanoseconds: 200_000_000)
                try rig.server?.start()
                let seen = guest.touches
                #expect(waitUntil { guest.touches > seen + 500 })
            }
            #expect(guest.stop().mismatches == 0)
            #expect(rig.log.errors.isEmpty)
            rig.finish()
        }

        @Test("of FROSTLINE_NBD_URI keeps every write", .enabled(if: givenURI != nil))
        func given() throws {
            let seed = seedForThisRun()
            print("seed \(seed)")
            let rig = try Rig(nil, TierOptions(.nbd(uri: givenURI!)))
            let guest = try Guest(rig.memory, seed: seed)
            #expect(waitUntil { guest.touches > 20_000 })
            #expect(guest.stop().mismatches == 0)
            #expect(rig.log.errors.isEmpty)
            rig.finish()
        }

        @Test("waits when the server is away for too long, and goes on when it is back")
        func away() throws {
            let seed = seedForThisRun()
            print("seed \(seed)")
            let backing = try NBDBacking("nbd-pager", size: 256 << 20)
            let rig = try Rig(["file", backing.path], timeoutSeconds: 1)
            let guest = try Guest(rig.memory, seed: seed)
            rig.server?.kill()
            #expect(waitUntil { rig.log.errors.contains("read failed: \(ETIMEDOUT) poisoned: false") })
            #expect(waitUntil { rig.log.errors.contains { $0.contains("the server is not back") } })
            try rig.server?.start()
            #expect(waitUntil { rig.log.errors.contains("read recovered") })
            let seen = guest.touches
            #expect(waitUntil { guest.touches > seen + 500 })
            #expect(guest.stop().mismatches == 0)
            rig.finish()
        }
    }
}
