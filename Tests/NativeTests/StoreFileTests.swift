import Engine
import Foundation
import Glibc
import Kernel
import Testing

/// A store's file on the real kernel, apart from any pager.
@Suite("A store's file", .serialized)
final class StoreFileTests {
    private static let pages = 8

    private let device: LinuxDevice
    private let memory: Mapping

    init() throws {
        device = LinuxDevice(
            try StoreFile(path: temporaryPath("store-file"), size: 2 << 20))
        memory = try Mapping(length: Self.pages * pageSize)
    }

    private func page(_ index: Int) -> UnsafeMutableRawPointer { memory.base + index * pageSize }

    private func fill(_ index: Int, _ byte: UInt8) {
        page(index).initializeMemory(as: UInt8.self, repeating: byte, count: pageSize)
    }

    private func holds(_ index: Int, _ byte: UInt8) -> Bool {
        UnsafeRawBufferPointer(start: page(index), count: pageSize).allSatisfy { $0 == byte }
    }

    /// From or to a page of memory, of the file's page `place`.
    private func transfer(_ index: Int, at place: Int, token: UInt64) -> Transfer {
        Transfer(
            memory: UInt64(UInt(bitPattern: page(index))), length: pageSize,
            offset: UInt64(place * pageSize), token: token)
    }

    private func reap(
        _ queue: TransferQueue, of other: LinuxDevice? = nil, wait: Bool
    ) -> [TransferCompletion] {
        withUnsafeTemporaryAllocation(of: TransferCompletion.self, capacity: 8) { completions in
            let count = (other ?? device).reap(queue, into: completions, wait: wait)
            return Array(completions[..<count])
        }
    }

    @Test("begins once, and later, what the kernel did not take")
    func refusedSubmission() throws {
        for place in 0..<2 {
            fill(place, UInt8(place + 1))
            #expect(device.write(transfer(place, at: place, token: UInt64(place))) == nil)
            #expect(reap(.evict, wait: true).count == 1)
        }
        // The kernel answers EOPNOTSUPP where the descriptor is not a ring's.
        let ring = device.fetchDescriptors[0]
        let kept = dup(ring)
        let other = open("/dev/null", O_RDONLY)
        try #require(kept >= 0 && other >= 0)
        #expect(dup2(other, ring) == ring)
        #expect(device.read(transfer(2, at: 0, token: 100)) == nil)
        for _ in 0..<100 { #expect(!device.startReads()) }
        #expect(device.read(transfer(3, at: 1, token: 101)) == nil)
        #expect(!device.startReads())
        #expect(reap(.fetch, wait: false).isEmpty)
        #expect(dup2(kept, ring) == ring)
        close(kept)
        close(other)

        #expect(device.startReads())
        var completions: [TransferCompletion] = []
        while completions.count < 2 { completions += reap(.fetch, wait: true) }
        #expect(completions.map(\.token).sorted() == [100, 101])
        #expect(completions.allSatisfy { Int($0.result) == pageSize })
        #expect(holds(2, 1) && holds(3, 2))
        #expect(reap(.fetch, wait: false).isEmpty)
    }

    @Test(
        "takes space in its file system when it is set aside or written, and gives it back",
        .enabled(if: !FileSystem.usable.isEmpty, "no file system can be mounted here"),
        arguments: FileSystem.usable)
    func space(system: FileSystem) throws {
        let disk = try LoopDisk("store-space", size: system.diskSize(for: 64 << 20))
        defer { disk.end() }
        let folder = try disk.mounted(system)
        func used() throws -> Int {
            var status = statvfs()
            try #require(statvfs(folder, &status) == 0)
            return Int(status.f_blocks - status.f_bfree) * Int(status.f_frsize)
        }
        // What the file system takes for itself.
        let slack = 1 << 20
        let length = UInt64(8 << 20)
        let device = LinuxDevice(try StoreFile(path: folder + "/store", size: 32 << 20))
        let before = try used()
        #expect(device.allocate(offset: 0, length: length) == nil)
        #expect(try abs(used() - before - Int(length)) < slack)
        for index in 0..<Self.pages {
            fill(index, UInt8(index + 1))
            // In the middle of what was set aside, and of what was not.
            for (queue, place) in [(0, 100 + index), (1, 4000 + index)] {
                #expect(device.write(transfer(index, at: place, token: UInt64(queue))) == nil)
                let completions = reap(.evict, of: device, wait: true)
                #expect(completions.allSatisfy { Int($0.result) == pageSize })
            }
        }
        #expect(device.discard(offset: 0, length: length) == nil)
        #expect(try used() - before < slack)
        for index in 0..<Self.pages {
            #expect(device.readBack(transfer(index, at: 4000 + index, token: 0)) == nil)
            #expect(reap(.evict, of: device, wait: true).count == 1)
            #expect(holds(index, UInt8(index + 1)))
            #expect(device.readBack(transfer(index, at: 100 + index, token: 0)) == nil)
            #expect(reap(.evict, of: device, wait: true).count == 1)
            #expect(holds(index, 0))
        }
    }

    @Test("is no block device that is in use otherwise", .enabled(if: LoopDevice.isThere))
    func deviceInUse() throws {
        let loop = try LoopDevice(size: 4 << 20)
        func openFailure() -> StoreFile.OpenFailure? {
            do throws(StoreFile.OpenFailure) {
                _ = try StoreFile(path: loop.path, size: 2 << 20)
                return nil
            } catch {
                return error
            }
        }
        #expect(openFailure() == nil)
        // As a mount has it, and device-mapper.
        let user = open(loop.path, O_RDONLY | O_EXCL)
        try #require(user >= 0)
        #expect(openFailure() == .inUse)
        let options = PagerOptions(
            tracker: .none, store: .file(path: loop.path, size: 2 << 20), readErrorAction: .stop,
            limit: Settings.limitMin, idleAge: 0)
        do throws(SetupFailure) {
            _ = try LivePager(options, host: HostLog().host)
            Issue.record("a block device that is in use was taken")
        } catch {
            #expect(error.errno == .busy && error.message.contains("is mounted, or in use"))
        }
        close(user)
        #expect(openFailure() == nil)
    }
}

/// A block device over a file of its own, where this user may have one.
private final class LoopDevice {
    let path: String
    private let backing: NBDBacking

    static let isThere = geteuid() == 0 && (try? LoopDevice(size: 4 << 20)) != nil

    init(size: Int) throws {
        backing = try NBDBacking("loop-device", size: size)
        path = try NBDServer.output(["losetup", "--find", "--show", backing.path])
            .trimmingCharacters(in: .whitespacesAndNewlines)
    }

    deinit { _ = try? NBDServer.run(["losetup", "--detach", path]) }
}
