import CBareLoops
import Engine
import Kernel

/// What the pager costs beside the pages themselves.
struct Costs {
    let bench: Bench

    func run() throws -> [Result] {
        try metadata() + [attach()]
    }

    private func metadata() throws -> [Result] {
        let guest = try Guest(pageCount: bench.pageCount)
        let rig = try PagerRig(guest)
        defer { rig.close() }
        func bytesPerPage() -> Double {
            let bytes =
                rig.region.table.residentBytes + rig.region.ages.residentBytes
                + rig.live.pager.store.metadataBytes
            return Double(bytes) / Double(guest.pageCount)
        }
        /// Two passes that began after the call, and what the last tidied up.
        func waitForPasses() {
            let counters = rig.live.pager.counters
            let passes = counters.passes.value
            while counters.passes.value < passes + 3 {
                rig.live.settingsChanged()
                Kernel.sleep(nanoseconds: 1_000_000)
            }
        }
        waitForPasses()
        let resident = bytesPerPage()
        rig.evict(0..<guest.pageCount)
        waitForPasses()
        let evicted = bytesPerPage()
        return [
            Result(
                "metadata/bytes-per-evicted-page", evicted, "bytes", floor: nil,
                "page table, ages and pool bookkeeping that are resident, all pages evicted"),
            Result(
                "metadata/bytes-per-resident-page", resident, "bytes", floor: nil,
                "the same before any page was evicted"),
        ]
    }

    private func attach() throws -> Result {
        let gibibyte = 1 << 30
        let memory = try Mapping(length: gibibyte, alignment: hugePageSize)
        for offset in stride(from: 0, to: gibibyte, by: pageSize) {
            memory.base.storeBytes(of: 1, toByteOffset: offset, as: UInt8.self)
        }
        let guest = try Guest(pageCount: Guest.pagesPerPart)
        let rig = try PagerRig(guest)
        defer { rig.close() }
        var ours: [Double] = []
        var bare: [Double] = []
        let start = UInt64(UInt(bitPattern: memory.base))
        for _ in 0..<9 {
            let before = monotonicNow()
            let region = try rig.live.attach(name: "big", start: start, length: UInt64(gibibyte))
            ours.append(Double(monotonicNow() - before) / 1e6)
            rig.live.pager.detach(region)
            let beforeBare = monotonicNow()
            let answer = bare_register(memory.base, UInt64(gibibyte))
            bare.append(Double(monotonicNow() - beforeBare) / 1e6)
            precondition(answer == 0)
        }
        return Result(
            "attach/ms-per-gib", median(ours), "ms", floor: median(bare),
            "a userfaultfd that is opened, registers the populated GiB and lets it go again")
    }
}
