import Engine
import Glibc
import Kernel
import SeededRandom
import Testing

/// Somebody changes what a pager has stored: in its file, under its feet. What is altered must
/// be noticed, all of it, and nothing else.
struct AlteredFile {
    /// What the pager has open.
    let descriptor: Int32
    /// The objects in it.
    let places: [LogPlace]
    /// What it held some time before, as far as that was kept.
    var before: [UInt8] = []

    private static let sectorSize = 512

    func range(_ place: LogPlace) -> Range<Int> {
        let start = Int(place.sector) * Self.sectorSize
        return start..<start + place.sectors * Self.sectorSize
    }

    func read(_ range: Range<Int>) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: range.count)
        precondition(pread(descriptor, &bytes, bytes.count, range.lowerBound) == bytes.count)
        return bytes
    }

    func write(_ bytes: [UInt8], at offset: Int) {
        precondition(pwrite(descriptor, bytes, bytes.count, offset) == bytes.count)
    }

    /// A share of the objects, at random.
    private func some(_ random: inout SplitMix) -> [Int] {
        places.indices.filter { _ in random.below(4) == 0 }
    }

    /// What it holds.
    func contents(_ size: Int) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: size)
        let length = pread(descriptor, &bytes, size, 0)
        return Array(bytes[..<max(0, length)])
    }

    // MARK: The kinds; each returns the objects that it altered

    /// One bit of an object.
    func flip(_ random: inout SplitMix) -> [Int] {
        let chosen = some(&random)
        for index in chosen {
            let range = range(places[index])
            let offset = range.lowerBound + random.below(range.count)
            let byte = read(offset..<offset + 1)[0]
            write([byte ^ 1 << UInt8(random.below(8))], at: offset)
        }
        return chosen
    }

    /// Two objects of the same length change places.
    func exchange(_ random: inout SplitMix) -> [Int] {
        var chosen: [Int] = []
        var partners: [Int: Int] = [:]
        for index in some(&random) {
            guard let other = partners.removeValue(forKey: places[index].sectors) else {
                partners[places[index].sectors] = index
                continue
            }
            let (one, another) = (range(places[index]), range(places[other]))
            let bytes = read(one)
            write(read(another), at: one.lowerBound)
            write(bytes, at: another.lowerBound)
            chosen += [index, other]
        }
        return chosen
    }

    /// What lay in an object's place before is there again.
    func stale(_ random: inout SplitMix) -> [Int] {
        some(&random).filter { index in
            let range = range(places[index])
            guard range.upperBound <= before.count else { return false }
            let old = Array(before[range])
            guard old.contains(where: { $0 != 0 }), old != read(range) else { return false }
            write(old, at: range.lowerBound)
            return true
        }
    }

    /// Zeros are read, as from a hole.
    func blank(_ random: inout SplitMix) -> [Int] {
        let chosen = some(&random)
        for index in chosen {
            let range = range(places[index])
            write([UInt8](repeating: 0, count: range.count), at: range.lowerBound)
        }
        return chosen
    }

    /// The file ends early.
    func truncate(_ random: inout SplitMix) -> [Int] {
        guard let end = places.map({ range($0).upperBound }).max() else { return [] }
        let cut = end * (2 + random.below(5)) / 8 / pageSize * pageSize
        precondition(ftruncate(descriptor, cut) == 0)
        return places.indices.filter { range(places[$0]).upperBound > cut }
    }
}

extension FaultKind {
    /// One that alters a file between the time when pages go into it and the time when they are
    /// wanted. `keepsPages`: most pages stay as they are from one round to the next, so that the
    /// file's copies of them are trusted again.
    static func altering(
        _ name: String, share: Int, keepsPages: Bool = true,
        _ alter: @escaping @Sendable (AlteredFile, inout SplitMix) -> [Int]
    ) -> FaultKind {
        FaultKind(name, share: share) { wanted, seed in
            // Small enough for its space to be used again soon.
            let path = temporaryPath("altered-\(name.replacing(" ", with: "-"))")
            let rig = try FaultRig(TierOptions(.file(path: path), maxBytes: 32 << 20))
            let descriptor = StolenFile(path: path).open()
            defer { close(descriptor) }
            return try rig.alter(descriptor, wanted, seed, keepsPages: keepsPages, alter)
        }
    }
}

extension FaultRig {
    /// `descriptor`: what of the tier's file, or of that behind its device, is open to the test.
    /// Rounds of eviction, alteration and accesses, until enough was altered.
    func alter(
        _ descriptor: Int32, _ wanted: Int, _ seed: UInt64, keepsPages: Bool,
        _ alter: (AlteredFile, inout SplitMix) -> [Int]
    ) throws -> FaultTally {
        var random = SplitMix(seed: seed)
        var tally = FaultTally()
        var before: [UInt8] = []
        var isAscending = false
        let size = tier.maxBytes
        while tally.injected < wanted {
            // A log that finds no room in time is full for a second, and makes room meanwhile.
            try #require(
                waitUntil {
                    evictAll()
                    return self.stored().count > Self.pages / 4
                })
            let rewritten = rewrittenBytes
            let stored = stored()
            let file = AlteredFile(descriptor: descriptor, places: stored.map(\.place), before: before)
            let altered = alter(file, &random)
            before = file.contents(size)
            let reading = try readAll(ascending: isAscending, &random)
            let hit = Set(altered.map { stored[$0].page })
            if rewrittenBytes == rewritten {
                #expect(reading.lost == hit, "seed \(seed)")
            } else {
                // Some had been written anew before their old places were altered.
                #expect(reading.lost.isSubset(of: hit), "seed \(seed)")
            }
            precondition(ftruncate(descriptor, size) == 0)
            tally.injected += reading.lost.count
            tally.wrongPages += reading.wrong
            tally.slowest = max(tally.slowest, reading.slowest)
            rewrite(reading.lost, others: keepsPages ? .some : .all, &random)
            isAscending.toggle()
        }
        tally.noticed = readErrors
        tally.told = poisonings
        #expect(live.pager.counters.poisonedPages.value == UInt64(tally.injected), "seed \(seed)")
        #expect(tally.told == tally.injected, "seed \(seed)")
        finish()
        return tally
    }
}
