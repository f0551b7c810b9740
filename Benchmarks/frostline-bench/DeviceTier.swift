import CBareLoops
import CCodec
import CCrypto
import Engine
import Kernel

/// A tier on a device: how long a page takes to come back, how fast pages leave, what sealing
/// costs, and what the log writes for room.
struct DeviceTier {
    let bench: Bench

    private static let store = ".build/bench/store"

    private func rig(_ guest: Guest, size: UInt64? = nil) throws -> PagerRig {
        try PagerRig(guest, store: .file(path: Self.store, size: size ?? 2 * guest.length))
    }

    // MARK: Faults

    /// p50, p99 and p99.9 of single faults, in µs.
    func runFaults() throws -> [Result] {
        let guest = try Guest(pageCount: bench.pageCount)
        let floorGuest = try Guest(pageCount: bench.pageCount)
        let codec = try SealedPages(of: guest)
        let descriptor = bare_file_create(".build/bench/floor", guest.base, guest.length)
        guard descriptor >= 0 else {
            throw BenchmarkFailure("cannot create .build/bench/floor: \(Errno(-descriptor).text)")
        }
        defer { bare_close(descriptor) }
        let rig = try rig(guest)
        defer { rig.close() }
        rig.evict(0..<guest.pageCount)
        var ours: [[UInt32]] = []
        var bare: [Wait: [[UInt32]]] = [:]
        var open: [Double] = []
        for part in 0..<bench.fileRounds {
            ours.append(guest.touch(part: part))
            rig.evict(guest.pages(ofPart: part))
            for wait in [Wait.poll, .yield] {
                bare[wait, default: []].append(
                    try withBareServer(floorGuest, part: part, .file(descriptor), wait, cpu: -1) {
                        floorGuest.touch(part: part)
                    })
            }
            open.append(codec.openBare(guest.order(ofPart: part)))
        }
        return [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)].map { name, share in
            func of(_ rounds: [[UInt32]]) -> Double { median(rounds.map { percentile($0, share) }) / 1e3 }
            let best = bare.min { of($0.value) < of($1.value) }!
            return Result(
                "fault/file/\(name)", of(ours), "us", floor: of(best.value) + median(open) / 1e3,
                "a bare loop (O_DIRECT pread of the page, one at a time, UFFDIO_COPY; "
                    + "\(best.key.text), the best there), plus \(codec.cipherName) and LZ4 decompression "
                    + "of one page")
        }
    }

    // MARK: Eviction

    func runEviction() throws -> [Result] {
        try eviction("evict/file", try Guest(pageCount: bench.pageCount)).run()
    }

    /// As under a limit that the guest is beyond.
    func runHurried() throws -> [Result] {
        let guest = try Guest(pageCount: bench.pageCount)
        // More than half of it stays free: else pages are compressed, to make room.
        let store = PagerOptions.StoreChoice.file(path: Self.store, size: 8 * guest.length)
        var eviction = try eviction("evict/file/hurried", guest, store)
        eviction.isHurried = true
        return try eviction.run()
    }

    func runPreallocated() throws -> [Result] {
        var tier = TierOptions(.file(path: Self.store), maxBytes: 4 * UInt64(bench.pageCount * pageSize))
        tier.preallocates = true
        let guest = try Guest(pageCount: bench.pageCount)
        return try eviction("evict/file/preallocated", guest, .tiers([tier])).run()
    }

    /// Pages that LZ4 gives up on: the device has more to do, and the CPU less.
    func runIncompressible() throws -> [Result] {
        let guest = try Guest(pageCount: bench.pageCount)
        guest.fillWithNoise()
        return try eviction("evict/file/incompressible", guest).run()
    }

    private func eviction(
        _ name: String, _ guest: Guest, _ store: PagerOptions.StoreChoice? = nil
    ) throws -> DeviceEviction {
        let alike = try guest.copy()
        return DeviceEviction(
            bench: bench, name: name, guest: guest, alike: alike,
            store: store ?? .file(path: Self.store, size: 4 * guest.length), device: FloorFile(alike))
    }

    // MARK: CPU

    func runCosts() throws -> [Result] {
        let guest = try Guest(pageCount: bench.pageCount)
        let codec = try SealedPages(of: guest)
        let memory = try SealedMemory(of: guest)
        var (sealMemory, openMemory) = ([Double](), [Double]())
        var seal: [Double] = []
        var bareSeal: [Double] = []
        var open: [Double] = []
        var bareOpen: [Double] = []
        for part in 0..<bench.rounds {
            let order = guest.order(ofPart: part)
            seal.append(codec.seal(order))
            bareSeal.append(codec.sealBare(order))
            open.append(codec.open(order))
            bareOpen.append(codec.openBare(order))
            sealMemory.append(memory.seal(order))
            openMemory.append(memory.open(order))
        }
        let name = codec.cipherName
        return [
            Result(
                "cpu-per-page/seal", median(seal), "ns", floor: median(bareSeal),
                "LZ4 compression and \(name) of its bytes alone; CPU time of both"),
            Result(
                "cpu-per-page/open", median(open), "ns", floor: median(bareOpen),
                "\(name) and LZ4 decompression alone; CPU time of both"),
            Result(
                "cpu-per-page/seal/compressed-ram", median(sealMemory), "ns", floor: median(bareSeal),
                "the same bare functions; ours is the put of compressed memory that is sealed"),
            Result(
                "cpu-per-page/open/compressed-ram", median(openMemory), "ns", floor: median(bareOpen),
                "the same bare functions; ours is the get of compressed memory that is sealed"),
        ]
    }

    // MARK: Write amplification

    /// The device three quarters full; then pages are changed at random, half as many as there
    /// are at a time, and leave again.
    func runChurn() throws -> [Result] {
        let guest = try Guest(pageCount: bench.pageCount)
        // What all pages come to, once, tells the size of the device.
        var bytes: UInt64 = 0
        do {
            let rig = try rig(guest)
            defer { rig.close() }
            rig.evict(0..<guest.pageCount)
            guard case .log(let log) = rig.live.pager.store.tiers[0].backing else { return [] }
            bytes = log.writtenBytes.value
            _ = guest.touch(part: 0)
        }
        let fresh = try Guest(pageCount: bench.pageCount)
        let size = (bytes * 4 / 3 / UInt64(hugePageSize) + 1) * UInt64(hugePageSize)
        let rig = try rig(fresh, size: size)
        defer { rig.close() }
        rig.evict(0..<fresh.pageCount)
        guard case .log(let log) = rig.live.pager.store.tiers[0].backing else { return [] }
        let before = (log.writtenBytes.value, log.rewrittenBytes.value)
        let group = 64
        for _ in 0..<4 {
            for _ in 0..<fresh.pageCount / 2 / group {
                let pages = (0..<group).map { _ in Int.random(in: 0..<fresh.pageCount) }
                for page in pages { fresh.touch(page, isWrite: true) }
                for page in Set(pages) { rig.evict(page..<page + 1) }
            }
        }
        let written = Double(log.writtenBytes.value - before.0)
        let rewritten = Double(log.rewrittenBytes.value - before.1)
        precondition(rig.live.pager.counters.writeErrors.value == 0, "the device was full")
        return [
            Result(
                "write-amplification", (written + rewritten) / written, "of 1", floor: nil,
                "bytes written to a device that is 75 % full, by those of pages that leave, while twice as "
                    + "many pages as there are, picked at random, are changed and leave again")
        ]
    }
}

/// The guest's pages as objects of a device, by the engine and by the libraries alone. One thread
/// at a time.
final class SealedPages: @unchecked Sendable {
    private let guest: Guest
    private let coder: ObjectCoder
    private let cipher: Sealer.Cipher
    private var key: OpaquePointer?
    private let nonce = [UInt8](repeating: 1, count: 12)
    private var tags: [[UInt8]]
    private let objects: Mapping
    private let sealed: Mapping
    private var sectors: [Int]
    private let scratch: Mapping
    private let state: Mapping
    private static let step = 2 * pageSize
    private let position = Sealer.Position(serial: 1, sector: 1)

    init(of guest: Guest) throws {
        self.guest = guest
        let sealer = try Sealer()
        cipher = sealer.cipher
        coder = try ObjectCoder(tier: TierIndex(1), sealer: sealer)
        guard ccrypto_key_random(cipher.rawValue, &key) == 0 else { throw BenchmarkFailure("no key") }
        objects = try Mapping(length: guest.pageCount * Self.step)
        sealed = try Mapping(length: guest.pageCount * Self.step)
        scratch = try Mapping(length: Self.step)
        state = try Mapping(length: roundUp(Int(ccodec_lz4_state_size()), to: pageSize))
        sectors = Array(repeating: 0, count: guest.pageCount)
        tags = Array(repeating: [UInt8](repeating: 0, count: 16), count: guest.pageCount)
        let all = (0..<UInt32(guest.pageCount)).map { $0 }[...]
        _ = seal(all)
        _ = sealBare(all)
    }

    deinit { ccrypto_key_free(key) }

    var cipherName: String { "\(cipher.name)" }

    private func identity(_ page: UInt32) -> PageIdentity { PageIdentity(block: 1, page: page) }

    /// Each of these: nanoseconds of CPU time a page.
    func seal(_ order: ArraySlice<UInt32>) -> Double {
        cpuTime {
            for page in order {
                let contents = coder.contents(of: guest.base + Int(page) * pageSize)
                coder.write(
                    contents, to: objects.base + Int(page) * Self.step, at: position, identity(page))
                sectors[Int(page)] = contents.sectors
            }
        } / Double(order.count)
    }

    func open(_ order: ArraySlice<UInt32>) -> Double {
        cpuTime {
            for page in order {
                // Opening takes what it opens to pieces, so a copy, as a device's read is one.
                scratch.base.copyMemory(
                    from: objects.base + Int(page) * Self.step, byteCount: sectors[Int(page)] * 512)
                let isOpen = coder.read(
                    scratch.base, sectors: sectors[Int(page)], at: position, identity(page),
                    into: scratch.base + pageSize)
                precondition(isOpen)
            }
        } / Double(order.count)
    }

    func sealBare(_ order: ArraySlice<UInt32>) -> Double {
        cpuTime {
            for page in order {
                let target = sealed.base + Int(page) * Self.step
                let length = ccodec_lz4_compress(
                    state.base, guest.base + Int(page) * pageSize, Int32(pageSize), scratch.base,
                    Int32(pageSize - 64))
                target.storeBytes(of: Int64(length), as: Int64.self)
                let source = length > 0 ? scratch.base : guest.base + Int(page) * pageSize
                ccrypto_seal(
                    key, nonce, nonce, nonce.count, source, length > 0 ? Int(length) : pageSize,
                    target + 8, &tags[Int(page)])
            }
        } / Double(order.count)
    }

    func openBare(_ order: ArraySlice<UInt32>) -> Double {
        cpuTime {
            for page in order {
                let source = sealed.base + Int(page) * Self.step
                let length = Int(source.load(as: Int64.self))
                let answer = ccrypto_open(
                    key, nonce, nonce, nonce.count, source + 8, length, tags[Int(page)], scratch.base)
                precondition(answer == 0)
                let page = ccodec_lz4_decompress(
                    scratch.base, Int32(length), scratch.base + pageSize, Int32(pageSize))
                precondition(page == 0)
            }
        } / Double(order.count)
    }
}
