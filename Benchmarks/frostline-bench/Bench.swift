import Foundation

/// How much is measured.
struct Bench {
    let isQuick: Bool
    let isVerbose: Bool
    /// Only the groups whose names contain one of these, separated by commas.
    let only: String?
    let reportPath: String?
    /// Other reports, whose results are taken over.
    let mergedReports: [String]
    /// LLNL's umap, to be measured beside ours.
    let umapLibrary: String?

    init() {
        let environment = ProcessInfo.processInfo.environment
        isQuick = environment["FROSTLINE_BENCH_QUICK"] == "1"
        isVerbose = environment["FROSTLINE_BENCH_VERBOSE"] == "1"
        only = environment["FROSTLINE_BENCH_ONLY"]
        umapLibrary = environment["FROSTLINE_BENCH_UMAP"]
        reportPath = environment["FROSTLINE_BENCH_REPORT"]
        mergedReports = (environment["FROSTLINE_BENCH_MERGE"] ?? "").split(separator: ",").map(String.init)
    }

    /// Pages of a guest: 32 MiB.
    var pageCount: Int { 8192 }
    /// Ours, floor, ours, floor…: so often.
    var rounds: Int { isQuick ? 20 : 80 }
    /// A device takes longer.
    var fileRounds: Int { isQuick ? 3 : 15 }
    func wants(_ group: String) -> Bool {
        only.map { $0.split(separator: ",").contains { group.contains($0) } } ?? true
    }
}
