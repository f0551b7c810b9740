import Foundation
import Glibc
import Kernel
import SeededRandom
import Testing

extension RemoteStorage {
    /// Servers that go away, hang, or come back as another.
    @Suite("An NBD server that is lost", .serialized)
    struct NBDLossTests {
        private static let size = 64 << 20
        private static let second: UInt64 = 1_000_000_000
        /// What a busy machine may add to a time-out.
        private static let bound = 8 * second

        private enum Program { case nbdkit, qemuNBD }

        /// A server of a file, over a Unix socket.
        private struct Rig {
            let backing: NBDBacking
            let server: NBDServer
            let device: NBDDevice
            let exercise: NBDExercise
            let log = NBDLog()

            init(_ program: Program = .nbdkit, timeout: UInt64, connections: Int = 2) throws {
                let socket = temporaryPath("nbd.sock")
                backing = try NBDBacking("nbd-backing", size: NBDLossTests.size)
                let arguments =
                    switch program {
                    case .nbdkit: ["nbdkit", "-f", "-U", socket, "file", backing.path]
                    case .qemuNBD: ["qemu-nbd", "-t", "-f", "raw", "-e", "16", "-k", socket, backing.path]
                    }
                server = try NBDServer(arguments, socket: socket)
                device = try NBDDevice(
                    NBDOptions(
                        uri: "nbd+unix:///?socket=\(socket)", timeout: timeout, connections: connections),
                    report: log.add)
                exercise = try NBDExercise(device)
                exercise.prepare()
            }

            /// All is as it was.
            func expectWorking(_ seed: UInt64) throws {
                let outcome = try exercise.run(evictRounds: 1, fetches: 2000, seed: seed)
                #expect(outcome.errors == 0)
                #expect(outcome.wrongPages == 0)
            }

            func expectBack() {
                let isBack = log.waitFor { notices in
                    if case .back? = notices.last { return true }
                    return false
                }
                #expect(isBack, "\(log.all)")
            }
        }

        @Test("and started again is missed by nobody", arguments: [Program.nbdkit, .qemuNBD], [1, 2, 4])
        private func killed(_ program: Program, connections: Int) throws {
            let seed = seedForThisRun()
            print("seed \(seed)")
            let rig = try Rig(program, timeout: 60 * Self.second, connections: connections)
            defer { rig.server.kill() }
            var random = SplitMix(seed: seed)
            let kills = ProcessInfo.processInfo.environment["FROSTLINE_NBD_KILLS"].flatMap { Int($0) } ?? 8
            let outcome = try rig.exercise.run(seed: seed) {
                for _ in 0..<kills {
                    Kernel.sleep(nanoseconds: UInt64(20 + random.below(150)) * 1_000_000)
                    rig.server.kill()
                    Kernel.sleep(nanoseconds: UInt64(random.below(200)) * 1_000_000)
                    try rig.server.start()
                    rig.expectBack()
                }
            }
            let counters = rig.device.counters
            let resubmissions = counters.resubmissions.load(ordering: .relaxed)
            print("\(outcome.reads) reads, \(outcome.writes) writes, \(resubmissions) of them sent again")
            #expect(outcome.errors == 0)
            #expect(outcome.wrongPages == 0)
            #expect(resubmissions > 0)
            #expect(counters.losses.load(ordering: .relaxed) >= kills * connections)
            #expect(
                counters.reconnections.load(ordering: .relaxed) == counters.losses.load(ordering: .relaxed))
            #expect(counters.connected.load(ordering: .relaxed) == connections)
            #expect(rig.log.all.filter { $0 == .lost }.count == kills)
        }

        @Test("for longer than the timeout fails transfers, until it is back")
        func away() throws {
            let timeout = 2 * Self.second
            let rig = try Rig(timeout: timeout)
            defer { rig.server.kill() }
            try rig.expectWorking(1)
            rig.server.kill()
            let fetched = rig.exercise.fetch(300, seed: 2)
            #expect(fetched.readErrors == [ETIMEDOUT: 300])
            #expect(fetched.slowest < timeout + Self.bound)
            let evicted = rig.exercise.evict(rounds: 1, seed: 3)
            #expect(evicted.writeErrors == [ETIMEDOUT: evicted.writes])
            #expect(evicted.reads == 0)
            #expect(
                rig.device.counters.timeouts.load(ordering: .relaxed) == 300 + evicted.writes)
            #expect(rig.device.discard(offset: 0, length: 4096) == .busy)
            #expect(rig.log.waitFor { $0.count == 2 })
            #expect(rig.device.counters.connected.load(ordering: .relaxed) == 0)
            #expect(rig.log.all.first == .lost)
            guard case .failing? = rig.log.all.last else {
                Issue.record("\(rig.log.all)")
                return
            }
            try rig.server.start()
            rig.expectBack()
            try rig.expectWorking(4)
        }

        @Test(
            "because it hangs is given up for another connection, and nothing hangs for longer than the timeout"
        )
        func hung() throws {
            let timeout = 3 * Self.second
            // When it has been stopped and its clients have gone, nbdkit 1.32 fails an assertion.
            let rig = try Rig(.qemuNBD, timeout: timeout)
            defer { rig.server.kill() }
            rig.server.stop()
            let total = try rig.exercise.run(evictRounds: 1, fetches: 100, seed: 1)
            rig.server.goOn()
            #expect(total.readErrors[ETIMEDOUT, default: 0] == 100)
            #expect(total.writeErrors[ETIMEDOUT, default: 0] == total.writes)
            #expect(total.slowest < timeout + Self.bound)
            rig.expectBack()
            try rig.expectWorking(2)
            #expect(rig.device.counters.losses.load(ordering: .relaxed) >= 2)
        }

        @Test("for a moment, because it hangs, is waited for")
        func hungShortly() throws {
            let rig = try Rig(timeout: 60 * Self.second)
            defer { rig.server.kill() }
            let outcome = try rig.exercise.run(seed: 5) {
                for _ in 0..<3 {
                    rig.server.stop()
                    Kernel.sleep(nanoseconds: Self.second / 2)
                    rig.server.goOn()
                    Kernel.sleep(nanoseconds: Self.second / 5)
                }
            }
            #expect(outcome.errors == 0)
            #expect(outcome.wrongPages == 0)
            #expect(outcome.slowest >= Self.second / 4)
            #expect(rig.device.counters.losses.load(ordering: .relaxed) == 0)
        }

        @Test("and comes back with another size, or other contents, is refused")
        func changed() throws {
            let rig = try Rig(timeout: 60 * Self.second)
            defer { rig.server.kill() }
            rig.server.kill()
            try rig.backing.resize(2 * Self.size)
            try rig.server.start()
            try expectFailing(rig, "the export has 134217728 bytes, and had 67108864")
            rig.server.kill()
            try rig.backing.resize(Self.size)
            try rig.server.start()
            rig.expectBack()
            try rig.expectWorking(1)

            rig.server.kill()
            try rig.backing.resize(0)
            try rig.backing.resize(Self.size)
            try rig.server.start()
            try expectFailing(rig, "the export does not hold what was written to it")
            #expect(rig.device.counters.refusals.load(ordering: .relaxed) >= 2)
        }

        /// Reads and writes fail at once, and the reason has been told.
        private func expectFailing(_ rig: Rig, _ reason: String) throws {
            #expect(rig.log.waitFor { $0.last == .failing(reason) })
            let outcome = try rig.exercise.run(evictRounds: 1, fetches: 100, seed: 1)
            #expect(outcome.readErrors == [ETIMEDOUT: 100])
            #expect(outcome.writeErrors == [ETIMEDOUT: outcome.writes])
            #expect(outcome.wrongPages == 0)
        }
    }
}
