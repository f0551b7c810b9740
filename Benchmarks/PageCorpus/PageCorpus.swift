import Foundation
import Kernel
import SeededRandom

/// Pages as programs leave them, for whoever compresses some: of programs' code and data, of
/// text as a cache of sessions has it, of records that point at one another, and, on demand,
/// of a running process's heap. None is the same word throughout.
public final class PageCorpus: @unchecked Sendable {
    private let memory: Mapping
    public private(set) var count = 0
    /// The pages of each kind.
    public private(set) var kinds: [(name: String, pages: Range<Int>)] = []

    /// `heap`: with that of a Python process, which takes a few seconds; where there is none,
    /// without.
    public init(pagesOfEach: Int, heap: Bool = false) throws {
        memory = try Mapping(length: 4 * pagesOfEach * pageSize)
        let programs = try Self.programs()
        add("program", programs.flatMap { $0.sample(of: pagesOfEach / programs.count) })
        add("text", Self.text(bytes: pagesOfEach * pageSize).sample(of: pagesOfEach))
        add("records", Self.records(bytes: pagesOfEach * pageSize).sample(of: pagesOfEach))
        if heap, let data = Self.pythonHeap() { add("heap", data.sample(of: pagesOfEach)) }
    }

    public subscript(page: Int) -> UnsafeRawPointer { UnsafeRawPointer(memory.base + page * pageSize) }

    /// The pages of a kind; none when it is missing.
    public func pages(of name: String) -> Range<Int> {
        kinds.first { $0.name == name }?.pages ?? 0..<0
    }

    private func add(_ name: String, _ pages: [Data]) {
        let first = count
        for page in pages where !page.isSameFilled {
            page.copyBytes(
                to: UnsafeMutableRawBufferPointer(start: memory.base + count * pageSize, count: pageSize))
            count += 1
        }
        kinds.append((name, first..<count))
    }

    /// This program and the larger libraries that it uses.
    private static func programs() throws -> [Data] {
        var paths: [String] = []
        for line in try String(contentsOfFile: "/proc/self/maps", encoding: .utf8).split(separator: "\n") {
            guard let slash = line.firstIndex(of: "/") else { continue }
            let path = String(line[slash...])
            if !paths.contains(path) { paths.append(path) }
        }
        return paths.compactMap { try? Data(contentsOf: URL(fileURLWithPath: $0), options: .alwaysMapped) }
            .filter { $0.count > 1 << 20 }
    }

    private static func text(bytes: Int) -> Data {
        var random = SplitMix(seed: 5)
        let letters = Array("etaoinshrdlucmfwypvbgk")
        let words = (0..<3000).map { _ in
            String((0..<2 + random.below(8)).map { _ in letters[random.below(letters.count)] })
        }
        var text = Data()
        while text.count < bytes {
            let note = (0..<random.below(40)).map { _ in words[min(random.below(3000), random.below(3000))] }
            text += Data(
                ("session:\(random.below(1_000_000)) {\"user\":\"\(words[random.below(3000)])\",\"visits\":"
                    + "\(random.below(500)),\"note\":\"\(note.joined(separator: " "))\"}\r\n").utf8)
        }
        return text
    }

    /// Nodes of 64 bytes: two pointers, two numbers, a short name, and a hole.
    private static func records(bytes: Int) -> Data {
        var random = SplitMix(seed: 6)
        let heap: UInt64 = 0x7f3a_1400_0000
        var words: [UInt64] = []
        for node in 0..<bytes / 64 {
            words += [
                heap + UInt64(random.below(1 << 22)) * 64, heap + UInt64(random.below(1 << 22)) * 64,
                UInt64(node), UInt64(random.below(1000)), random.next() & 0x0f0f_0f0f_0f0f, 0, 0, 0,
            ]
        }
        return words.withUnsafeBytes { Data($0) }
    }

    /// What a Python process has in its heap when it has made some objects of all kinds.
    private static func pythonHeap() -> Data? {
        let script = """
            import json, random, collections, http.client, decimal, sys
            random.seed(1)
            records = [dict(id=i, name='user%06d' % i, tags=random.sample('abcdefgh', 4), score=random.random())
                       for i in range(60000)]
            text = json.dumps(records)
            index = collections.defaultdict(list)
            for record in records:
                for tag in record['tags']: index[tag].append(record)
            print('ready', flush=True)
            sys.stdin.read()
            """
        let python = Process()
        python.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        python.arguments = ["python3", "-c", script]
        let (input, output) = (Pipe(), Pipe())
        python.standardInput = input
        python.standardOutput = output
        python.standardError = FileHandle.nullDevice
        guard (try? python.run()) != nil else { return nil }
        defer {
            try? input.fileHandleForWriting.close()
            python.waitUntilExit()
        }
        guard !output.fileHandleForReading.availableData.isEmpty else { return nil }
        return memory(of: python.processIdentifier)
    }

    /// The private writable memory of a child of ours.
    private static func memory(of process: Int32) -> Data? {
        guard let maps = try? String(contentsOfFile: "/proc/\(process)/maps", encoding: .utf8),
            let file = FileHandle(forReadingAtPath: "/proc/\(process)/mem")
        else { return nil }
        var all = Data()
        for line in maps.split(separator: "\n") {
            let fields = line.split(separator: " ", omittingEmptySubsequences: true)
            let ends = fields[0].split(separator: "-").compactMap { UInt64($0, radix: 16) }
            guard fields[1].hasPrefix("rw-p"), ends.count == 2, fields.last?.hasPrefix("[v") != true,
                (try? file.seek(toOffset: ends[0])) != nil,
                let data = try? file.read(upToCount: Int(ends[1] - ends[0]))
            else { continue }
            all += data.prefix(data.count / pageSize * pageSize)
        }
        return all.isEmpty ? nil : all
    }
}

extension Data {
    /// Pages from all over it, since its parts differ.
    fileprivate func sample(of pages: Int) -> [Data] {
        let all = count / pageSize
        let wanted = Swift.min(pages, all)
        return (0..<wanted).map { page in
            let first = startIndex + page * all / wanted * pageSize
            return subdata(in: first..<first + pageSize)
        }
    }

    fileprivate var isSameFilled: Bool {
        withUnsafeBytes { bytes in
            let words = bytes.bindMemory(to: UInt64.self)
            return words.allSatisfy { $0 == words[0] }
        }
    }
}
