import Foundation

/// One line of the report.
struct Result: Codable {
    var name: String
    let value: Double
    let unit: String
    /// What the machine itself costs, in the same unit; nil where nothing compares.
    let floor: Double?
    /// value / floor.
    let ratio: Double?
    /// A plain sentence: what the floor is, or what was measured.
    let floorOf: String
    /// Where it was measured, when that was not the machine of the report.
    var machine: String?

    init(_ name: String, _ value: Double, _ unit: String, floor: Double?, _ floorOf: String) {
        self.name = name
        self.value = value
        self.unit = unit
        self.floor = floor
        ratio = floor.map { value / $0 }
        self.floorOf = floorOf
    }

    enum CodingKeys: String, CodingKey {
        case name, value, unit, floor, ratio, machine
        case floorOf = "floor_of"
    }

    func encode(to encoder: Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(name, forKey: .name)
        try container.encode(value, forKey: .value)
        try container.encode(unit, forKey: .unit)
        // Written as null, not left out.
        try container.encode(floor, forKey: .floor)
        try container.encode(ratio, forKey: .ratio)
        try container.encode(floorOf, forKey: .floorOf)
        try container.encode(machine, forKey: .machine)
    }
}

/// Where and of what the figures are.
struct Report: Codable {
    let machine: String
    let commit: String
    let notes: [String]
    var results: [Result] = []

    init(notes: [String]) {
        machine =
            ProcessInfo.processInfo.environment["FROSTLINE_BENCH_MACHINE"] ?? Self.describeMachine()
        commit = Self.describeCommit()
        self.notes = notes
    }

    /// Takes over the results of another machine, which are compared with nothing here: they
    /// carry its name, and floors of its own.
    mutating func merge(_ path: String) throws {
        let data = try Data(contentsOf: URL(fileURLWithPath: path))
        let other = try JSONDecoder().decode(Report.self, from: data)
        print("on another machine: \(other.machine)")
        add(
            other.results.map { result in
                var result = result
                result.name += "/lab"
                result.machine = other.machine
                return result
            })
    }

    mutating func add(_ results: [Result]) {
        for result in results { print(Self.line(result)) }
        fflush(nil)
        self.results += results
    }

    static let heading =
        "result".padded(44) + "value".leftPadded(12) + " unit".padded(14)
        + "floor".leftPadded(12) + "ratio".leftPadded(8) + "  what the floor is"

    private static func line(_ result: Result) -> String {
        result.name.padded(44) + number(result.value).leftPadded(12)
            + " \(result.unit)".padded(14)
            + (result.floor.map(number) ?? "-").leftPadded(12)
            + (result.ratio.map { String(format: "%.2f", $0) } ?? "-").leftPadded(8)
            + "  " + result.floorOf
    }

    private static func number(_ value: Double) -> String {
        String(format: abs(value) >= 1000 ? "%.0f" : "%.2f", value)
    }

    func write(to path: String) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        let url = URL(fileURLWithPath: path)
        try FileManager.default.createDirectory(
            at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
        try encoder.encode(self).write(to: url)
    }

    private static func describeMachine() -> String {
        let cpus = (try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8)) ?? ""
        let model = cpus.split(separator: "\n").first { $0.hasPrefix("model name") }?
            .split(separator: ":").last.map { $0.trimmingCharacters(in: .whitespaces) }
        let kernel = (try? String(contentsOfFile: "/proc/sys/kernel/osrelease", encoding: .utf8)) ?? ""
        let process = ProcessInfo.processInfo
        return "\(process.processorCount) CPUs, \(model ?? "unknown"), "
            + "\(process.physicalMemory >> 30) GiB, Linux \(kernel.trimmingCharacters(in: .newlines))"
    }

    /// Empty where there is no git or no repository.
    private static func describeCommit() -> String {
        let git = Process()
        git.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        git.arguments = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
        let pipe = Pipe()
        git.standardOutput = pipe
        git.standardError = FileHandle.nullDevice
        guard (try? git.run()) != nil else { return "" }
        let output = pipe.fileHandleForReading.readDataToEndOfFile()
        git.waitUntilExit()
        return String(decoding: output, as: UTF8.self).trimmingCharacters(in: .newlines)
    }
}

extension String {
    func padded(_ width: Int) -> String {
        self + String(repeating: " ", count: max(0, width - count))
    }
    func leftPadded(_ width: Int) -> String {
        String(repeating: " ", count: max(0, width - count)) + self
    }
}

/// The middle one; 0 of none.
func median(_ values: [Double]) -> Double {
    let sorted = values.sorted()
    return sorted.isEmpty ? 0 : sorted[sorted.count / 2]
}

func percentile(_ values: [UInt32], _ share: Double) -> Double {
    let sorted = values.sorted()
    return Double(sorted[min(sorted.count - 1, Int(Double(sorted.count) * share))])
}
