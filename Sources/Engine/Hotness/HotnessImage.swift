/// A block's hotness as bytes: for each page how long it had been idle when it was exported,
/// in a form that another pager, on another host, can take over.
///
/// All numbers are little-endian; a varint has seven bits a byte, the low ones first.
///
///     magic            8 bytes   "frosthot"
///     version          2 bytes   1
///     class count      2 bytes   n, 0 to 14
///     page size        4 bytes
///     block length     8 bytes
///     least idle time  n × 8     nanoseconds of the classes 1 to n, in ascending order
///     horizon          8 bytes   what is in class n was touched less than this long ago, or never
///     records                    of all pages in order
///     checksum         4 bytes   CRC-32C of everything before
///
/// A record begins with a varint. Even: (pages - 1) << 5 | class << 1, so many pages of one
/// class. Odd: (pages - 1) << 1 | 1, followed by a class of four bits for each page, the
/// first in the low half of a byte.
///
/// A class says "idle for at least so long", never more than the exporter knew. The scale is
/// the exporter's own and about logarithmic, so that nothing is lost by translating it.
public enum HotnessImage {
    static let magic: [UInt8] = Array("frosthot".utf8)
    static let version: UInt16 = 1
    static let fixedHeaderSize = 24
    static let checksumSize = 4
    /// Classes of the scale.
    static let classesMax = 14
    /// The page was not there, or nothing was known of it.
    public static let unknown: UInt8 = 0
    /// The exporter had evicted the page, or had tried to: colder than all others.
    public static let out: UInt8 = 15

    /// Pages of one class that are worth a record of their own.
    static let runMin = 12
    /// Pages in one record of pages of different classes.
    static let mixedMax = 4096

    /// The most bytes that the image of so many pages takes: half a byte each, and some.
    public static func sizeMax(pageCount: Int) -> Int {
        fixedHeaderSize + 8 * (classesMax + 1) + (pageCount + 1) / 2
            + (pageCount / mixedMax + 1) * 3 + checksumSize
    }

    /// Why bytes are no image of this block. Nothing was changed then.
    public enum Flaw: Error, Equatable, Sendable {
        case noImage
        case version(UInt16)
        case tooShort(Int)
        case tooLong(Int, max: Int)
        case checksum
        case pageSize(UInt32)
        case blockLength(UInt64, expected: UInt64)
        case scale
        case record(offset: Int)
        case pageCount(Int, expected: Int)
        case classOutOfScale(UInt8, offset: Int)

        public var reason: String {
            switch self {
            case .noImage: "it does not begin with \"frosthot\": these are not hotness data"
            case .version(let version):
                "version \(version) is not known; this library takes version \(HotnessImage.version)"
            case .tooShort(let size): "\(size) bytes are too few: it was cut"
            case .tooLong(let size, let max): "\(size) bytes are too many; for this block \(max) are the most"
            case .checksum: "the checksum is wrong: it was damaged or cut"
            case .pageSize(let size): "it is about pages of \(size) bytes; only 4096 is supported"
            case .blockLength(let length, let expected):
                "it is about a block of \(length) bytes, and this one has \(expected)"
            case .scale: "its idle times do not ascend, or are more than 14"
            case .record(let offset): "the record at byte \(offset) does not end"
            case .pageCount(let count, let expected):
                "its records are about \(count) pages or more, and the block has \(expected)"
            case .classOutOfScale(let value, let offset):
                "the record at byte \(offset) names class \(value), which has no idle time"
            }
        }
    }
}

/// The idle times of the classes of an image, in nanoseconds.
public struct HotnessScale: Equatable, Sendable {
    /// Least idle time of the classes 1, 2 …, ascending.
    public var leastIdle: [UInt64]
    /// Nothing is known to have been touched longer ago.
    public var horizon: UInt64

    public init(leastIdle: [UInt64], horizon: UInt64) {
        self.leastIdle = leastIdle
        self.horizon = horizon
    }

    var ascends: Bool {
        leastIdle.count <= HotnessImage.classesMax
            && zip(leastIdle, leastIdle.dropFirst() + [horizon]).allSatisfy { $0 <= $1 }
    }
}
