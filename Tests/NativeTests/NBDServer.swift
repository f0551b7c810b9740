import Foundation
import Glibc
import Kernel
import Testing

/// One test at a time: they stop and kill servers, and some measure times.
@Suite("Remote storage", .serialized)
enum RemoteStorage {}

/// An export that somebody else serves, to be tested by choice.
let givenURI = ProcessInfo.processInfo.environment["FROSTLINE_NBD_URI"]

/// A server of a Debian package, started by a test, and ended by it: nbdkit, or qemu-nbd.
final class NBDServer: @unchecked Sendable {
    private var process: Process?
    private let arguments: [String]
    /// Exists once the server listens; nil for TCP.
    private let socket: String?
    private let port: Int?

    /// The first argument is the program. `socket` or `port` is where it will listen.
    init(_ arguments: [String], socket: String? = nil, port: Int? = nil) throws {
        self.arguments = arguments
        self.socket = socket
        self.port = port
        try start()
    }

    deinit { kill() }

    var processIdentifier: Int32 { process?.processIdentifier ?? 0 }

    func start() throws {
        precondition(process == nil)
        if let socket { unlink(socket) }
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = arguments
        let log = temporaryPath("nbd-server.log")
        _ = FileManager.default.createFile(atPath: log, contents: nil)
        let output = try FileHandle(forWritingTo: URL(fileURLWithPath: log))
        process.standardOutput = output
        process.standardError = output
        process.standardInput = FileHandle.nullDevice
        try process.run()
        self.process = process
        let deadline = monotonicNow() + 20_000_000_000
        while !listens() {
            let said = (try? String(contentsOfFile: log, encoding: .utf8)) ?? ""
            try #require(process.isRunning, "\(arguments.joined(separator: " ")): \(said)")
            try #require(monotonicNow() < deadline, "\(arguments[0]) does not listen")
            Kernel.sleep(nanoseconds: 10_000_000)
        }
    }

    /// Without connecting to a socket: a server may end with its last connection.
    private func listens() -> Bool {
        if let socket {
            let table = (try? String(contentsOfFile: "/proc/net/unix", encoding: .utf8)) ?? ""
            return table.split(separator: "\n").contains { line in
                let fields = line.split(separator: " ")
                // The flag says that it listens.
                return fields.count == 8 && fields[7] == socket && fields[3] == "00010000"
            }
        }
        let port = String(format: ":%04X", port!)
        let tables = ["/proc/net/tcp", "/proc/net/tcp6"].compactMap {
            try? String(contentsOfFile: $0, encoding: .utf8)
        }
        return tables.joined().split(separator: "\n").contains { line in
            let fields = line.split(separator: " ")
            return fields.count > 3 && fields[1].hasSuffix(port) && fields[3] == "0A"
        }
    }

    /// kill -9, and waits for its end.
    func kill() {
        guard let process else { return }
        Glibc.kill(process.processIdentifier, SIGCONT)
        Glibc.kill(process.processIdentifier, SIGKILL)
        process.waitUntilExit()
        self.process = nil
    }

    /// Returns when all its threads have stopped.
    func stop() {
        Glibc.kill(processIdentifier, SIGSTOP)
        let tasks = "/proc/\(processIdentifier)/task"
        while let threads = try? FileManager.default.contentsOfDirectory(atPath: tasks),
            !threads.allSatisfy({ thread in
                let status = try? String(contentsOfFile: "\(tasks)/\(thread)/stat", encoding: .utf8)
                return status?.contains(") T ") ?? true
            })
        {
            Kernel.sleep(nanoseconds: 1_000_000)
        }
    }

    func goOn() { Glibc.kill(processIdentifier, SIGCONT) }

    /// A TCP port of this machine that nobody listens at.
    static func freePort() throws -> Int {
        let descriptor = Glibc.socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(descriptor) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let answer = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, length) + getsockname(descriptor, $0, &length)
            }
        }
        try #require(answer == 0)
        return Int(UInt16(bigEndian: address.sin_port))
    }

    /// A program's run to its end; what is needed must be there.
    static func run(_ arguments: [String]) throws { _ = try output(arguments) }

    /// What it prints, without the end of the last line.
    static func output(_ arguments: [String]) throws -> String {
        try #require(attempt(arguments), "\(arguments.joined(separator: " "))")
    }

    /// The same; nil when it fails.
    static func attempt(_ arguments: [String]) -> String? {
        let process = Process()
        let output = Pipe()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = arguments
        process.standardOutput = output
        process.standardError = FileHandle.nullDevice
        guard (try? process.run()) != nil else { return nil }
        let printed = output.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        guard process.terminationStatus == 0 else { return nil }
        return String(decoding: printed, as: UTF8.self).trimmingCharacters(in: .newlines)
    }
}

/// A file for a server to serve, that a killed one leaves to the next.
final class NBDBacking {
    let path: String

    init(_ name: String, size: Int) throws {
        path = temporaryPath(name)
        unlink(path)
        let descriptor = open(path, O_RDWR | O_CREAT | O_EXCL, 0o600)
        try #require(descriptor >= 0)
        defer { close(descriptor) }
        try #require(ftruncate(descriptor, size) == 0)
    }

    func resize(_ size: Int) throws { try #require(truncate(path, size) == 0) }

    func usedBytes() throws -> Int {
        var status = stat()
        try #require(stat(path, &status) == 0)
        return Int(status.st_blocks) * 512
    }

    deinit { unlink(path) }
}
