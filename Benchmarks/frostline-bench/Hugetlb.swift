import Foundation
import Kernel

/// Huge pages of hugetlbfs, which the machine must have set aside to have them measured.
enum Hugetlb {
    /// What the largest benchmark needs, and what is alive beside it.
    static let pagesMin = (Tracking.size + Tracking.sizeLarge) / hugePageSize

    /// Whether there are enough, and a kernel that lets them be paged.
    static func isReserved(_ features: KernelFeatures) -> Bool {
        guard features.readWriteProtection, features.minorHuge,
            let text = try? String(contentsOfFile: "/proc/meminfo", encoding: .utf8)
        else { return false }
        let line = text.split(separator: "\n").first { $0.hasPrefix("HugePages_Free:") }
        return line?.split(separator: " ").last.flatMap { Int($0) } ?? 0 >= pagesMin
    }
}
