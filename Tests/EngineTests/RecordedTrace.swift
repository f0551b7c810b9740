import Foundation

/// Which pages of a real guest were touched when: `Tests/Traces/README.md` has the format.
struct RecordedTrace: Sendable {
    /// What the guest did.
    enum Phase: UInt64 {
        case serving, readingEverything, servingAgain
    }

    struct Tick: Sendable {
        var nanoseconds: UInt64
        var phase: Phase
        /// Ascending.
        var touched: [Int]
    }

    enum Flaw: Error, Equatable {
        case noTrace, version(UInt64), ends(after: Int), phase(UInt64), page(Int)
    }

    let pageCount: Int
    /// In RAM when the recording began.
    let resident: [Int]
    let ticks: [Tick]

    static let redis = {
        do {
            let traces = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "../Traces")
            return try RecordedTrace(Array(Data(contentsOf: traces.appending(path: "redis.trace"))))
        } catch {
            fatalError("Tests/Traces/redis.trace: \(error)")
        }
    }()

    init(_ bytes: [UInt8]) throws(Flaw) {
        var input = Input(bytes: bytes)
        guard bytes.starts(with: Array("frosttrc".utf8)) else { throw .noTrace }
        input.offset = 8
        let version = try input.number(bytes: 2)
        guard version == 1 else { throw .version(version) }
        pageCount = Int(try input.number(bytes: 4))
        var isTouched = [Bool](repeating: false, count: pageCount)
        var ticks: [Tick] = []
        while input.offset < bytes.count {
            let milliseconds = try input.varint()
            let number = try input.varint()
            guard let phase = Phase(rawValue: number) else { throw .phase(number) }
            var page = 0
            for _ in 0..<(try input.varint()) {
                let head = try input.varint()
                page += Int(head >> 1)
                let length = head & 1 == 0 ? 1 : Int(try input.varint()) + 2
                guard page + length <= pageCount else { throw .page(page + length) }
                for page in page..<page + length { isTouched[page].toggle() }
                page += length
            }
            ticks.append(
                Tick(
                    nanoseconds: milliseconds * 1_000_000, phase: phase,
                    touched: isTouched.indices.filter { isTouched[$0] }))
        }
        guard let first = ticks.first else { throw .ends(after: bytes.count) }
        resident = first.touched
        self.ticks = Array(ticks.dropFirst())
    }

    func ticks(of phase: Phase) -> [Tick] { ticks.filter { $0.phase == phase } }

    /// The same accesses to other pages.
    func mirrored(_ tick: Tick) -> Tick {
        var mirrored = tick
        mirrored.touched = tick.touched.reversed().map { pageCount - 1 - $0 }
        return mirrored
    }

    private struct Input {
        let bytes: [UInt8]
        var offset = 0

        mutating func byte() throws(Flaw) -> UInt8 {
            guard offset < bytes.count else { throw .ends(after: offset) }
            defer { offset += 1 }
            return bytes[offset]
        }

        mutating func number(bytes count: Int) throws(Flaw) -> UInt64 {
            var number: UInt64 = 0
            for index in 0..<count { number |= UInt64(try byte()) << UInt64(8 * index) }
            return number
        }

        mutating func varint() throws(Flaw) -> UInt64 {
            var number: UInt64 = 0
            for shift in stride(from: UInt64(0), to: 63, by: 7) {
                let byte = try byte()
                number |= UInt64(byte & 0x7f) << shift
                if byte & 0x80 == 0 { break }
            }
            return number
        }
    }
}
