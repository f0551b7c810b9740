import Kernel

/// A set of a block's pages: a bit a page, host memory only where there is one. Worker
/// thread only.
@safe public final class PageSet: @unchecked Sendable {
    private let mapping: Mapping
    private let words: UnsafeMutablePointer<UInt16>
    /// Pages in the set.
    public private(set) var count = 0

    static let pagesPerWord = 16

    public init(pageCount: Int) throws(Errno) {
        let wordCount = (pageCount + Self.pagesPerWord - 1) / Self.pagesPerWord
        mapping = try Mapping(length: roundUp(wordCount * 2, to: pageSize))
        unsafe words = mapping.base.assumingMemoryBound(to: UInt16.self)
    }

    @inline(__always)
    public func contains(_ page: Int) -> Bool {
        count > 0 && bits(ofWord: page / Self.pagesPerWord) >> UInt16(page % Self.pagesPerWord) & 1 != 0
    }

    public func intersects(_ pages: Range<Int>) -> Bool {
        count > 0 && pages.contains { contains($0) }
    }

    public func insert(_ pages: Range<Int>) { update(pages) { $0 | $1 } }

    public func remove(_ pages: Range<Int>) {
        if count > 0 { update(pages) { $0 & ~$1 } }
    }

    /// Which of 16 pages, from 16 × `index` on, are in the set.
    @inline(__always)
    func bits(ofWord index: Int) -> UInt16 { unsafe words[index] }

    private func update(_ pages: Range<Int>, _ change: (UInt16, UInt16) -> UInt16) {
        var page = pages.lowerBound
        while page < pages.upperBound {
            let index = page / Self.pagesPerWord
            let end = min(pages.upperBound, (index + 1) * Self.pagesPerWord)
            let unused = UInt16(Self.pagesPerWord - (end - page))
            let old = bits(ofWord: index)
            let new = change(old, (~UInt16(0) >> unused) << UInt16(page % Self.pagesPerWord))
            // Memory that says so already is not written: it may not even be there.
            if new != old {
                unsafe words[index] = new
                count += new.nonzeroBitCount - old.nonzeroBitCount
            }
            page = end
        }
    }

    /// Gives memory back that speaks of no page; returns the bytes of host memory left.
    func trim() -> Int { mapping.trimBlank() }
}
