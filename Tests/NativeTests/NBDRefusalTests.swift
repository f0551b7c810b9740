import Engine
import Kernel
import Testing

extension RemoteStorage {
    /// Exports that cannot be used are refused at the start, with a reason.
    @Suite("An NBD export is refused", .serialized)
    struct NBDRefusalTests {
        private let socket = temporaryPath("nbd.sock")
        private var unix: String { "nbd+unix:///?socket=\(socket)" }

        private func failure(_ options: NBDOptions) -> NBDFailure? {
            do throws(NBDFailure) {
                _ = try NBDDevice(options) { _ in }
                return nil
            } catch {
                return error
            }
        }

        /// The reason why what `nbdkit` serves cannot be used.
        private func failure(_ options: NBDOptions, serving arguments: [String]) throws -> NBDFailure? {
            let server = try NBDServer(["nbdkit", "-f", "-U", socket] + arguments, socket: socket)
            defer { server.kill() }
            return failure(options)
        }

        @Test("for options that mean nothing")
        func options() {
            let scheme = NBDFailure.badOption("uri is not one of nbd:, nbds:, nbd+unix:, nbds+unix:")
            #expect(failure(NBDOptions(uri: "http://localhost/")) == scheme)
            #expect(failure(NBDOptions(uri: "")) == scheme)
            #expect(failure(NBDOptions(uri: "nbd+vsock:///")) == scheme)
            #expect(failure(NBDOptions(uri: unix, timeout: 1)) == .badOption("timeout is less than a second"))
            for connections in [0, -1, 17] {
                #expect(
                    failure(NBDOptions(uri: unix, connections: connections))
                        == .badOption("connections is not between 1 and 16"))
            }
            #expect(
                failure(NBDOptions(uri: unix, size: 5000)) == .badOption("size is not a multiple of 4096"))
            guard case .badOption? = failure(NBDOptions(uri: "nbd+unix:///no-socket")) else {
                Issue.record("a URI without the socket's path")
                return
            }
        }

        @Test("where nobody listens")
        func nobody() throws {
            #expect(
                failure(NBDOptions(uri: unix + ".none"))
                    == .unreachable("connect: No such file or directory"))
            let port = try NBDServer.freePort()
            #expect(
                failure(NBDOptions(uri: "nbd://127.0.0.1:\(port)"))
                    == .unreachable(
                        "connect: 127.0.0.1:\(port): could not connect to remote host: Connection refused"))
        }

        @Test("that is read-only, too small, or wants large transfers")
        func unfit() throws {
            let options = NBDOptions(uri: unix)
            #expect(try failure(options, serving: ["-r", "memory", "64M"]) == .readOnly)
            #expect(
                try failure(NBDOptions(uri: unix, size: 1 << 30), serving: ["memory", "64M"])
                    == .tooSmall(export: 64 << 20, wanted: 1 << 30))
            #expect(try failure(options, serving: ["memory", "4k"]) == .tooSmall(export: 4096, wanted: 8192))
            let policy = [
                "blocksize-error-policy=error", "blocksize-minimum=8192", "blocksize-preferred=8192",
            ]
            #expect(
                try failure(
                    options, serving: ["--filter=blocksize-policy", "memory", "64M"] + policy)
                    == .blockSize(8192))
        }

        /// Why a pager does not take a tier on what `nbdkit` serves; nil when it does.
        private func refusal(
            _ tier: TierOptions, serving size: String, addedTo live: LivePager? = nil
        ) throws -> SetupFailure? {
            let server = try NBDServer(
                ["nbdkit", "-f", "-U", socket, "memory", size], socket: socket)
            defer { server.kill() }
            do throws(SetupFailure) {
                if let live {
                    _ = try live.addTier(tier)
                } else {
                    try LivePager(pagerOptions([tier]), host: HostLog().host).stop()
                }
                return nil
            } catch {
                return error
            }
        }

        private func pagerOptions(_ tiers: [TierOptions]) -> PagerOptions {
            PagerOptions(
                tracker: .none, store: .tiers(tiers), readErrorAction: .stop,
                limit: Settings.limitMin, idleAge: 0)
        }

        @Test(
            "that has no room for a log, or more than entries can name",
            arguments: [
                ("64k", "the export has 65536 bytes, which is less than the 2097152 wanted"),
                ("128k", "the export has 131072 bytes, which is less than the 2097152 wanted"),
                ("2093056", "the export has 2093056 bytes, which is less than the 2097152 wanted"),
                ("2M", nil),
                (
                    "4P",
                    "the export has 4503599627370496 bytes, of which at most 2251799813685248 can be used; "
                        + "give a size"
                ),
            ] as [(String, String?)])
        func sizes(_ size: String, _ reason: String?) throws {
            func expected(_ name: String) -> String? {
                reason.map { "\(name) (nbd): cannot use \(unix): \($0)" }
            }
            let tier = TierOptions(.nbd(uri: unix))
            #expect(try refusal(tier, serving: size)?.message == expected("tier 0"))
            let live = try LivePager(pagerOptions([TierOptions(.compressed)]), host: HostLog().host)
            defer { live.stop() }
            #expect(try refusal(tier, serving: size, addedTo: live)?.message == expected("tier 1"))
            var mirrored = TierOptions(.file(path: temporaryPath("mirrored")), maxBytes: 4 << 20)
            mirrored.mirror = TierOptions.Mirror(tier)
            #expect(try refusal(mirrored, serving: size)?.message == expected("mirror of tier 0"))
        }

        @Test("whose server and client do not agree on TLS, or on the keys")
        func tls() throws {
            let ours = try NBDCertificates.preSharedKeys(user: "frost")
            let required = ["--tls=require", "--tls-psk=\(ours)/keys.psk", "memory", "64M"]
            let plain = try failure(NBDOptions(uri: unix), serving: required)
            #expect(plain == .unreachable("the server demands TLS: nbds:// or nbds+unix://"))
            let secure = "nbds+unix://frost@/?socket=\(socket)"
            let unserved = try failure(
                NBDOptions(uri: secure, tlsCertificates: ours), serving: ["--tls=off", "memory", "64M"])
            #expect(unserved == .unreachable("the server has no TLS"))
            let stranger = "nbds+unix://stranger@/?socket=\(socket)"
            let unknown = try failure(NBDOptions(uri: stranger, tlsCertificates: ours), serving: required)
            #expect(unknown?.reason.contains("stranger") == true)
            let missing = try failure(
                NBDOptions(uri: secure, tlsCertificates: "/nowhere"), serving: required)
            #expect(missing == .badOption("/nowhere has neither keys.psk nor ca-cert.pem"))
            #expect(try failure(NBDOptions(uri: secure, tlsCertificates: ours), serving: required) == nil)
        }
    }
}
