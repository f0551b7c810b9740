import Engine
import Kernel
import SeededRandom
import Testing

@Suite("A hotness image")
struct HotnessImageTests {
    private static let scale = HotnessScale(
        leastIdle: (0..<14).map { $0 == 0 ? 0 : 1_000_000_000 << UInt64($0 - 1) }, horizon: 1 << 44)

    private func image(of classes: [UInt8], _ scale: HotnessScale = Self.scale) -> [UInt8] {
        var writer = HotnessWriter(pageCount: classes.count, scale: scale)
        for value in classes { writer.append(class: value, pages: 1) }
        return writer.finished()
    }

    private func classes(in image: [UInt8], pageCount: Int) throws(HotnessImage.Flaw) -> [UInt8] {
        let reader = try HotnessReader(image, pageCount: pageCount)
        var classes: [UInt8] = []
        reader.forEachRun { value, pages in
            #expect(pages.lowerBound == classes.count, "pages come in order")
            classes += Array(repeating: value, count: pages.count)
        }
        return classes
    }

    /// Runs of up to `runMax` pages, or of exactly as many.
    private func pattern(_ random: inout SplitMix, pages: Int, runMax: Int, exactly: Bool) -> [UInt8] {
        var classes: [UInt8] = []
        while classes.count < pages {
            let length = exactly ? runMax : 1 + random.below(runMax)
            let last = classes.last
            var value = UInt8(random.below(16))
            if value == last { value = (value + 1) % 16 }
            classes += Array(repeating: value, count: min(length, pages - classes.count))
        }
        return classes
    }

    @Test(
        "says of each page what was written, and never takes more room than said", arguments: UInt64(1)...60)
    func roundTrip(seed: UInt64) throws {
        var random = SplitMix(seed: seed)
        let pages = [1, 2, 11, 12, 13, 512, 5000, 70_000][random.below(8)]
        // Runs of about the length from which they get a record are the dearest.
        let runMax = [1, 2, 11, 12, 13, 24, 100, 5000][random.below(8)]
        let expected = pattern(&random, pages: pages, runMax: runMax, exactly: random.below(2) == 0)
        let image = image(of: expected)
        #expect(image.count <= HotnessImage.sizeMax(pageCount: pages), "\(runMax), \(pages)")
        #expect(try classes(in: image, pageCount: pages) == expected)
    }

    @Test("takes half a byte a page at worst, however runs and single pages alternate")
    func worstCase() {
        let pages = 1 << 14
        for run in 1...40 {
            for single in 0...3 {
                var classes: [UInt8] = []
                while classes.count < pages {
                    classes += Array(repeating: UInt8(classes.count % 7), count: run)
                    for index in 0..<single { classes.append(UInt8(8 + index)) }
                }
                let size = image(of: Array(classes.prefix(pages))).count
                #expect(size <= HotnessImage.sizeMax(pageCount: pages), "\(run) and \(single)")
                #expect(Double(size) < Double(pages) * 0.51)
            }
        }
    }

    @Test("has a checksum that is CRC-32C")
    func checksums() {
        #expect(crc32c(Array("123456789".utf8)[...]) == 0xe306_9283)
        #expect(crc32c([]) == 0)
    }

    /// The image with other bytes at `offset` and the checksum that fits.
    private func forged(_ image: [UInt8], _ offset: Int, _ bytes: [UInt8]) -> [UInt8] {
        var body = Array(image.dropLast(4))
        body.replaceSubrange(offset..<offset + bytes.count, with: bytes)
        return sealed(body)
    }

    private func sealed(_ body: [UInt8]) -> [UInt8] {
        let sum = crc32c(body[...])
        return body + (0..<4).map { UInt8(truncatingIfNeeded: sum >> UInt32(8 * $0)) }
    }

    private func expectFlaw(_ image: [UInt8], pageCount: Int = 64, _ expected: HotnessImage.Flaw) {
        do throws(HotnessImage.Flaw) {
            _ = try HotnessReader(image, pageCount: pageCount)
            Issue.record("taken, in spite of: \(expected.reason)")
        } catch {
            #expect(error == expected)
            #expect(!error.reason.isEmpty)
        }
    }

    @Test("is refused for what is wrong with it, and that is named")
    func flaws() {
        // One record, of two bytes, of 64 pages of class 3.
        let good = image(of: Array(repeating: 3, count: 64))
        let records = good.count - 6
        let header = Array(good[..<records])
        expectFlaw([], .noImage)
        expectFlaw(Array("frosthot".utf8), .tooShort(8))
        expectFlaw(Array(good.prefix(35)), .tooShort(35))
        expectFlaw(
            good + Array(repeating: 0, count: 200),
            .tooLong(good.count + 200, max: HotnessImage.sizeMax(pageCount: 64)))
        expectFlaw(good.dropLast() + [good[good.count - 1] ^ 1], .checksum)
        expectFlaw(Array(good.dropLast()), .checksum)
        expectFlaw(forged(good, 8, [2, 0]), .version(2))
        expectFlaw(forged(good, 12, [0, 0, 0x20, 0]), .pageSize(2 << 20))
        expectFlaw(forged(good, 16, [1, 0, 4, 0]), .blockLength(0x40001, expected: 0x40000))
        expectFlaw(good, pageCount: 63, .blockLength(64 * 4096, expected: 63 * 4096))
        expectFlaw(forged(good, 10, [15, 0]), .scale)
        expectFlaw(forged(good, 24, Array(repeating: 0xff, count: 8)), .scale)
        expectFlaw(sealed(Array(good[..<50])), .tooShort(54))
        expectFlaw(sealed(header), .pageCount(0, expected: 64))
        expectFlaw(sealed(header + good[records..<records + 2] + [0]), .pageCount(64, expected: 64))
        expectFlaw(sealed(header + [0x80]), .record(offset: records))
        expectFlaw(sealed(header + Array(repeating: 0x80, count: 10)), .record(offset: records))
        // Sixty-four pages of different classes, and not one of them said.
        expectFlaw(sealed(header + [0x7f]), .record(offset: records))
        // 65 pages; as many as can be said.
        expectFlaw(sealed(header + [0x86, 0x10]), .pageCount(64, expected: 64))
        expectFlaw(
            sealed(header + Array(repeating: 0xff, count: 8) + [0x7f]), .pageCount(Int.max >> 1, expected: 64)
        )
        let short = HotnessScale(leastIdle: [0, 5], horizon: 5)
        expectFlaw(
            forged(image(of: Array(repeating: 2, count: 64), short), 48, [0xe6, 0x0f]),
            .classOutOfScale(3, offset: 48))
    }

    @Test(
        "may be damaged anywhere, by anybody: it is refused, or complete and within its scale",
        arguments: UInt64(1)...300)
    func fuzz(seed: UInt64) {
        var random = SplitMix(seed: seed)
        let pages = 1 + random.below(3000)
        var image = image(of: pattern(&random, pages: pages, runMax: 1 + random.below(60), exactly: false))
        for _ in 0..<40 {
            var body = Array(image.dropLast(4))
            for _ in 0...random.below(3) where !body.isEmpty {
                let at = random.below(body.count)
                switch random.below(4) {
                case 0: body[at] = UInt8(random.below(256))
                case 1: body[at] ^= 1 << UInt8(random.below(8))
                case 2: body.remove(at: at)
                default: body.insert(UInt8(random.below(256)), at: at)
                }
            }
            let damaged = random.below(4) == 0 ? body : sealed(body)
            guard let reader = try? HotnessReader(damaged, pageCount: pages) else { continue }
            var next = 0
            reader.forEachRun { value, range in
                #expect(range.lowerBound == next && range.upperBound > next)
                #expect(Int(value) <= reader.scale.leastIdle.count || value == HotnessImage.out)
                next = range.upperBound
            }
            #expect(next == pages, "seed \(seed)")
            // What was taken is damaged further.
            image = damaged
        }
    }

    @Test("takes less than a byte a page, far less where neighbours are alike")
    func size() {
        var random = SplitMix(seed: 7)
        let pages = 1 << 18
        // Single hot pages all over the place; a third of the guest never used.
        var scattered = [UInt8](repeating: 12, count: pages)
        for page in pages / 3 * 2..<pages { scattered[page] = 0 }
        for _ in 0..<pages / 20 { scattered[random.below(pages / 3 * 2)] = 1 }
        // What programs do: neighbours are used together.
        var clustered = scattered.map { $0 == 1 ? UInt8(12) : $0 }
        for _ in 0..<pages / 640 {
            let first = random.below(pages / 3 * 2 - 64)
            for page in first..<first + 1 + random.below(64) { clustered[page] = UInt8(1 + random.below(2)) }
        }
        for (name, classes, bound) in [("scattered", scattered, 0.4), ("clustered", clustered, 0.1)] {
            let bytes = Double(image(of: classes).count) / Double(pages)
            print("hotness of \(name) use: \(bytes) bytes a page")
            #expect(bytes < bound)
        }
    }
}

@Suite("Ages taken over")
struct HotnessAdmissionTests {
    private static let second: UInt64 = 1_000_000_000

    /// A pager's ages on a clock of its own, and when pages were really touched.
    private struct Bench {
        var history: IdleHistory
        var stamps: [UInt8]
        /// Before this host's clock began, even.
        var touched: [Int64]
        var now: UInt64
        let idleAge: UInt64

        init(pages: Int, idleAge: UInt64, at start: UInt64) {
            now = start
            history = IdleHistory(at: start)
            stamps = Array(repeating: history.current, count: pages)
            touched = Array(repeating: Int64(start), count: pages)
            self.idleAge = idleAge
        }

        mutating func relabel(_ relabel: Relabel) {
            for page in stamps.indices where stamps[page] == relabel.from { stamps[page] = relabel.into }
        }

        mutating func run(_ random: inout SplitMix, passes: Int, interval: UInt64) {
            for _ in 0..<passes {
                let last = now
                for _ in 0..<20 {
                    now += interval / 20
                    touched[random.below(1 + random.below(stamps.count))] = Int64(now)
                }
                for page in stamps.indices where touched[page] > Int64(last) {
                    stamps[page] = history.current
                }
                if let relabel = history.endSpan(at: now, idleAge: idleAge) { self.relabel(relabel) }
            }
        }

        /// Pages that are told to be idle for `age`; none may be that is not.
        func idlePages(for age: UInt64, _ context: String) -> Int {
            let idle = history.stamps(idleFor: age, at: now)
            for page in stamps.indices where idle.contains(stamps[page]) {
                #expect(Int64(now) - touched[page] >= Int64(age), "\(context), page \(page)")
            }
            return stamps.count { idle.contains($0) }
        }

        mutating func takeOver(_ other: Bench) {
            let (scale, classOfStamp) = other.history.classes(at: other.now)
            let admission = history.admit(scale, at: now, idleAge: idleAge)
            for relabel in admission.relabels { self.relabel(relabel) }
            for page in stamps.indices {
                stamps[page] = admission.stampOfClass[Int(classOfStamp[Int(other.stamps[page])])]
                touched[page] = Int64(now) - (Int64(other.now) - other.touched[page])
            }
        }

        var counts: [Int] {
            stamps.reduce(into: [Int](repeating: 0, count: AgeMap.stampCount)) { $0[Int($1)] += 1 }
        }
    }

    @Test(
        "are never taken to be longer than they are, by whatever clock and idle age",
        arguments: UInt64(1)...40)
    func neverOverstated(seed: UInt64) {
        var random = SplitMix(seed: seed)
        let ages = [0, 4, 30, 300].map { UInt64($0) * Self.second }
        var source = Bench(pages: 1500, idleAge: ages[random.below(4)], at: UInt64(random.below(1 << 50)))
        source.run(&random, passes: 1 + random.below(3000), interval: Self.second)
        // The target's host may have booted later than the pages were touched.
        var target = Bench(pages: 1500, idleAge: ages[random.below(4)], at: UInt64(random.below(1 << 40)))
        target.run(
            &random, passes: random.below(100), interval: UInt64(1 + random.below(8)) * Self.second / 4)
        target.takeOver(source)
        for round in 0..<3 {
            for power in 0..<13 {
                _ = target.idlePages(for: Self.second << UInt64(power), "seed \(seed), round \(round)")
            }
            target.run(&random, passes: 20, interval: Self.second / 2)
        }
    }

    @Test("make the same working set, to a quarter", arguments: UInt64(1)...10)
    func workingSet(seed: UInt64) {
        var random = SplitMix(seed: seed)
        var source = Bench(pages: 3000, idleAge: 30 * Self.second, at: 1 << 45)
        source.run(&random, passes: 3000, interval: Self.second)
        var target = Bench(
            pages: 3000, idleAge: UInt64(random.below(2)) * 60 * Self.second, at: 5 * Self.second)
        target.run(&random, passes: random.below(20), interval: Self.second)
        target.takeOver(source)
        for power in 1..<12 {
            let age = Self.second << UInt64(power)
            let before = source.history.pages(idleFor: age, at: source.now, counts: source.counts)
            let after = target.history.pages(idleFor: age, at: target.now, counts: target.counts)
            #expect(
                abs(after - before) <= before / 4 + 30, "\(after), was \(before), at \(age), seed \(seed)")
        }
    }

    @Test("put what was out before all others, and before any idle age")
    func out() {
        var history = IdleHistory(at: 0)
        let scale = HotnessScale(leastIdle: [0, 3 * Self.second, 100 * Self.second], horizon: 1 << 40)
        let admission = history.admit(scale, at: Self.second, idleAge: 9000 * Self.second)
        let out = admission.stampOfClass[Int(HotnessImage.out)]
        #expect(history.spans.first?.stamp == out)
        #expect(history.stamps(idleFor: 9000 * Self.second, at: Self.second) == StampSet([out]))
        #expect(admission.stampOfClass[1] == history.current)
        #expect(admission.stampOfClass[0] == AgeMap.absent && admission.stampOfClass[4] == AgeMap.absent)
    }

    @Test("may be any numbers that ascend", arguments: UInt64(1)...20)
    func hostile(seed: UInt64) {
        var random = SplitMix(seed: seed)
        var history = IdleHistory(at: UInt64(random.below(1 << 40)))
        var now = UInt64(1) << 41
        for _ in 0..<30 {
            let times = (0..<random.below(15)).map { _ in
                (UInt64(random.below(Int.max)) >> UInt64(random.below(63))) &* 2
            }
            let scale = HotnessScale(leastIdle: times.sorted(), horizon: UInt64.max)
            let admission = history.admit(scale, at: now, idleAge: UInt64(random.below(1 << 46)))
            let stamps = history.spans.map(\.stamp) + [history.current]
            #expect(Set(stamps).count == stamps.count && stamps.count <= 14)
            #expect(
                zip(history.spans, history.spans.dropFirst()).allSatisfy {
                    $0.to <= $1.to && $0.from <= $0.to
                })
            for index in times.indices { #expect(stamps.contains(admission.stampOfClass[index + 1])) }
            for _ in 0..<random.below(20) {
                now += UInt64(random.below(1 << 35))
                _ = history.endSpan(at: now, idleAge: 30 * Self.second)
            }
        }
    }
}
