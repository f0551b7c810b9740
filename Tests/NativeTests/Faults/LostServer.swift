import Engine
import Glibc
import Kernel
import SeededRandom
import Testing

/// Servers and connections that go away while they are used.
extension FaultKind {
    /// Connections that are cut in the middle of what is said over them.
    static let cuts = FaultKind("connection that is cut", share: 1) { wanted, seed in
        let (socket, linked) = (temporaryPath("cut.sock"), temporaryPath("cut-link.sock"))
        let backing = try NBDBacking("cut", size: 64 << 20)
        // When a client has gone before it got its answer, nbdkit 1.32 fails an assertion.
        let server = try NBDServer(
            ["qemu-nbd", "-t", "-f", "raw", "-e", "16", "-k", socket, backing.path], socket: socket)
        let link = try CutLink(linked, server: socket, seed: seed)
        let log = NBDLog()
        let device = try NBDDevice(NBDOptions(uri: "nbd+unix:///?socket=\(linked)"), report: log.add)
        let exercise = try NBDExercise(device)
        exercise.prepare()
        link.beginCutting()
        let outcome = try exercise.run(seed: seed) {
            #expect(waitUntil { link.cuts >= wanted }, "seed \(seed)")
            link.endCutting()
        }
        let isBack = log.waitFor { notices in
            if case .back? = notices.last { return true }
            return false
        }
        #expect(isBack, "seed \(seed)")
        var tally = FaultTally()
        tally.injected = link.cuts
        // Some are cut while they are made: those attempts have failed.
        let counters = device.counters
        tally.noticed = Int(
            counters.losses.load(ordering: .relaxed) + counters.failedAttempts.load(ordering: .relaxed))
        tally.told = log.all.count { $0 == .lost }
        tally.wrongPages = outcome.wrongPages
        tally.slowest = outcome.slowest
        #expect(outcome.errors == 0, "seed \(seed)")
        #expect(counters.resubmissions.load(ordering: .relaxed) > 0, "seed \(seed)")
        link.close()
        server.kill()
        return tally
    }

    /// A server that is killed, and started again.
    static let kills = FaultKind("server that is killed", share: 0) { _, seed in
        let socket = temporaryPath("killed.sock")
        let backing = try NBDBacking("killed", size: 64 << 20)
        let server = try NBDServer(["nbdkit", "-f", "-U", socket, "file", backing.path], socket: socket)
        defer { server.kill() }
        let rig = try FaultRig(TierOptions(.nbd(uri: "nbd+unix:///?socket=\(socket)")))
        var random = SplitMix(seed: seed)
        var tally = FaultTally()
        let restarts = Lock(0)
        for round in 1...5 {
            rig.evictAll()
            let pause = UInt64(random.below(50)) * 1_000_000
            let killer = try Kernel.Thread(name: "killer") {
                Kernel.sleep(nanoseconds: pause)
                server.kill()
                if (try? server.start()) != nil { restarts.withLock { $0 += 1 } }
            }
            let reading = try rig.readAll(ascending: false, &random)
            killer.join()
            #expect(reading.lost.isEmpty, "seed \(seed)")
            #expect(waitUntil { rig.log.warnings.count { $0.contains("is back after") } == round })
            tally.wrongPages += reading.wrong
            tally.slowest = max(tally.slowest, reading.slowest)
            rig.rewrite([], others: .all, &random)
        }
        tally.injected = restarts.withLock { $0 }
        tally.noticed = rig.log.warnings.count { $0.contains("is back after") }
        tally.told = rig.log.warnings.count { $0.contains("is lost") }
        #expect(rig.log.errors.isEmpty, "seed \(seed): nobody is told of an error")
        rig.finish()
        return tally
    }

    /// A server that stops for longer than it is waited for: accesses end in time, and go on when
    /// it does.
    static let hangs = FaultKind("server that hangs", share: 0) { _, seed in
        let socket = temporaryPath("hung.sock")
        let backing = try NBDBacking("hung", size: 64 << 20)
        // When it has been stopped and its clients have gone, nbdkit 1.32 fails an assertion.
        let server = try NBDServer(
            ["qemu-nbd", "-t", "-f", "raw", "-e", "16", "-k", socket, backing.path], socket: socket)
        defer { server.kill() }
        var tier = TierOptions(.nbd(uri: "nbd+unix:///?socket=\(socket)"))
        tier.timeoutSeconds = 1
        let rig = try FaultRig(tier)
        var random = SplitMix(seed: seed)
        var tally = FaultTally(timeout: 1_000_000_000)
        for round in 1...2 {
            rig.evictAll()
            let stored = rig.stored().map(\.page)
            try #require(stored.count > FaultRig.pages / 4)
            server.stop()
            let reading = try rig.readAll(ascending: false, &random)
            server.goOn()
            #expect(reading.lost == Set(stored), "seed \(seed)")
            #expect(waitUntil { rig.log.warnings.count { $0.contains("is back after") } == round })
            tally.injected += 1
            tally.wrongPages += reading.wrong
            tally.slowest = max(tally.slowest, reading.slowest)
            rig.rewrite(reading.lost, others: .all, &random)
        }
        tally.noticed = rig.readErrors
        // Of each page. That the server is not back is logged when it stays away for longer.
        tally.told = rig.poisonings
        #expect(rig.poisonings == Int(rig.live.pager.counters.poisonedPages.value), "seed \(seed)")
        rig.evictAll()
        let reading = try rig.readAll(ascending: true, &random)
        #expect(reading.lost.isEmpty && reading.wrong == 0, "seed \(seed)")
        rig.finish()
        return tally
    }
}
