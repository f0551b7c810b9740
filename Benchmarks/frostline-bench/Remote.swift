import CBareLoops
import Engine
import Foundation
import Kernel

/// An NBD export in the memory of an nbdkit on this machine, over a Unix socket: what is measured
/// is the way there, ours beside libnbd's own.
struct Remote {
    let bench: Bench

    static let depths = [1, 4, 16, 64]

    /// Random reads per second through the device's fetch queue, so many under way.
    func rate(depth: Int) throws -> [Result] {
        guard let server = try RemoteServer() else { return [] }
        defer { server.stop() }
        let guest = try Guest(pageCount: bench.pageCount)
        let device = try NBDDevice(NBDOptions(uri: server.uri)) { _ in }
        let bare = try BareExport(server.uri, guest)
        let buffers = try Mapping(length: depth * pageSize)
        var ours: [Double] = []
        var floor: [Double] = []
        for part in 0..<bench.fileRounds * 4 {
            let order = Array(guest.order(ofPart: part))
            ours.append(read(order, device, buffers, depth))
            floor.append(try bare.rate(order, depth: depth))
        }
        return [
            Result(
                "reads/nbd/\(depth)", median(ours), "/s", floor: median(floor),
                "libnbd alone: random 4 KiB reads over one connection, as many under way")
        ]
    }

    func eviction() throws -> [Result] {
        guard let server = try RemoteServer() else { return [] }
        defer { server.stop() }
        guard let other = try RemoteServer() else { return [] }
        defer { other.stop() }
        let guest = try Guest(pageCount: bench.pageCount)
        let alike = try guest.copy()
        return try DeviceEviction(
            bench: bench, name: "evict/nbd", guest: guest, alike: alike,
            store: .tiers([TierOptions(.nbd(uri: server.uri))]),
            device: FloorExport(other.uri, alike)
        ).run()
    }

    private func read(
        _ order: [UInt32], _ device: NBDDevice, _ buffers: borrowing Mapping, _ depth: Int
    ) -> Double {
        var next = 0
        var free = Array(0..<depth)
        let start = monotonicNow()
        withUnsafeTemporaryAllocation(of: TransferCompletion.self, capacity: depth) { completions in
            while next < order.count || free.count < depth {
                while next < order.count, let buffer = free.popLast() {
                    let memory = buffers.base + buffer * pageSize
                    let errno = device.read(
                        Transfer(
                            memory: UInt64(UInt(bitPattern: memory)), length: pageSize,
                            offset: UInt64(order[next]) * UInt64(pageSize), token: UInt64(buffer)))
                    precondition(errno == nil)
                    next += 1
                }
                let count = device.reap(.fetch, into: completions, wait: true)
                for index in 0..<count {
                    precondition(completions[index].result == pageSize)
                    free.append(Int(completions[index].token))
                }
            }
        }
        return Double(order.count) * 1e9 / Double(monotonicNow() - start)
    }

    /// Single faults, in µs.
    func faultTimes() throws -> [Result] {
        try [Placement.sameCPU, .free].flatMap { try faultTimes($0) }
    }

    private func faultTimes(_ placement: Placement) throws -> [Result] {
        guard let server = try RemoteServer() else { return [] }
        defer { server.stop() }
        guard let other = try RemoteServer() else { return [] }
        defer { other.stop() }
        let guest = try Guest(pageCount: bench.pageCount)
        let floorGuest = try Guest(pageCount: bench.pageCount)
        let bare = try BareExport(other.uri, floorGuest)
        let codec = try SealedPages(of: guest)
        let rig = try PagerRig(guest, store: .tiers([TierOptions(.nbd(uri: server.uri))]))
        defer { rig.close() }
        rig.pinServer(toCPU: placement.servingCPU)
        bench_pin(placement.faultingCPU)
        defer { bench_pin(-1) }
        rig.evict(0..<guest.pageCount)
        var ours: [[UInt32]] = []
        var floors: [Wait: [[UInt32]]] = [:]
        var open: [Double] = []
        for part in 0..<bench.fileRounds {
            ours.append(guest.touch(part: part))
            rig.evict(guest.pages(ofPart: part))
            for wait in placement.waits where wait != .spin {
                floors[wait, default: []].append(
                    try withBareServer(
                        floorGuest, part: part, .nbd(bare.handle), wait, cpu: placement.servingCPU
                    ) { floorGuest.touch(part: part) })
            }
            open.append(codec.openBare(guest.order(ofPart: part)))
        }
        return [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)].map { name, share in
            func of(_ rounds: [[UInt32]]) -> Double { median(rounds.map { percentile($0, share) }) / 1e3 }
            let best = floors.min { of($0.value) < of($1.value) }!
            return Result(
                "fault/nbd/\(placement.rawValue)/\(name)", of(ours), "us",
                floor: of(best.value) + median(open) / 1e3,
                "a bare loop \(placement.sentence) that reads the page by nbd_pread, UFFDIO_COPY "
                    + "(\(best.key.text), the best there), plus \(codec.cipherName) and LZ4 "
                    + "decompression of one page")
        }
    }
}

/// libnbd alone, with the guest's pages in the export's first.
final class BareExport {
    let handle: OpaquePointer

    init(_ uri: String, _ guest: Guest) throws {
        var opened: OpaquePointer?
        guard bare_nbd_open(uri, &opened) == 0, let opened else {
            throw BenchmarkFailure("libnbd cannot connect to \(uri)")
        }
        handle = opened
        guard bare_nbd_fill(handle, guest.base, guest.length) == 0 else {
            throw BenchmarkFailure("libnbd cannot write to \(uri)")
        }
    }

    deinit { bare_nbd_close(handle) }

    func rate(_ order: [UInt32], depth: Int) throws -> Double {
        var elapsed: UInt64 = 0
        let answer = bare_nbd_read_many(handle, order, Int32(order.count), Int32(depth), &elapsed)
        guard answer == 0 else { throw BenchmarkFailure("libnbd cannot read") }
        return Double(order.count) * 1e9 / Double(elapsed)
    }
}

/// An nbdkit of our own.
final class RemoteServer {
    private let process = Process()
    private let socket: String
    private nonisolated(unsafe) static var count = 0

    var uri: String { "nbd+unix:///?socket=\(socket)" }

    /// Nil, and says why, where it cannot be had. `delay`: what its reads take besides, as nbdkit
    /// has it.
    init?(delay: String? = nil) throws {
        Self.count += 1
        let folder = FileManager.default.currentDirectoryPath + "/.build/bench"
        socket = "\(folder)/nbd-\(ProcessInfo.processInfo.processIdentifier)-\(Self.count)"
        let log = "\(socket).log"
        _ = FileManager.default.createFile(atPath: log, contents: nil)
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        let filter = delay == nil ? [] : ["--filter=delay"]
        let parameters = delay.map { ["rdelay=\($0)"] } ?? []
        process.arguments = ["nbdkit", "-f", "-U", socket] + filter + ["memory", "256M"] + parameters
        process.standardError = FileHandle(forWritingAtPath: log)
        try process.run()
        // It takes connections a moment after its socket is there.
        while process.isRunning, !FileManager.default.fileExists(atPath: socket) {
            Kernel.sleep(nanoseconds: 10_000_000)
        }
        Kernel.sleep(nanoseconds: 100_000_000)
        guard process.isRunning else {
            print("nbd: not measured, nbdkit does not run; see \(log)")
            return nil
        }
    }

    /// Whatever is still connected.
    func stop() {
        kill(process.processIdentifier, SIGKILL)
        process.waitUntilExit()
        unlink(socket)
        unlink(socket + ".log")
    }
}
