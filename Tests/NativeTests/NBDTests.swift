import Glibc
import Kernel
import Testing

extension RemoteStorage {
    /// The device for NBD exports, against the servers of Debian's packages. Every page is compared.
    @Suite("An NBD export", .serialized)
    struct NBDTests {
        private static let size = 64 << 20

        enum Setup: CaseIterable {
            case nbdkitUnix, nbdkitTCP, nbdkitOneConnection, qemuUnix, qemuTCP, tlsWithKeys,
                tlsWithCertificates
        }

        @Test("keeps what is written to it", arguments: Setup.allCases)
        func carries(_ setup: Setup) throws {
            let seed = seedForThisRun()
            print("seed \(seed)")
            let backing = try NBDBacking("nbd-backing", size: Self.size)
            let (server, options) = try Self.start(setup, backing)
            defer { server.kill() }
            let log = NBDLog()
            let device = try NBDDevice(options, report: log.add)
            let several: [Setup: Int] = [.nbdkitOneConnection: 1, .qemuUnix: 1, .qemuTCP: 3]
            #expect(device.connectionCount == several[setup] ?? 2)
            let exercise = try NBDExercise(device)
            exercise.prepare()
            let outcome = try exercise.run(evictRounds: 3, fetches: 10_000, seed: seed)
            #expect(outcome.errors == 0)
            #expect(outcome.wrongPages == 0)
            #expect(outcome.reads > 10_000)
            #expect(device.counters.losses.load(ordering: .relaxed) == 0)
            #expect(log.all.isEmpty)
        }

        private static func start(_ setup: Setup, _ backing: NBDBacking) throws -> (NBDServer, NBDOptions) {
            let socket = temporaryPath("nbd.sock")
            let port = try NBDServer.freePort()
            let tcp = "nbd://localhost:\(port)/"
            let unix = "nbd+unix:///?socket=\(socket)"
            let file = ["file", backing.path]
            switch setup {
            case .nbdkitUnix:
                let server = try NBDServer(["nbdkit", "-f", "-U", socket] + file, socket: socket)
                return (server, NBDOptions(uri: unix))
            case .nbdkitTCP:
                let server = try NBDServer(
                    ["nbdkit", "-f", "-i", "localhost", "-p", "\(port)"] + file, port: port)
                return (server, NBDOptions(uri: tcp))
            case .nbdkitOneConnection:
                let server = try NBDServer(["nbdkit", "-f", "-U", socket] + file, socket: socket)
                return (server, NBDOptions(uri: unix, connections: 1))
            case .qemuUnix:
                // For one client at a time, which is qemu-nbd's default.
                let server = try NBDServer(
                    ["qemu-nbd", "-t", "-f", "raw", "-k", socket, backing.path], socket: socket)
                return (server, NBDOptions(uri: unix))
            case .qemuTCP:
                let server = try NBDServer(
                    [
                        "qemu-nbd", "-t", "-f", "raw", "-e", "4", "-b", "127.0.0.1", "-p", "\(port)", "-x",
                        "pages", "--discard=unmap", backing.path,
                    ], port: port)
                return (server, NBDOptions(uri: tcp + "pages", connections: 3))
            case .tlsWithKeys:
                let folder = try NBDCertificates.preSharedKeys(user: "frost")
                let server = try NBDServer(
                    ["nbdkit", "-f", "-i", "localhost", "-p", "\(port)", "--tls=require"]
                        + ["--tls-psk=\(folder)/keys.psk"] + file, port: port)
                return (
                    server, NBDOptions(uri: "nbds://frost@localhost:\(port)/", tlsCertificates: folder)
                )
            case .tlsWithCertificates:
                let folder = try NBDCertificates.authority()
                let server = try NBDServer(
                    ["nbdkit", "-f", "-i", "localhost", "-p", "\(port)", "--tls=require"]
                        + ["--tls-certificates=\(folder)", "--tls-verify-peer"] + file, port: port)
                return (server, NBDOptions(uri: "nbds://localhost:\(port)/", tlsCertificates: folder))
            }
        }

        @Test("is read with as many requests under way as there may be")
        func pipelines() throws {
            let socket = temporaryPath("nbd.sock")
            let server = try NBDServer(
                [
                    "nbdkit", "-f", "-U", socket, "-t", "64", "--filter=delay", "memory", "64M",
                    "delay-read=20ms",
                ],
                socket: socket)
            defer { server.kill() }
            let device = try NBDDevice(NBDOptions(uri: "nbd+unix:///?socket=\(socket)")) { _ in }
            let exercise = try NBDExercise(device)
            exercise.prepare()
            let start = monotonicNow()
            let outcome = exercise.fetch(1280, seed: 1)
            let elapsed = monotonicNow() - start
            #expect(outcome.errors + outcome.wrongPages == 0)
            // One after the other they would take 25.6 s; 64 at once, 0.4 s.
            #expect(elapsed < 1280 * 20_000_000 / 8)
        }

        @Test("of FROSTLINE_NBD_URI keeps what is written to it", .enabled(if: givenURI != nil))
        func given() throws {
            let device = try NBDDevice(NBDOptions(uri: givenURI!)) { _ in }
            let exercise = try NBDExercise(device)
            exercise.prepare()
            let outcome = try exercise.run(evictRounds: 3, fetches: 10_000, seed: 1)
            #expect(outcome.errors == 0)
            #expect(outcome.wrongPages == 0)
            print(
                "\(outcome.reads) reads, \(outcome.writes) writes, the slowest \(outcome.slowest / 1_000_000) ms"
            )
            #expect([nil, .notSupported].contains(device.discard(offset: 0, length: 8 << 20)))
        }

        @Test("gives back what is discarded")
        func discards() throws {
            let socket = temporaryPath("nbd.sock")
            let backing = try NBDBacking("nbd-backing", size: Self.size)
            let server = try NBDServer(["nbdkit", "-f", "-U", socket, "file", backing.path], socket: socket)
            defer { server.kill() }
            let device = try NBDDevice(NBDOptions(uri: "nbd+unix:///?socket=\(socket)")) { _ in }
            let exercise = try NBDExercise(device, stable: 4096, moving: 0)
            exercise.prepare()
            let before = try backing.usedBytes()
            #expect(before >= 16 << 20)
            #expect(device.discard(offset: 4 << 20, length: 12 << 20) == nil)
            #expect(try backing.usedBytes() <= before - 12 << 20)
        }
    }
}
