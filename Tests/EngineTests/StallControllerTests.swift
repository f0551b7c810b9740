import Engine
import Testing

@Suite("The stall controller")
struct StallControllerTests {
    private static let second: UInt64 = 1_000_000_000
    private static let budget = 0.005

    /// A small generator that is the same everywhere.
    private struct Dice {
        private var state: UInt64
        init(_ seed: UInt64) { state = seed &* 0x9e37_79b9_7f4a_7c15 | 1 }

        /// 0 to 1.
        mutating func next() -> Double {
            state ^= state << 13
            state ^= state >> 7
            state ^= state << 17
            return Double(state >> 11) / Double(1 << 53)
        }

        /// How often something happens that happens `mean` times as a rule.
        mutating func count(_ mean: Double) -> Int {
            // In halves where they are many, since exp(-mean) would be 0.
            if mean > 30 { return count(mean / 2) + count(mean / 2) }
            var (left, events) = (mean, 0)
            while true {
                left += Self.logarithm(max(next(), 1e-300))
                if left < 0 { return events }
                events += 1
            }
        }

        private static func logarithm(_ value: Double) -> Double {
            // Mantissa and exponent, and a series around 1.
            let mantissa = value.significand
            let ratio = (mantissa - 1) / (mantissa + 1)
            var (term, sum) = (ratio, 0.0)
            for power in stride(from: 1.0, to: 40, by: 2) {
                sum += term / power
                term *= ratio * ratio
            }
            return 2 * sum + Double(value.exponent) * 0.693_147_180_559_945_3
        }
    }

    /// A guest whose pages are touched at random, hot ones often, and that waits for each page
    /// that has left: coldest pages leave first.
    private struct Guest {
        let pages = 100_000
        var evicted = 0
        var hot: Double
        /// What an access waits, nanoseconds.
        var wait = 100_000.0
        /// Touches in a second of a page in the cold part, and of one in the hot part.
        var rates = (cold: 0.0001, hot: 0.1)
        var dice = Dice(7)
        /// Every so many seconds an access waits for so long, nanoseconds.
        var slow: (every: Int, nanoseconds: Double) = (.max, 0)
        private var clock = 0

        init(hot: Double) { self.hot = hot }

        /// Faults in a second with the `evicted` coldest pages gone, on average.
        var faults: Double {
            let resident = Double(pages - evicted) / Double(pages)
            let beyond = max(0, 1 - max(resident, hot)) * Double(pages) * rates.cold
            let within = max(0, hot - resident) * Double(pages) * rates.hot
            return beyond + within
        }

        /// The share of each second's time that was waited.
        mutating func run(
            _ controller: inout StallController, seconds: Int, budget: Double = StallControllerTests.budget
        ) -> [Double] {
            (0..<seconds).map { _ in
                clock += 1
                let faults = dice.count(faults)
                let isSlow = clock % slow.every == 0
                let waiting = Double(faults) * wait + (isSlow ? slow.nanoseconds : 0)
                // What was touched is back.
                evicted = max(0, evicted - faults)
                evicted += controller.round(
                    .init(
                        stall: UInt64(waiting), waits: UInt64(faults + (isSlow ? 1 : 0)),
                        elapsed: StallControllerTests.second, vcpus: 1, residentPages: pages - evicted),
                    budget: budget)
                return waiting / 1e9
            }
        }
    }

    private func mean(_ values: some Collection<Double>) -> Double {
        values.reduce(0, +) / Double(values.count)
    }

    private func reading(
        stall: UInt64, waits: UInt64, seconds: UInt64 = 1, vcpus: Int = 1, resident: Int = 100_000
    ) -> StallController.Reading {
        .init(
            stall: stall, waits: waits, elapsed: seconds * Self.second, vcpus: vcpus,
            residentPages: resident)
    }

    /// Seconds without any eviction until there is one again, in a guest that waits no more.
    private func pause(_ controller: inout StallController) -> Int {
        var seconds = 0
        while controller.round(reading(stall: 0, waits: 0), budget: Self.budget) == 0 { seconds += 1 }
        return seconds
    }

    @Test("takes what is cold and leaves what is in use", arguments: [0.1, 0.4, 0.8])
    func converges(hot: Double) {
        var controller = StallController()
        var guest = Guest(hot: hot)
        let stalls = guest.run(&controller, seconds: 1800)
        let saved = Double(guest.evicted) / Double(guest.pages)
        #expect(saved > (1 - hot) * 0.9, "saved \(saved)")
        #expect(saved < 1 - hot + 0.02, "saved \(saved)")
        #expect(mean(stalls.suffix(900)) <= Self.budget * 1.1, "stall \(mean(stalls.suffix(900)))")
    }

    @Test("is nine tenths there within three minutes")
    func converges() {
        var controller = StallController()
        var guest = Guest(hot: 0.3)
        _ = guest.run(&controller, seconds: 180)
        #expect(guest.evicted > guest.pages * 7 / 10 * 9 / 10, "\(guest.evicted)")
    }

    @Test("does not swing: once settled, memory saved stays within a twentieth")
    func settles() {
        var controller = StallController()
        var guest = Guest(hot: 0.5)
        _ = guest.run(&controller, seconds: 1200)
        var saved: [Int] = []
        for _ in 0..<600 {
            _ = guest.run(&controller, seconds: 1)
            saved.append(guest.evicted)
        }
        #expect(saved.max()! - saved.min()! < guest.pages / 20)
    }

    /// Pages that are all somewhat warm: whatever leaves comes back, and the budget decides.
    @Test("uses the budget, neither more nor little", arguments: [20_000.0, 200_000, 700_000, 3_000_000])
    func usesBudget(wait: Double) {
        var controller = StallController()
        var guest = Guest(hot: 0)
        guest.wait = wait
        guest.rates.cold = 0.003
        let stalls = guest.run(&controller, seconds: 3600).suffix(2400)
        let used = mean(stalls) / Self.budget
        #expect(used > 0.4 && used < 1.1, "\(used) of the budget")
    }

    @Test("says how much leaves in a second, and that nothing does above the budget")
    func rate() {
        var controller = StallController()
        #expect(controller.rate(budget: Self.budget) == 0)
        var taken = 0
        var announced = 0.0
        for _ in 0..<60 {
            announced += controller.rate(budget: Self.budget)
            taken += controller.round(reading(stall: 1_000_000, waits: 10), budget: Self.budget)
        }
        #expect(abs(Double(taken) - announced) < announced / 10, "\(taken), \(announced) announced")
        _ = controller.round(reading(stall: 500_000_000, waits: 10), budget: Self.budget)
        #expect(controller.isOver(budget: Self.budget))
        #expect(controller.rate(budget: Self.budget) == 0)
    }

    @Test("one slow wait in a while costs a few seconds of eviction, not the savings")
    func outliers() {
        var controller = StallController()
        var guest = Guest(hot: 0.3)
        // Six times what the budget grants in a second, and once a minute.
        guest.slow = (60, 30_000_000)
        _ = guest.run(&controller, seconds: 600)
        #expect(guest.evicted > guest.pages * 7 / 10 * 9 / 10, "\(guest.evicted)")

        var another = StallController()
        for _ in 0..<30 { _ = another.round(reading(stall: 0, waits: 0), budget: Self.budget) }
        _ = another.round(reading(stall: 30_000_000, waits: 1), budget: Self.budget)
        #expect(pause(&another) <= 4)
    }

    @Test("one wait of usual length never stops it, however dear", arguments: [1e6, 5e6, 15e6])
    func usualWait(wait: Double) {
        var controller = StallController()
        for _ in 0..<200 {
            _ = controller.round(reading(stall: UInt64(wait), waits: 1), budget: 0.5)
        }
        for _ in 0..<300 { _ = controller.round(reading(stall: 0, waits: 0), budget: Self.budget) }
        #expect(abs(controller.usualWait - wait) < wait / 10)
        _ = controller.round(reading(stall: UInt64(wait), waits: 1), budget: Self.budget)
        #expect(!controller.isOver(budget: Self.budget))
    }

    @Test("stops within one round when the guest's needs grow")
    func backsOff() {
        var controller = StallController()
        var guest = Guest(hot: 0.2)
        _ = guest.run(&controller, seconds: 900)
        guest.hot = 0.9
        _ = guest.run(&controller, seconds: 1)
        let taken = controller.round(
            reading(stall: Self.second / 10, waits: 1000, resident: guest.pages), budget: Self.budget)
        #expect(taken == 0)
        #expect(controller.isOver(budget: Self.budget))
    }

    @Test("notices twice the budget within four seconds")
    func rises() {
        var controller = StallController()
        let usual: UInt64 = 100_000
        for _ in 0..<600 { _ = controller.round(reading(stall: 10 * usual, waits: 10), budget: Self.budget) }
        #expect(!controller.isOver(budget: Self.budget))
        var seconds = 0
        while !controller.isOver(budget: Self.budget), seconds < 100 {
            _ = controller.round(reading(stall: 100 * usual, waits: 100), budget: Self.budget)
            seconds += 1
        }
        #expect(seconds <= 4)
    }

    @Test("goes on within a window and a half after any stall", arguments: [1, 60, 3600])
    func goesOn(seconds: Int) {
        var controller = StallController()
        for _ in 0..<seconds {
            let taken = controller.round(reading(stall: Self.second, waits: 10_000), budget: Self.budget)
            #expect(taken == 0)
        }
        #expect(pause(&controller) <= Int(1.5 * StallController.windowMin) + 1)
        // And slowly at first.
        let taken = controller.round(reading(stall: 0, waits: 0), budget: Self.budget)
        #expect(taken <= 100_000 / 1000)
    }

    @Test("never takes more than a twentieth of RAM for each second, and not for long sleeps")
    func bounded() {
        var controller = StallController()
        var total = 0
        for round in 1...10_000 {
            let taken = controller.round(
                reading(stall: 0, waits: 0, seconds: 60, vcpus: 4, resident: 1000), budget: Self.budget)
            total += taken
            #expect(Double(taken) <= 250 + StallController.batchMin && total <= 250 * round)
        }
    }

    @Test("takes no few pages at a time, nor lets them wait for long")
    func batches() {
        var controller = StallController()
        var since = Int(StallController.batchSecondsMax) - 1
        for _ in 0..<600 {
            since += 1
            // Nearly all of the budget is used: little may leave.
            let taken = controller.round(
                reading(stall: Self.second / 1000 * 4, waits: 40, resident: 20_000), budget: Self.budget)
            if taken > 0 {
                #expect(
                    Double(taken) >= StallController.batchMin || since >= Int(StallController.batchSecondsMax)
                )
                since = 0
            }
            #expect(since < Int(StallController.batchSecondsMax))
        }
    }

    @Test("takes parts of pages, too: a small guest is not left alone")
    func small() {
        var controller = StallController()
        var taken = 0
        for _ in 0..<60 {
            taken += controller.round(reading(stall: 0, waits: 0, resident: 100), budget: Self.budget)
        }
        #expect(taken > 0)
    }

    @Test("measures in the time of all vCPUs")
    func vcpus() {
        var one = StallController()
        var eight = StallController()
        for _ in 0..<60 {
            _ = one.round(reading(stall: Self.second / 100, waits: 100), budget: Self.budget)
            _ = eight.round(reading(stall: Self.second / 100, waits: 100, vcpus: 8), budget: Self.budget)
        }
        #expect(one.isOver(budget: Self.budget) && !eight.isOver(budget: Self.budget))
    }

    /// A trace in, decisions out: requests for pages by Zipf's law, the pages that were
    /// not touched for longest leave.
    @Test("on requests by Zipf's law: most of memory leaves, most requests find their page")
    func zipf() {
        let pages = 20_000
        let requestsPerSecond = 2000
        let wait = 500_000.0
        var dice = Dice(11)
        var cumulated: [Double] = []
        var sum = 0.0
        for rank in 1...pages {
            let root = Double(rank).squareRoot()
            sum += 1 / (Double(rank) * root)
            cumulated.append(sum)
        }
        var controller = StallController()
        var touchedAt = [Int](repeating: 0, count: pages)
        var isOut = [Bool](repeating: false, count: pages)
        var resident = pages
        var stalls: [Double] = []
        for second in 1...1500 {
            var faults = 0
            for _ in 0..<requestsPerSecond {
                let chance = dice.next() * sum
                var (low, high) = (0, pages - 1)
                while low < high {
                    let middle = (low + high) / 2
                    if cumulated[middle] < chance { low = middle + 1 } else { high = middle }
                }
                touchedAt[low] = second
                if isOut[low] {
                    isOut[low] = false
                    resident += 1
                    faults += 1
                }
            }
            stalls.append(Double(faults) * wait / 1e9)
            var quota = controller.round(
                reading(stall: UInt64(Double(faults) * wait), waits: UInt64(faults), resident: resident),
                budget: Self.budget)
            // Coldest first, of what was idle for four seconds.
            if quota > 0 {
                let candidates = (0..<pages).filter { !isOut[$0] && touchedAt[$0] <= second - 4 }
                for page in candidates.sorted(by: { touchedAt[$0] < touchedAt[$1] }) where quota > 0 {
                    isOut[page] = true
                    resident -= 1
                    quota -= 1
                }
            }
        }
        let used = mean(stalls.suffix(600)) / Self.budget
        #expect(used > 0.3 && used < 1.1, "\(used) of the budget")
        // 10 faults a second are the budget: one request in 200. Whoever goes by the last touch
        // pays three of them for half of the pages.
        #expect(resident < pages * 11 / 20, "\(resident) of \(pages) stay")
    }
}
