import Engine
import Glibc
import Kernel
import SeededRandom
import Testing

extension FaultKind {
    /// Reads, or writes, of a log that makes room for what is to come: nobody waits for them, and
    /// nothing is lost, but they are counted, and the host program is told: of a tier that does not
    /// take pages once, for whatever reason.
    static let failingCompaction = FaultKind("compaction that fails", share: 0, isFailure: false) {
        _, seed in
        var tally = FaultTally()
        for parameter in ["error-pread-rate=100%", "error-pwrite-rate=100%"] {
            let server = try FailingServer("compaction", size: "12M", filters: ["error"], [parameter])
            defer { server.end() }
            let rig = try FaultRig(TierOptions(.nbd(uri: server.uri)))
            var random = SplitMix(seed: seed)
            // No pass makes room before the one that is to fail.
            rig.live.pager.settings.setMode(.off)
            // A few pages at a time, so that no more room is made than these want.
            for _ in 0..<3 {
                rig.evictAll(pagesAtOnce: 8)
                let chosen = (0..<FaultRig.pages).filter { _ in random.below(2) == 0 }
                rig.rewrite(Set(chosen), others: .none, &random)
            }
            rig.evictAll(pagesAtOnce: 8)
            #expect(try server.errors == 0)
            #expect(rig.readErrors == 0 && rig.writeErrors == 0, "seed \(seed)")
            let told = rig.log.errors
            let reads = rig.tier.reads.load(ordering: .relaxed)

            server.isFailing = true
            rig.live.pager.settings.setMode(.active)
            // The next pass, which looks after the log's room, and has nothing to evict.
            rig.live.settingsChanged()
            let isRead = parameter.contains("pread")
            #expect(
                waitUntil { (isRead ? rig.readErrors : rig.writeErrors) > 0 }, "\(parameter), seed \(seed)")
            #expect(rig.tier.reads.load(ordering: .relaxed) == reads, "nobody wanted a page")
            server.isFailing = false

            let reading = try rig.readAll(ascending: true, &random)
            #expect(reading.lost.isEmpty, "\(parameter), seed \(seed)")
            #expect(rig.log.errors == told, "\(parameter), seed \(seed)")
            let isTold = waitUntil {
                isRead
                    ? rig.log.unawaitedReadFailures == ["tier 0: \(EBADMSG)"]
                    : rig.log.errors.contains { $0.hasPrefix("write failed") }
            }
            #expect(isTold, "\(parameter), seed \(seed)")
            tally.injected += try server.errors
            tally.noticed += rig.readErrors + rig.writeErrors
            tally.wrongPages += reading.wrong
            tally.slowest = max(tally.slowest, reading.slowest)
            rig.finish()
        }
        return tally
    }
}
