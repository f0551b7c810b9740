import Foundation
import Kernel

/// `make bench`: what Frostline costs beside what the machine itself costs, measured
/// in turns in one run. FROSTLINE_BENCH_QUICK=1 measures less often,
/// FROSTLINE_BENCH_ONLY=part,part only the groups whose names contain one of these (and
/// writes no report), FROSTLINE_BENCH_VERBOSE=1 also prints what lies behind each figure.
/// FROSTLINE_BENCH_REPORT=path writes the report there in any case, and
/// FROSTLINE_BENCH_MERGE=path,path takes other machines' reports in: see scripts/bench.sh.
/// FROSTLINE_BENCH_UMAP=path of LLNL's libumap.so measures that, too: see docs/comparison.md.
let bench = Bench()
try FileManager.default.createDirectory(atPath: ".build/bench", withIntermediateDirectories: true)
let sample = try Guest(pageCount: 1024)
let ratio = String(format: "%.2f", CompressedPages(of: sample).ratio)
var report = Report(notes: [
    "pages of noise and repeats, each with contents of its own: LZ4 makes them \(ratio) times smaller",
    "natively, tracker none; a round of ours, a round of each floor, and again, \(bench.rounds) times, "
        + "\(Guest.pagesPerPart) pages a round; medians of the rounds, percentiles taken within each; "
        + "/calm: the round that a tenth surpassed, where neighbours on the CPUs took least",
])
print(report.machine, report.commit, separator: ", commit ")
for note in report.notes { print(note) }
print(Report.heading)

@MainActor func measure(_ group: String, _ body: () throws -> [Result]) throws {
    if bench.wants(group) { report.add(try body()) }
}

for placement in Placement.allCases {
    try measure("fault/\(placement.rawValue)") { try FaultTimes(bench: bench).run(placement) }
}
for threads in FaultRates.threadCounts {
    for placement in RatePlacement.allCases {
        try measure("faults-per-second/\(threads)/\(placement.rawValue)") {
            try FaultRates(bench: bench).run(threads: threads, placement)
        }
    }
}
try measure("policy/prefetch") { try FaultRates(bench: bench).runSequential() }
try measure("faults-per-second/zram") { try FaultRates(bench: bench).runZram() }
try measure("faults-per-second/swap") { try FaultRates(bench: bench).runSwap() }
try measure("faults-per-second/file") { try FaultRates(bench: bench).runFile() }
for depth in FaultDepths.depths {
    try measure("iops/file/\(depth)") { try FaultDepths(bench: bench).runFile(depth: depth) }
    try measure("iops/nbd/\(depth)") { try FaultDepths(bench: bench).runNBD(depth: depth) }
    try measure("iops/nbd-1ms/\(depth)") {
        try FaultDepths(bench: bench).runNBD("nbd-1ms", depth: depth, delay: "1ms")
    }
}
if let library = bench.umapLibrary {
    try measure("file/umap") { try Umap(bench: bench, library: library).run() }
}
for depth in Remote.depths {
    try measure("reads/nbd/\(depth)") { try Remote(bench: bench).rate(depth: depth) }
}
try measure("fault/nbd") { try Remote(bench: bench).faultTimes() }
try measure("evict") { try Eviction(bench: bench).run() }
try measure("evict/file/clean") { try Eviction(bench: bench).runClean() }
try measure("fault/file") { try DeviceTier(bench: bench).runFaults() }
try measure("evict/file") { try DeviceTier(bench: bench).runEviction() }
try measure("evict/file/hurried") { try DeviceTier(bench: bench).runHurried() }
try measure("evict/file/preallocated") { try DeviceTier(bench: bench).runPreallocated() }
try measure("evict/file/incompressible") { try DeviceTier(bench: bench).runIncompressible() }
try measure("evict/nbd") { try Remote(bench: bench).eviction() }
try measure("cpu-per-page") { try DeviceTier(bench: bench).runCosts() }
try measure("write-amplification") { try DeviceTier(bench: bench).runChurn() }
try measure("staging/move") { try Eviction(bench: bench).runMove() }
try measure("guard") { try Guards(bench: bench).run() }
for cell in GuardCell.all(try KernelFeatures.probe()) {
    // A tenth of the pages is in every huge page.
    if cell.memory != .hugetlb {
        try measure(cell.name + "/false-cold") { try FalseCold(bench: bench, cell: cell).run() }
    }
    try measure(cell.name + "/stall") { try Stalls(bench: bench, cell: cell).run() }
}
for cell in Tracking.Cell.all(try KernelFeatures.probe()) {
    try measure(cell.name) { try Tracking(bench: bench, cell: cell).run() }
    try measure(cell.name + "/slowdown") { try Slowdown(bench: bench).run(cell) }
}
try measure("tracking/evicted/slowdown") { try Slowdown(bench: bench).runWhereEvicted() }
try measure("tracking/damon/slowdown") { try Slowdown(bench: bench).runDamon() }
try measure("pool/waste") { try Pool(bench: bench).runWaste() }
try measure("pool/compaction") { try Pool(bench: bench).runCompaction() }
try measure("cpu-per-page") { try Pool(bench: bench).runCodecs() }
try measure("policy/stall-budget") { try StallBudget(bench: bench).run() }
try measure("costs") { try Costs(bench: bench).run() }

for other in bench.mergedReports { try report.merge(other) }
if bench.only == nil || bench.reportPath != nil {
    let reportPath = bench.reportPath ?? ".build/bench/report.json"
    try report.write(to: reportPath)
    print("written to \(reportPath)")
}
