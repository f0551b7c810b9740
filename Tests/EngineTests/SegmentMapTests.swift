import Engine
import SeededRandom
import Testing

@Suite("The segment map")
struct SegmentMapTests {
    private static let sectors = 32

    @Test("opens each segment once, under serial numbers of their own, and ends with the last")
    func opens() throws {
        let map = try SegmentMap(segments: 5, sectorsPerSegment: Self.sectors)
        let opened = (0..<5).map { _ in map.open()! }
        #expect(Set(opened).count == 5)
        #expect(map.open() == nil && map.freeCount == 0)
    }

    @Test("gives a segment out again once it is closed and nothing in it is of use")
    func reuse() throws {
        let map = try SegmentMap(segments: 2, sectorsPerSegment: Self.sectors)
        let segment = try #require(map.open())
        let sector = UInt64(segment) * UInt64(Self.sectors)
        map.add(9, to: segment)
        map.add(4, to: segment)
        map.drop(sector, 9)
        map.close(segment)
        map.collect()
        #expect(map.freeCount == 1 && map.liveSectors == 4)
        map.drop(sector + 9, 4)
        map.collect()
        #expect(map.freeCount == 2 && map.liveSectors == 0)
        #expect(map.open() == segment, "storage that is there already is used first")
    }

    @Test("gives an open segment out again only when it is closed")
    func openIsKept() throws {
        let map = try SegmentMap(segments: 2, sectorsPerSegment: Self.sectors)
        let segment = try #require(map.open())
        map.add(9, to: segment)
        map.drop(UInt64(segment) * UInt64(Self.sectors), 9)
        map.collect()
        #expect(map.freeCount == 1)
        map.close(segment)
        #expect(map.freeCount == 2)
    }

    @Test("keeps a few free segments from being discarded, and prefers them to blank ones")
    func discard() throws {
        let map = try SegmentMap(segments: 8, sectorsPerSegment: Self.sectors)
        for _ in 0..<6 { map.close(map.open()!) }
        // One segment served all six times.
        #expect(map.freeCount == 8)
        #expect(map.takeToDiscard(keeping: 1) == nil)
        let first = try #require(map.takeToDiscard(keeping: 0))
        map.discarded(first)
        #expect(map.freeCount == 8)
        #expect(map.open() == first)
    }

    @Test("chooses the emptiest segments, and no more than there is room for")
    func victims() throws {
        let map = try SegmentMap(segments: 10, sectorsPerSegment: Self.sectors)
        let uses = [30, 4, 16, 8, 32, 12]
        let segments = uses.map { use -> UInt32 in
            let segment = map.open()!
            map.add(use, to: segment)
            map.close(segment)
            return segment
        }
        func chosen() -> Set<Int> {
            Set(uses.indices.filter { map.isVictim(UInt64(segments[$0]) * UInt64(Self.sectors)) })
        }
        #expect(map.chooseVictims(room: 12, limit: 28, most: 10) == 2 * 32 - 12)
        #expect(chosen() == [1, 3])
        #expect(map.chooseVictims(room: 400, limit: 28, most: 10) == 4 * 32 - 40)
        #expect(chosen() == [1, 2, 3, 5])
        #expect(map.chooseVictims(room: 400, limit: 28, most: 1) == 28)
        #expect(chosen() == [1])
        #expect(map.chooseVictims(room: 3, limit: 28, most: 10) == 0)
        #expect(chosen().isEmpty)
        // What is there as copies only need not be written anew.
        map.becomesCopy(UInt64(segments[4]) * UInt64(Self.sectors), 32)
        #expect(map.chooseVictims(room: 0, limit: 28, most: 10) == 32)
        #expect(chosen() == [4])
    }

    @Test("agrees with a plain model, whatever is done to it", arguments: UInt64(1)...30)
    func model(seed: UInt64) throws {
        var random = SplitMix(seed: seed)
        let count = 3 + random.below(40)
        let map = try SegmentMap(segments: count, sectorsPerSegment: Self.sectors)
        var objects: [(sector: UInt64, sectors: Int, isCopy: Bool)] = []
        var open: (segment: UInt32, filled: Int)?
        for _ in 0..<4000 {
            switch random.below(8) {
            case 0...2:
                let sectors = 1 + random.below(9)
                if open == nil || open!.filled + sectors > Self.sectors {
                    if let open { map.close(open.segment) }
                    open = map.open().map { ($0, 0) }
                    if let open { #expect(!objects.contains { map.segment(of: $0.sector) == open.segment }) }
                }
                guard let place = open else { continue }
                map.add(sectors, to: place.segment)
                let sector = UInt64(place.segment) * UInt64(Self.sectors) + UInt64(place.filled)
                objects.append((sector, sectors, false))
                open!.filled += sectors
            case 3, 4:
                guard !objects.isEmpty else { continue }
                let object = objects.remove(at: random.below(objects.count))
                if object.isCopy {
                    map.dropCopy(object.sector, object.sectors)
                } else {
                    map.drop(object.sector, object.sectors)
                }
            case 5:
                guard !objects.isEmpty else { continue }
                let index = random.below(objects.count)
                let object = objects[index]
                if object.isCopy {
                    map.becomesOnly(object.sector, object.sectors)
                } else {
                    map.becomesCopy(object.sector, object.sectors)
                }
                objects[index].isCopy.toggle()
            case 6:
                _ = map.chooseVictims(room: random.below(100), limit: 28, most: 1 + random.below(10))
                let needed = Dictionary(grouping: objects.filter { map.isVictim($0.sector) && !$0.isCopy }) {
                    map.segment(of: $0.sector)
                }.mapValues { $0.reduce(0) { $0 + $1.sectors } }
                #expect(needed.values.allSatisfy { $0 <= 28 })
                if let open { #expect(!map.isVictim(UInt64(open.segment) * UInt64(Self.sectors))) }
            default:
                while let segment = map.takeToDiscard(keeping: random.below(3)) { map.discarded(segment) }
            }
            map.collect()
            var used = Set(objects.map { map.segment(of: $0.sector) })
            if let open { used.insert(open.segment) }
            #expect(map.freeCount == count - used.count)
            #expect(map.liveSectors == objects.reduce(0) { $0 + $1.sectors })
        }
    }
}
