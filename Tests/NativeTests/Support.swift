import Engine
import Foundation
import Kernel
import Synchronization

/// What the pager told its host program.
final class HostLog: Sendable {
    private let lines = Mutex<[String]>([])
    private let warned = Mutex<[String]>([])
    private let said = Mutex<[String]>([])
    private let unawaitedReads = Mutex<[String]>([])

    var host: Engine.Host {
        Engine.Host(
            report: { [self] event in
                switch event {
                case .unawaitedReadFailed(let errno, let tier):
                    unawaitedReads.withLock { $0.append("tier \(tier.position): \(errno.code)") }
                default: add(Self.describe(event))
                }
            },
            log: { [self] level, message in
                switch level {
                case .error: add(message)
                case .warning: warned.withLock { $0.append(message) }
                case .info: said.withLock { $0.append(message) }
                }
            })
    }

    /// Events about reads that nobody waited for, which errors leave out.
    var unawaitedReadFailures: [String] { unawaitedReads.withLock { $0 } }
    /// Other events, and what was logged as an error.
    var errors: [String] { lines.withLock { $0 } }
    /// What was logged as a warning.
    var warnings: [String] { warned.withLock { $0 } }
    /// What was logged as neither.
    var notes: [String] { said.withLock { $0 } }

    private func add(_ line: String) { lines.withLock { $0.append(line) } }

    private static func describe(_ event: HostEvent) -> String {
        switch event {
        case .writeFailed(let errno, _, _, _): "write failed: \(errno.code)"
        case .writeRecovered: "write recovered"
        case .readFailed(let errno, _, _, _, let poisoned): "read failed: \(errno.code) poisoned: \(poisoned)"
        case .readRecovered: "read recovered"
        case .unawaitedReadFailed: "unawaited read failed"
        }
    }
}

/// Given, to replay a failure, or new; always printed by the test.
func seedForThisRun() -> UInt64 {
    ProcessInfo.processInfo.environment["FROSTLINE_SEED"].flatMap { UInt64($0) }
        ?? UInt64.random(in: 0...UInt64.max)
}

/// Sanitizers make everything several times slower: they get a share of the work.
func evictionsWanted(_ count: UInt64) -> UInt64 {
    let divisor = ProcessInfo.processInfo.environment["FROSTLINE_STRESS_DIVISOR"].flatMap { UInt64($0) }
    return count / max(1, divisor ?? 1)
}

/// A path in a folder with O_DIRECT, for one test.
func temporaryPath(_ name: String) -> String {
    let folder = FileManager.default.currentDirectoryPath + "/.build/native-tests"
    try? FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    return "\(folder)/\(name)-\(ProcessInfo.processInfo.processIdentifier)"
}

/// The errno of reading a page through the kernel; 0 when that works. A plain access to a
/// poisoned page would be a SIGBUS.
func readBySystemCall(_ address: UInt64) -> Int32 {
    var ends: [Int32] = [0, 0]
    precondition(pipe(&ends) == 0)
    defer { for end in ends { close(end) } }
    let page = UnsafeRawPointer(bitPattern: UInt(address))
    return write(ends[1], page, pageSize) == pageSize ? 0 : errno
}

/// Whether a tmpfs is mounted at a folder.
func isTmpfs(_ folder: String) -> Bool {
    let mounts = (try? String(contentsOfFile: "/proc/mounts", encoding: .utf8)) ?? ""
    return mounts.split(separator: "\n").contains {
        let fields = $0.split(separator: " ")
        return fields.count > 2 && fields[1] == folder && fields[2] == "tmpfs"
    }
}

let hasReadWriteProtection = (try? KernelFeatures.probe().readWriteProtection) ?? false

/// Enough of them are free for the memory of one test.
let hasHugePages: Bool = {
    let text = try? String(contentsOfFile: "/proc/meminfo", encoding: .utf8)
    let line = text?.split(separator: "\n").first { $0.hasPrefix("HugePages_Free:") }
    return line?.split(separator: " ").last.flatMap { Int($0) } ?? 0 >= 48
}()

/// False: it did not become true in time, which is plenty.
@discardableResult
func waitUntil(_ condition: () -> Bool) -> Bool {
    let deadline = monotonicNow() + 120_000_000_000
    while !condition() {
        if monotonicNow() > deadline { return false }
        Kernel.sleep(nanoseconds: 10_000_000)
    }
    return true
}
