import Engine
import Foundation
import Kernel
import Testing

/// Ages that outlive their pager, on this machine's own kernel.
@Suite("Hotness", .serialized)
struct HotnessTests {
    private static let pageCount = 16384
    private static let interval: UInt64 = 50_000_000
    private static let second: UInt64 = 1_000_000_000

    /// A pager of its own over memory that was there before, and stays.
    private final class Managed {
        let region: Region
        let pager: Pager<LinuxKernel>
        let worker: Worker<LinuxKernel>
        let settings: Engine.Settings

        init(_ memory: VersionedMemory, _ kind: MemoryKind, idleAge: UInt64) throws {
            region = try Region(
                name: "ram", start: memory.start, length: memory.length,
                guard: kind == .shared ? .minor : .move)
            settings = try Settings(limit: 0, idleAge: idleAge)
            settings.setMode(.observe)
            pager = try Pager(
                port: try LinuxKernel(tracking: .writeProtection),
                store: try Store(
                    tiers: [.compressed(try CompressedStore())], pagesMax: pageCount),
                settings: settings, host: HostLog().host, tracking: true, zapsShared: kind == .shared,
                readErrorAction: .stop, wakeWorker: {})
            worker = try Worker(pager: pager)
            try pager.attach(region)
        }

        var idlePages: [Int] { (0...3).map { region.workingSet.idlePages(power: $0) } }
        func isOut(_ page: Int) -> Bool { region.table[page].state == .stored }
        func detach() { pager.detach(region) }
    }

    private func write(_ page: Int, of memory: VersionedMemory) {
        let address = UInt(memory.start) + UInt(page * pageSize + 8)
        UnsafeMutablePointer<UInt64>(bitPattern: address)!.pointee = UInt64(page)
    }

    /// Passes for some time, in which every page that `isInUse` is written between two.
    private func train(
        _ managed: Managed, _ memory: VersionedMemory, seconds: Double, _ isInUse: (Int) -> Bool
    ) {
        let end = monotonicNow() + UInt64(seconds * Double(Self.second))
        while monotonicNow() < end {
            let due = monotonicNow() + Self.interval
            for page in 0..<Self.pageCount where isInUse(page) { write(page, of: memory) }
            while monotonicNow() < due {}
            _ = managed.worker.pass()
        }
    }

    @Test(
        "survives its pager: the next one knows what is cold before it has watched anything",
        arguments: [MemoryKind.privateAnonymous, .shared])
    func restart(kind: MemoryKind) throws {
        let memory = try VersionedMemory(pageCount: Self.pageCount, kind)
        for page in 0..<Self.pageCount { write(page, of: memory) }
        let isHot: (Int) -> Bool = { $0 % 10 == 3 }
        let isWarm: (Int) -> Bool = { $0 / 512 % 4 == 1 }

        let before = try Managed(memory, kind, idleAge: Self.second)
        train(before, memory, seconds: 2.5) { isHot($0) || isWarm($0) }
        train(before, memory, seconds: 1.5, isHot)
        let image = try before.worker.exportHotness(before.region)
        let idleBefore = before.idlePages
        before.detach()
        print(
            "\(kind): \(Double(image.count) / Double(Self.pageCount)) bytes a page, idle pages \(idleBefore)")
        #expect(image.count < Self.pageCount / 2 + 400)

        let after = try Managed(memory, kind, idleAge: 2 * Self.second)
        // A look before the ages come: everything seems touched.
        _ = after.worker.pass()
        #expect(after.idlePages.allSatisfy { $0 == 0 })
        try after.worker.importHotness(image, into: after.region)
        let idleAfter = after.idlePages
        print("\(kind): idle pages \(idleAfter) after the import")
        for (told, truth) in zip(idleAfter, idleBefore) {
            #expect(abs(told - truth) <= truth / 20 + 64)
        }

        // Two seconds would have to pass without the ages. Nobody serves faults here: what
        // has left is not touched any more.
        train(after, memory, seconds: 0.2, isHot)
        for page in 0..<Self.pageCount where isHot(page) { write(page, of: memory) }
        let touchedAt = monotonicNow()
        after.settings.setMode(.active)
        _ = after.worker.pass()
        // A machine that stood still for that long has made the hot set cold.
        let isDisturbed = monotonicNow() - touchedAt > Self.second
        var hotOut = 0
        var coldOut = 0
        var cold = 0
        for page in 0..<Self.pageCount {
            if isHot(page) {
                hotOut += after.isOut(page) ? 1 : 0
            } else if !isWarm(page) {
                cold += 1
                coldOut += after.isOut(page) ? 1 : 0
            }
        }
        print("\(kind): \(coldOut) of \(cold) cold pages are out, \(hotOut) hot ones")
        #expect(hotOut == 0 || isDisturbed)
        #expect(coldOut >= cold * 99 / 100)
        after.detach()
    }
}
