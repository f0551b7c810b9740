import Kernel

/// Writes a `HotnessImage`, page after page.
public struct HotnessWriter {
    private var bytes: [UInt8] = []
    private let pageCount: Int
    private var written = 0
    /// Classes of pages that wait for their record.
    private var mixed: [UInt8] = []
    /// The run that the next pages may belong to.
    private var runClass = HotnessImage.unknown
    private var runLength = 0

    public init(pageCount: Int, scale: HotnessScale) {
        precondition(scale.ascends, "a scale ascends")
        self.pageCount = pageCount
        mixed.reserveCapacity(HotnessImage.mixedMax)
        bytes += HotnessImage.magic
        append(HotnessImage.version)
        append(UInt16(scale.leastIdle.count))
        append(UInt32(pageSize))
        append(UInt64(pageCount) * UInt64(pageSize))
        for time in scale.leastIdle { append(time) }
        append(scale.horizon)
    }

    /// The next pages are of that class.
    public mutating func append(class value: UInt8, pages: Int) {
        written += pages
        if value == runClass {
            runLength += pages
            return
        }
        endRun()
        runClass = value
        runLength = pages
    }

    /// The whole image. Every page must have been appended.
    public consuming func finished() -> [UInt8] {
        precondition(written == pageCount, "an image is about all pages of its block")
        endRun()
        endMixed()
        append(crc32c(bytes[...]))
        assert(bytes.count <= HotnessImage.sizeMax(pageCount: pageCount))
        return bytes
    }

    private mutating func endRun() {
        if runLength < HotnessImage.runMin {
            for _ in 0..<runLength {
                mixed.append(runClass)
                if mixed.count == HotnessImage.mixedMax { endMixed() }
            }
        } else {
            endMixed()
            appendVarint(UInt64(runLength - 1) << 5 | UInt64(runClass) << 1)
        }
        runLength = 0
    }

    private mutating func endMixed() {
        guard !mixed.isEmpty else { return }
        appendVarint(UInt64(mixed.count - 1) << 1 | 1)
        for first in stride(from: 0, to: mixed.count, by: 2) {
            let second = first + 1 < mixed.count ? mixed[first + 1] : 0
            bytes.append(mixed[first] | second << 4)
        }
        mixed.removeAll(keepingCapacity: true)
    }

    private mutating func append<Number: FixedWidthInteger & UnsignedInteger>(_ number: Number) {
        for index in 0..<Number.bitWidth / 8 {
            bytes.append(UInt8(truncatingIfNeeded: number >> (8 * index)))
        }
    }

    private mutating func appendVarint(_ number: UInt64) {
        var rest = number
        while rest >= 0x80 {
            bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        bytes.append(UInt8(rest))
    }
}
