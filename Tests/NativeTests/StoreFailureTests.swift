import Engine
import Foundation
import Glibc
import Kernel
import Synchronization
import Testing

/// A store that fails, on real memory: what the guest sees is time lost, or an error,
/// and never a wrong byte.
@Suite("A store that fails", .serialized)
struct StoreFailureTests {
    /// 96 MiB of memory under a 32 MiB limit: two thirds must be out.
    private static let pages = (96 << 20) / pageSize

    @Test("to write, being full, leaves the pages in memory and says so once")
    func full() throws {
        let log = HostLog()
        let path = temporaryPath("full")
        let live = try start(.file(path: path, size: TierOptions.deviceSizes.lowerBound), .stop, log)
        let memory = try VersionedMemory(pageCount: Self.pages)
        let region = try attach(memory, to: live)
        for page in 0..<memory.pageCount { memory.advance(page) }
        waitUntil { live.pager.counters.writeErrors.value > 0 }
        var mismatches = 0
        for page in 0..<memory.pageCount where !memory.verify(page) { mismatches += 1 }
        #expect(mismatches == 0)
        #expect(live.pager.counters.returnedPages.value > 0)
        #expect(log.errors.first == "write failed: \(ENOSPC)")
        #expect(log.errors.filter { $0.hasPrefix("write failed") }.count <= 2)
        live.pager.detach(region)
        live.stop()
    }

    @Test("to read makes the access wait, and go on with the right bytes once it can")
    func unreadableThenRecovered() throws {
        let log = HostLog()
        let path = temporaryPath("unreadable")
        let live = try start(.file(path: path, size: 128 << 20), .stop, log)
        let memory = try VersionedMemory(pageCount: Self.pages)
        let region = try attach(memory, to: live)
        for page in 0..<memory.pageCount { memory.advance(page) }
        let page = try #require(storedPage(live, region))
        try live.pager.settings.setLimit(0)  // nothing else moves from here on

        let file = StolenFile(path: path)
        let saved = file.takeAway()
        let verified = Atomic<Int>(-1)
        let reader = try Kernel.Thread(name: "reader") {
            verified.store(memory.verify(page) ? 1 : 0, ordering: .releasing)
        }
        waitUntil { live.pager.counters.waitingPages.value == 1 }
        // Not there, or, where a late write has made the file longer again, not what was written.
        let failures = [EIO, EBADMSG].map { "read failed: \($0) poisoned: false" }
        #expect(log.errors.count == 1 && failures.contains(log.errors[0]))
        #expect(verified.load(ordering: .acquiring) == -1, "the access still waits")

        file.giveBack(saved)
        reader.join()
        #expect(verified.load(ordering: .acquiring) == 1, "every byte is right")
        waitUntil { log.errors.last == "read recovered" }
        #expect(log.errors.last == "read recovered")
        #expect(live.pager.counters.readErrors.value >= 1)
        live.pager.detach(region)
        live.stop()
    }

    @Test("to read poisons the page when a machine check was asked for")
    func machineCheck() throws {
        let log = HostLog()
        let path = temporaryPath("poison")
        let live = try start(.file(path: path, size: 128 << 20), .machineCheck, log)
        let memory = try VersionedMemory(pageCount: Self.pages)
        let region = try attach(memory, to: live)
        for page in 0..<memory.pageCount { memory.advance(page) }
        let page = try #require(storedPage(live, region))
        try live.pager.settings.setLimit(0)

        let file = StolenFile(path: path)
        _ = file.takeAway()
        // A system call gets an errno where a plain access would get SIGBUS.
        #expect(readBySystemCall(region.address(of: page)) != 0)
        #expect(live.pager.counters.poisonedPages.value == 1)
        // The access may end before the host program is told.
        waitUntil { !log.errors.isEmpty }
        let failures = [EIO, EBADMSG].map { "read failed: \($0) poisoned: true" }
        #expect(log.errors.count == 1 && failures.contains(log.errors[0]))
        live.pager.detach(region)
        live.stop()
    }

    @Test("for being in memory itself is refused")
    func memoryFileSystem() throws {
        let path = "/dev/shm/frostline-\(getpid())"
        defer { unlink(path) }
        // Nothing to refuse where it is not mounted.
        guard isTmpfs("/dev/shm") else { return }
        do {
            _ = try StoreFile(path: path, size: TierOptions.deviceSizes.lowerBound)
            Issue.record("a store on tmpfs was opened")
        } catch {
            #expect(error == .noDirectIO)
        }
    }

    private func start(
        _ store: PagerOptions.StoreChoice, _ action: ReadErrorAction, _ log: HostLog
    ) throws -> LivePager {
        try LivePager(
            PagerOptions(
                tracker: .none, store: store, readErrorAction: action,
                limit: Settings.limitMin, idleAge: 0),
            host: log.host)
    }

    private func attach(_ memory: VersionedMemory, to live: LivePager) throws -> Region {
        try live.attach(name: "ram", start: memory.start, length: memory.length)
    }

    /// A page that is in the file, once eviction has come to rest.
    private func storedPage(_ live: LivePager, _ region: Region) -> Int? {
        let counters = live.pager.counters
        waitUntil { counters.pages(in: TierIndex(1)) > Self.pages / 2 }
        // A page that is being prefetched is none.
        var before: UInt64 = .max
        waitUntil {
            defer { before = counters.evictions.value + counters.fetches.value }
            return before == counters.evictions.value + counters.fetches.value
        }
        return (0..<Self.pages).last {
            region.table[$0].state == .stored
                && Locator(payload: region.table[$0].payload).tier == TierIndex(1)
        }
    }
}

/// The pager's store file, taken from under it. It has no name any more, but the
/// process has it open.
struct StolenFile {
    private let link: String

    init(path: String) {
        let name = path.split(separator: "/").last.map(String.init) ?? path
        var found = ""
        let numbers = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd")) ?? []
        for number in numbers {
            var target = [UInt8](repeating: 0, count: 4096)
            let length = readlink("/proc/self/fd/\(number)", &target, target.count)
            if length > 0, String(decoding: target[..<length], as: UTF8.self).contains(name) {
                found = "/proc/self/fd/\(number)"
            }
        }
        precondition(!found.isEmpty, "the store file is not open")
        link = found
    }

    /// A descriptor of the caller's.
    func open() -> Int32 {
        let descriptor = Glibc.open(link, O_RDWR)
        precondition(descriptor >= 0)
        return descriptor
    }

    /// Truncates the file and returns what it held.
    func takeAway() -> [UInt8] {
        let descriptor = open()
        defer { close(descriptor) }
        var status = stat()
        precondition(fstat(descriptor, &status) == 0)
        var contents = [UInt8](repeating: 0, count: Int(status.st_size))
        precondition(pread(descriptor, &contents, contents.count, 0) == contents.count)
        precondition(ftruncate(descriptor, 0) == 0)
        return contents
    }

    func giveBack(_ contents: [UInt8]) {
        let descriptor = open()
        defer { close(descriptor) }
        precondition(pwrite(descriptor, contents, contents.count, 0) == contents.count)
    }
}
