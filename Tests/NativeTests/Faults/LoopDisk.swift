import Engine
import Foundation
import Glibc
import Kernel
import SeededRandom
import Testing

/// A block device that is a file of the test's, so that it can be made to fail; or a file system
/// in it, so that it can be made to be full.
final class LoopDisk {
    let device: String
    let backing: NBDBacking
    private var mount: String?

    /// Why this machine, or this user, has none; nil where there is no obstacle.
    static let obstacle: String? = {
        guard getuid() == 0, let backing = try? NBDBacking("loop-probe", size: 4 << 20),
            let device = NBDServer.attempt(["losetup", "--find", "--show", backing.path])
        else { return "no loop device can be made here" }
        return NBDServer.attempt(["losetup", "--detach", device]) == nil ? "it would stay" : nil
    }()

    init(_ name: String, size: Int) throws {
        backing = try NBDBacking(name, size: size)
        device = try NBDServer.output(["losetup", "--find", "--show", backing.path])
    }

    /// A folder in a file system on it.
    func mounted(_ system: FileSystem) throws -> String {
        let folder = backing.path + ".mounted"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        try NBDServer.run(system.make + [device])
        try NBDServer.run(["mount", device, folder])
        mount = folder
        return folder
    }

    func end() {
        if let mount {
            _ = NBDServer.attempt(["umount", mount])
            try? FileManager.default.removeItem(atPath: mount)
        }
        _ = NBDServer.attempt(["losetup", "--detach", device])
    }
}

/// What may be made on a disk.
enum FileSystem: String, CaseIterable, Sendable {
    case ext4, xfs

    /// Those of this machine's kernel, where it lets this user mount one.
    static let usable = allCases.filter { $0.obstacle == nil }

    /// Why there is none here; nil where there is no obstacle.
    var obstacle: String? {
        if let obstacle = LoopDisk.obstacle { return obstacle }
        // Where it is built in, there is no such module.
        _ = NBDServer.attempt(["modprobe", "--quiet", rawValue])
        let known = (try? String(contentsOfFile: "/proc/filesystems", encoding: .utf8)) ?? ""
        let isKnown = known.split(whereSeparator: \.isWhitespace).contains { $0 == rawValue }
        return isKnown ? nil : "this kernel has no \(rawValue)"
    }

    fileprivate var make: [String] {
        switch self {
        case .ext4: ["mkfs.ext4", "-q", "-F"]
        case .xfs: ["mkfs.xfs", "-q", "-f"]
        }
    }

    /// Bytes of a disk that it can be made on, and that leaves `size` for files. mkfs.xfs makes none
    /// below 300 MiB.
    func diskSize(for size: Int) -> Int {
        switch self {
        case .ext4: size
        case .xfs: max(size, 320 << 20)
        }
    }
}

/// Takes all the space of a file system but less than a block.
private func fillUp(_ descriptor: Int32) {
    var end = 0
    var part = 1 << 30
    while part >= pageSize {
        let answer = posix_fallocate(descriptor, off_t(end), off_t(part))
        if answer == 0 {
            end += part
        } else {
            #expect(answer == ENOSPC)
            part /= 2
        }
    }
}

extension FaultKind {
    /// A disk whose end cannot be read any more.
    static let failingDisk = FaultKind(
        "disk that fails", share: 10, obstacle: LoopDisk.obstacle
    ) { wanted, seed in
        let size = 32 << 20
        let disk = try LoopDisk("failing-disk", size: size)
        defer { disk.end() }
        let rig = try FaultRig(TierOptions(.file(path: disk.device), maxBytes: UInt64(size)))
        let descriptor = open(disk.backing.path, O_RDWR)
        defer { close(descriptor) }
        let tally = try rig.alter(descriptor, wanted, seed, keepsPages: false) { $0.truncate(&$1) }
        #expect(rig.log.errors.allSatisfy { $0 == "read failed: \(EIO) poisoned: true" }, "seed \(seed)")
        return tally
    }

    /// A file system that is full: the pages stay, and leave when there is room.
    static func full(_ system: FileSystem) -> FaultKind {
        FaultKind("\(system) that is full", share: 0, obstacle: system.obstacle) { _, seed in
            try fillDisk(system, seed)
        }
    }

    private static func fillDisk(_ system: FileSystem, _ seed: UInt64) throws -> FaultTally {
        let disk = try LoopDisk("full-disk", size: system.diskSize(for: 40 << 20))
        defer { disk.end() }
        let folder = try disk.mounted(system)
        var tally = FaultTally()
        do {
            let rig = try FaultRig(TierOptions(.file(path: folder + "/store"), maxBytes: 32 << 20))
            var random = SplitMix(seed: seed)
            let ballast = folder + "/ballast"
            let descriptor = open(ballast, O_WRONLY | O_CREAT, 0o600)
            fillUp(descriptor)
            close(descriptor)
            tally.injected = 1
            rig.evictAll()
            #expect(rig.log.errors == ["write failed: \(ENOSPC)"], "seed \(seed)")
            var reading = try rig.readAll(ascending: false, &random)
            #expect(reading.lost.isEmpty, "seed \(seed)")
            tally.wrongPages += reading.wrong
            unlink(ballast)
            #expect(
                waitUntil {
                    rig.evictAll()
                    return rig.log.errors.last == "write recovered"
                }, "seed \(seed)")
            reading = try rig.readAll(ascending: false, &random)
            #expect(reading.lost.isEmpty, "seed \(seed)")
            tally.wrongPages += reading.wrong
            tally.slowest = reading.slowest
            tally.noticed = rig.writeErrors
            tally.told = rig.log.errors.count { $0.hasPrefix("write failed") }
            rig.finish()
        }
        return tally
    }

    /// A file system that takes no writes for a while, and says nothing: what was about to leave is
    /// had back meanwhile, and what has left is read.
    static func frozen(_ system: FileSystem) -> FaultKind {
        FaultKind(
            "\(system) that takes no writes", share: 0, isFailure: false, obstacle: system.obstacle
        ) { _, seed in try freezeDisk(system, seed) }
    }

    private static func freezeDisk(_ system: FileSystem, _ seed: UInt64) throws -> FaultTally {
        let disk = try LoopDisk("frozen-disk", size: system.diskSize(for: 48 << 20))
        defer { disk.end() }
        let folder = try disk.mounted(system)
        var tally = FaultTally()
        do {
            let rig = try FaultRig(TierOptions(.file(path: folder + "/store"), maxBytes: 32 << 20))
            var random = SplitMix(seed: seed)
            rig.evictAll()
            rig.rewrite([], others: .some, &random)
            try NBDServer.run(["fsfreeze", "--freeze", folder])
            // Should a check throw; otherwise, it is done by then, and fails.
            defer { _ = NBDServer.attempt(["fsfreeze", "--unfreeze", folder]) }
            let hasEnded = Lock(false)
            let evictor = try Kernel.Thread(name: "evictor") {
                rig.evictAll()
                hasEnded.withLock { $0 = true }
            }
            #expect(waitUntil { rig.live.pager.counters.stagedPages.value > 0 }, "seed \(seed)")
            Kernel.sleep(nanoseconds: 100_000_000)
            let reading = try rig.readAll(ascending: false, &random)
            #expect(!hasEnded.withLock { $0 }, "the file system was not frozen")
            #expect(reading.lost.isEmpty && rig.log.errors.isEmpty, "seed \(seed)")
            try NBDServer.run(["fsfreeze", "--unfreeze", folder])
            evictor.join()
            rig.evictAll()
            let after = try rig.readAll(ascending: false, &random)
            #expect(after.lost.isEmpty && rig.log.errors.isEmpty, "seed \(seed)")
            tally.injected = 1
            tally.noticed = Int(rig.live.pager.counters.rescues.value)
            tally.wrongPages = reading.wrong + after.wrong
            tally.slowest = reading.slowest
            rig.finish()
        }
        return tally
    }
}
