import Engine
import Kernel
import Testing

@Suite("Same-filled pages")
struct SameFilledTests {
    @Test("are told from pages that differ in a single word", arguments: [0, 1, 255, 256, 257, 511])
    func oneWord(different: Int) throws {
        let page = try Mapping(length: pageSize)
        fill(page.base, with: 0xfeed_f00d)
        #expect(sameFilledWord(page.base) == 0xfeed_f00d)
        page.base.storeBytes(of: 1, toByteOffset: different * 8, as: UInt64.self)
        #expect(sameFilledWord(page.base) == nil)
    }

    @Test("cost a word each, and zero pages nothing")
    func words() throws {
        let table = try WordTable(capacity: 510)
        let zero = try #require(table.put(0))
        #expect(table.get(zero) == 0 && table.usedBytes == 0)
        #expect(zero != 0, "an entry that names it names something")
        let places = try (1...510).map { try #require(table.put(UInt64($0))) }
        #expect(table.put(99) == nil)
        #expect(table.put(0) == zero)
        #expect(table.usedBytes == 510 * 8)
        for (index, place) in places.enumerated() { #expect(table.get(place) == UInt64(index + 1)) }
        table.drop(places[7])
        #expect(table.put(99) == places[7])
        #expect(table.get(places[8]) == 9)
    }
}
