import Kernel

/// Reads a `HotnessImage` that anybody may have written: all of it is checked before any of
/// it is handed out.
public struct HotnessReader: Sendable {
    public let scale: HotnessScale
    private let bytes: [UInt8]
    private let records: Range<Int>
    private let pageCount: Int

    public init(_ bytes: [UInt8], pageCount: Int) throws(HotnessImage.Flaw) {
        let sizeMax = HotnessImage.sizeMax(pageCount: pageCount)
        guard bytes.starts(with: HotnessImage.magic) else { throw .noImage }
        guard bytes.count <= sizeMax else { throw .tooLong(bytes.count, max: sizeMax) }
        guard bytes.count >= HotnessImage.fixedHeaderSize + 8 + HotnessImage.checksumSize else {
            throw .tooShort(bytes.count)
        }
        let version = Self.number(bytes, at: 8, size: 2)
        guard version == HotnessImage.version else { throw .version(UInt16(version)) }
        let end = bytes.count - HotnessImage.checksumSize
        guard UInt64(crc32c(bytes[..<end])) == Self.number(bytes, at: end, size: 4) else { throw .checksum }
        let size = Self.number(bytes, at: 12, size: 4)
        guard size == pageSize else { throw .pageSize(UInt32(size)) }
        let length = Self.number(bytes, at: 16, size: 8)
        let expected = UInt64(pageCount) * UInt64(pageSize)
        guard length == expected else { throw .blockLength(length, expected: expected) }
        let classCount = Int(Self.number(bytes, at: 10, size: 2))
        guard classCount <= HotnessImage.classesMax else { throw .scale }
        let start = HotnessImage.fixedHeaderSize + 8 * (classCount + 1)
        guard start <= end else { throw .tooShort(bytes.count) }
        let times = (0...classCount).map { index in
            Self.number(bytes, at: HotnessImage.fixedHeaderSize + 8 * index, size: 8)
        }
        scale = HotnessScale(leastIdle: Array(times.dropLast()), horizon: times[classCount])
        guard scale.ascends else { throw .scale }
        self.bytes = bytes
        self.pageCount = pageCount
        records = start..<end
        try walk(check: true) { _, _ in }
    }

    /// Calls `body` with all pages in order, neighbours of one class together where the
    /// image has them so.
    public func forEachRun(_ body: (_ class: UInt8, _ pages: Range<Int>) -> Void) {
        do {
            try walk(check: false, body)
        } catch {
            preconditionFailure("an image was checked before it is read")
        }
    }

    private func walk(
        check: Bool, _ body: (UInt8, Range<Int>) -> Void
    ) throws(HotnessImage.Flaw) {
        var offset = records.lowerBound
        var page = 0
        while offset < records.upperBound {
            let start = offset
            let head = try varint(&offset)
            let isMixed = head & 1 == 1
            // No more than 2^63: the sum cannot overflow once it is bounded by the pages left.
            let count = (isMixed ? head >> 1 : head >> 5)
            guard count < UInt64(pageCount - page) else {
                throw .pageCount(page &+ Int(clamping: count), expected: pageCount)
            }
            let pages = Int(count) + 1
            if isMixed {
                guard (pages + 1) / 2 <= records.upperBound - offset else { throw .record(offset: start) }
                for index in 0..<pages {
                    let value = bytes[offset + index / 2] >> UInt8(index % 2 * 4) & 15
                    if check { try checkClass(value, at: start) }
                    body(value, page + index..<page + index + 1)
                }
                offset += (pages + 1) / 2
            } else {
                let value = UInt8(head >> 1 & 15)
                if check { try checkClass(value, at: start) }
                body(value, page..<page + pages)
            }
            page += pages
        }
        guard page == pageCount else { throw .pageCount(page, expected: pageCount) }
    }

    private func checkClass(_ value: UInt8, at offset: Int) throws(HotnessImage.Flaw) {
        guard value <= scale.leastIdle.count || value == HotnessImage.out else {
            throw .classOutOfScale(value, offset: offset)
        }
    }

    private func varint(_ offset: inout Int) throws(HotnessImage.Flaw) -> UInt64 {
        let start = offset
        var number: UInt64 = 0
        // Nine bytes are 63 bits.
        for shift in stride(from: UInt64(0), to: 63, by: 7) {
            guard offset < records.upperBound else { break }
            let byte = bytes[offset]
            offset += 1
            number |= UInt64(byte & 0x7f) << shift
            if byte & 0x80 == 0 { return number }
        }
        throw .record(offset: start)
    }

    private static func number(_ bytes: [UInt8], at offset: Int, size: Int) -> UInt64 {
        (0..<size).reduce(0) { $0 | UInt64(bytes[offset + $1]) << UInt64(8 * $1) }
    }
}
