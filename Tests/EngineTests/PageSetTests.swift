import Engine
import Kernel
import SeededRandom
import Testing

@Suite("A set of pages")
struct PageSetTests {
    @Test("is what was put in and not taken out, in whatever ranges", arguments: UInt64(1)...20)
    func ranges(seed: UInt64) throws {
        var random = SplitMix(seed: seed)
        let pageCount = 100
        let pages = try PageSet(pageCount: pageCount)
        var expected = Set<Int>()
        for _ in 0..<200 {
            let first = random.below(pageCount)
            let range = first..<first + 1 + random.below(pageCount - first)
            if random.below(2) == 0 {
                pages.insert(range)
                expected.formUnion(range)
            } else {
                pages.remove(range)
                expected.subtract(range)
            }
            #expect(Set((0..<pageCount).filter { pages.contains($0) }) == expected, "seed \(seed)")
            #expect(pages.count == expected.count)
            #expect(pages.intersects(range) == range.contains { expected.contains($0) })
        }
    }

    @Test("leaves its pages out of the count of ages")
    func leftOut() throws {
        final class Ages {
            let map: AgeMap
            init(_ pageCount: Int) throws(Errno) { map = try AgeMap(pageCount: pageCount) }
        }
        let ages = try Ages(100)
        var returned = [Int](repeating: 0, count: AgeMap.stampCount)
        ages.map.stamp(0..<50, 3, returned: &returned)
        ages.map.stamp(50..<100, 4, returned: &returned)
        let swapped = try PageSet(pageCount: 100)
        swapped.insert(20..<70)
        var counts = [Int](repeating: 0, count: AgeMap.stampCount)
        ages.map.sweep(Relabel(from: 3, into: 9), except: swapped, into: &counts)
        #expect(counts[9] == 20 && counts[4] == 30 && counts.reduce(0, +) == 50)
        // They keep their ages meanwhile.
        #expect(ages.map[20] == 9 && ages.map[69] == 4)
        swapped.remove(20..<70)
        counts = [Int](repeating: 0, count: AgeMap.stampCount)
        ages.map.sweep(nil, except: swapped, into: &counts)
        #expect(counts[9] == 50 && counts[4] == 50)
    }
}
