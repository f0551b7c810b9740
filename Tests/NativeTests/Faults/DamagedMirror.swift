import Engine
import Glibc
import Kernel
import SeededRandom
import Testing

extension FaultKind {
    /// Bits of one of two copies. The other is read instead: no page is lost, and still the
    /// operator can see that one place does not keep what it is given.
    static let damagedMirror = FaultKind("bit flip in a mirrored file", share: 0, isFailure: false) {
        _, seed in
        let paths = [temporaryPath("mirror-one"), temporaryPath("mirror-other")]
        var options = TierOptions(.file(path: paths[0]), maxBytes: 32 << 20)
        options.mirror = TierOptions.Mirror(TierOptions(.file(path: paths[1]), maxBytes: 32 << 20))
        let rig = try FaultRig(options)
        let descriptors = paths.map { StolenFile(path: $0).open() }
        defer { for descriptor in descriptors { close(descriptor) } }
        var random = SplitMix(seed: seed)
        var tally = FaultTally()
        for round in 0..<4 {
            rig.evictAll()
            let places = rig.stored().map(\.place)
            let file = AlteredFile(descriptor: descriptors[round % 2], places: places)
            tally.injected += file.flip(&random).count
            let reading = try rig.readAll(ascending: round % 4 > 1, &random)
            #expect(reading.lost.isEmpty, "seed \(seed)")
            tally.wrongPages += reading.wrong
            tally.slowest = max(tally.slowest, reading.slowest)
            rig.rewrite([], others: .all, &random)
        }
        // Only of the side that was being read: from its first failure on, the other is.
        tally.noticed = rig.readErrors
        #expect(tally.noticed > 0 && tally.noticed <= tally.injected, "seed \(seed)")
        #expect(rig.live.pager.counters.readErrors.value == 0, "seed \(seed)")
        #expect(waitUntil { rig.log.warnings.contains { $0.contains("one of its two places") } })
        tally.told = rig.log.unawaitedReadFailures.count
        #expect(tally.told > 0, "seed \(seed)")
        #expect(rig.log.errors.isEmpty, "seed \(seed)")
        rig.finish()
        return tally
    }
}
