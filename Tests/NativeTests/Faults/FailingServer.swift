import Engine
import Foundation
import Glibc
import Kernel
import SeededRandom
import Testing

/// nbdkit with filters that make it fail, and one before them that writes down each answer: the
/// injector's own account of what it did.
final class FailingServer {
    let uri: String
    private let server: NBDServer
    private let trigger: String
    private let record: String

    /// `filters`: beside the one that writes; they begin to fail when `isFailing` is set.
    init(_ name: String, size: String = "128M", filters: [String], _ parameters: [String]) throws {
        let socket = temporaryPath("\(name).sock")
        trigger = temporaryPath("\(name)-trigger")
        record = temporaryPath("\(name)-record")
        unlink(trigger)
        unlink(record)
        uri = "nbd+unix:///?socket=\(socket)"
        let failing = filters.contains("error") ? ["error-file=\(trigger)"] : []
        server = try NBDServer(
            ["nbdkit", "-f", "-U", socket, "-t", "64", "--filter=log"]
                + filters.map { "--filter=\($0)" } + ["memory", size, "logfile=\(record)"]
                + failing + parameters, socket: socket)
    }

    var isFailing = false {
        didSet {
            if isFailing { Glibc.close(open(trigger, O_WRONLY | O_CREAT, 0o600)) } else { unlink(trigger) }
        }
    }

    /// Answers so far that contain `words`.
    func answers(_ words: String) throws -> Int {
        let lines = try Data(contentsOf: URL(fileURLWithPath: record))
        let pattern = Data(words.utf8)
        var count = 0
        var start = lines.startIndex
        while let found = lines.range(of: pattern, in: start..<lines.endIndex) {
            count += 1
            start = found.upperBound
        }
        return count
    }

    var errors: Int { get throws { try answers("return=-1") } }

    func end() {
        server.kill()
        for path in [trigger, record] { unlink(path) }
    }
}

extension FaultKind {
    /// Reads of a pager's, of which one in four is answered with an error. Each costs a page.
    static let readErrors = FaultKind("read error of a server", share: 30) { wanted, seed in
        var random = SplitMix(seed: seed)
        let server = try FailingServer("read-error", filters: ["error"], ["error-pread-rate=25%"])
        defer { server.end() }
        let rig = try FaultRig(TierOptions(.nbd(uri: server.uri)))
        server.isFailing = true
        var tally = FaultTally()
        var isAscending = false
        while rig.readErrors < wanted {
            rig.evictAll()
            let reading = try rig.readAll(ascending: isAscending, &random)
            tally.wrongPages += reading.wrong
            tally.slowest = max(tally.slowest, reading.slowest)
            rig.rewrite(reading.lost, others: .some, &random)
            isAscending.toggle()
        }
        tally.injected = try server.errors
        tally.noticed = rig.readErrors
        tally.told = rig.poisonings
        #expect(tally.noticed == tally.injected, "seed \(seed): those of reads ahead are counted, too")
        #expect(rig.live.pager.counters.readErrors.value == UInt64(tally.injected), "seed \(seed)")
        #expect(UInt64(tally.told) == rig.live.pager.counters.poisonedPages.value, "seed \(seed)")
        rig.finish()
        return tally
    }

    /// Reads and writes of a device, of which one in ten, and one in five, are answered with an error.
    static let exportErrors = FaultKind("error of an export", share: 20) { wanted, seed in
        let server = try FailingServer(
            "export-error", filters: ["error"],
            ["error-pread-rate=10%", "error-pwrite-rate=20%", "error-pwrite=ENOSPC"])
        defer { server.end() }
        let log = NBDLog()
        let device = try NBDDevice(NBDOptions(uri: server.uri), report: log.add)
        let exercise = try NBDExercise(device)
        exercise.prepare()
        server.isFailing = true
        var outcome = NBDExercise.Outcome()
        var round: UInt64 = 0
        while outcome.errors < wanted {
            outcome =
                try outcome + exercise.run(evictRounds: 2, fetches: 2000, seed: seed &+ round, largest: 4)
            round += 2
        }
        var tally = FaultTally()
        tally.injected = try server.errors
        let readErrors = Int(device.counters.readErrors.load(ordering: .relaxed))
        let writeErrors = Int(device.counters.writeErrors.load(ordering: .relaxed))
        tally.noticed = readErrors + writeErrors
        tally.told = outcome.errors
        tally.wrongPages = outcome.wrongPages
        tally.slowest = outcome.slowest
        #expect(tally.noticed == tally.injected, "seed \(seed)")
        #expect(outcome.readErrors == [EIO: readErrors], "seed \(seed)")
        #expect(outcome.writeErrors == [ENOSPC: writeErrors], "seed \(seed)")
        #expect(log.all.isEmpty, "seed \(seed): no connection is lost")
        return tally
    }

    /// Writes of a pager's that fail: it stops writing at the first ones, says so, and goes on by
    /// itself when the server has recovered.
    static let refusedEvictions = FaultKind("eviction that fails", share: 0) { _, seed in
        let server = try FailingServer(
            "eviction", filters: ["error"], ["error-pwrite-rate=50%", "error-pwrite=ENOSPC"])
        defer { server.end() }
        let rig = try FaultRig(TierOptions(.nbd(uri: server.uri)))
        var random = SplitMix(seed: seed)
        var tally = FaultTally()
        for round in 1...2 {
            server.isFailing = true
            #expect(
                waitUntil {
                    rig.evictAll()
                    return rig.log.errors.count { $0 == "write failed: \(ENOSPC)" } == round
                }, "seed \(seed)")
            #expect(rig.tier.state == .failing)
            server.isFailing = false
            #expect(
                waitUntil {
                    rig.evictAll()
                    return rig.log.errors.count { $0 == "write recovered" } == round
                }, "seed \(seed)")
            let reading = try rig.readAll(ascending: true, &random)
            #expect(reading.lost.isEmpty, "seed \(seed)")
            tally.wrongPages += reading.wrong
            tally.slowest = max(tally.slowest, reading.slowest)
            rig.rewrite([], others: .all, &random)
        }
        tally.injected = try server.errors
        // Pages, of which there are several in a write.
        tally.noticed = rig.writeErrors
        tally.told = rig.log.errors.count { $0.hasPrefix("write failed") }
        #expect(rig.live.pager.counters.returnedPages.value >= UInt64(tally.injected), "seed \(seed)")
        rig.finish()
        return tally
    }

    /// A server that takes its time over each read.
    static let delays = FaultKind("delay of a server", share: 0, isFailure: false) { _, seed in
        var random = SplitMix(seed: seed)
        let server = try FailingServer("delay", filters: ["delay"], ["delay-read=5ms"])
        defer { server.end() }
        let rig = try FaultRig(TierOptions(.nbd(uri: server.uri)))
        rig.evictAll()
        let reading = try rig.readAll(ascending: false, &random)
        #expect(reading.lost.isEmpty && rig.log.errors.isEmpty, "seed \(seed)")
        #expect(reading.slowest >= 5_000_000)
        var tally = FaultTally()
        tally.injected = try server.answers("...Read ")
        tally.noticed = Int(rig.live.pager.counters.fetches.value)
        tally.wrongPages = reading.wrong
        tally.slowest = reading.slowest
        rig.finish()
        return tally
    }
}
