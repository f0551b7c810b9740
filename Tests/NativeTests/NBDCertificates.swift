import Foundation
import Testing

/// Keys and certificates for TLS, made by the tools of gnutls-bin.
enum NBDCertificates {
    /// A folder with keys.psk, which client and server share.
    static func preSharedKeys(user: String) throws -> String {
        let folder = try emptyFolder("nbd-psk")
        try NBDServer.run(["psktool", "-u", user, "-p", "\(folder)/keys.psk"])
        return folder
    }

    /// A folder with an authority, and what it has signed for client and server.
    static func authority() throws -> String {
        let folder = try emptyFolder("nbd-certificates")
        try make("ca", ["cn = Authority", "ca", "cert_signing_key"], in: folder, signed: false)
        try make("server", ["cn = localhost", "dns_name = localhost", "tls_www_server"], in: folder)
        try make("client", ["cn = client", "tls_www_client"], in: folder)
        return folder
    }

    private static func make(
        _ name: String, _ template: [String], in folder: String, signed: Bool = true
    ) throws {
        let key = "\(folder)/\(name)-key.pem"
        let text = (template + ["expiration_days = 2", "signing_key", "encryption_key"])
        try text.joined(separator: "\n").write(
            toFile: "\(folder)/\(name).info", atomically: true, encoding: .utf8)
        try NBDServer.run(["certtool", "--generate-privkey", "--ecdsa", "--outfile", key])
        let authority =
            signed
            ? ["--generate-certificate", "--load-ca-certificate", "\(folder)/ca-cert.pem"]
                + ["--load-ca-privkey", "\(folder)/ca-key.pem"]
            : ["--generate-self-signed"]
        try NBDServer.run(
            ["certtool"] + authority + ["--load-privkey", key, "--template", "\(folder)/\(name).info"]
                + ["--outfile", "\(folder)/\(name)-cert.pem"])
    }

    private static func emptyFolder(_ name: String) throws -> String {
        let folder = temporaryPath(name)
        try? FileManager.default.removeItem(atPath: folder)
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        return folder
    }
}
