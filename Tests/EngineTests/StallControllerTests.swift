import Engine
import Testing

@Suite("The stall controller")
struct StallControllerTests {
    private static let second: UInt64 = 1_000_000_000
    private static let budget = 0.005

    /// A guest whose page of rank r is touched with a rate that falls with r, and that
    /// waits 100 µs for each page that has left: coldest pages leave first.
    private struct Guest {
        let pages = 100_000
        var evicted = 0
        var hot: Double

        /// Faults in a second with the `evicted` coldest pages gone.
        var faults: Double {
            let resident = Double(pages - evicted) / Double(pages)
            // Pages beyond the hot part are touched a thousandth as often.
            let beyond = max(0, 1 - max(resident, hot)) * Double(pages) / 10_000
            let within = max(0, hot - resident) * Double(pages) / 10
            return beyond + within
        }

        mutating func run(_ controller: inout StallController, seconds: Int) -> [Double] {
            (0..<seconds).map { _ in
                let waiting = UInt64(faults * 100_000)
                // What was touched is back.
                evicted = max(0, evicted - Int(faults))
                evicted += controller.round(
                    .init(
                        stall: waiting, elapsed: StallControllerTests.second, vcpus: 1,
                        residentPages: pages - evicted), budget: StallControllerTests.budget)
                return Double(waiting) / 1e9
            }
        }
    }

    @Test("takes what is cold and leaves what is in use", arguments: [0.1, 0.4, 0.8])
    func converges(hot: Double) {
        var controller = StallController()
        var guest = Guest(hot: hot)
        let stalls = guest.run(&controller, seconds: 1800)
        let saved = Double(guest.evicted) / Double(guest.pages)
        #expect(saved > (1 - hot) * 0.9, "saved \(saved)")
        #expect(saved < 1 - hot + 0.02, "saved \(saved)")
        let mean = stalls.suffix(900).reduce(0, +) / 900
        #expect(mean <= Self.budget * 1.1, "stall \(mean)")
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

    @Test("stops within one round when the guest's needs grow")
    func backsOff() {
        var controller = StallController()
        var guest = Guest(hot: 0.2)
        _ = guest.run(&controller, seconds: 900)
        guest.hot = 0.9
        _ = guest.run(&controller, seconds: 1)
        let taken = controller.round(
            .init(
                stall: Self.second / 10, elapsed: Self.second, vcpus: 1, residentPages: guest.pages),
            budget: Self.budget)
        #expect(taken == 0)
        #expect(controller.isOver(budget: Self.budget))
    }

    @Test("never takes more than a twentieth of RAM for each second, and not for long sleeps")
    func bounded() {
        var controller = StallController()
        for _ in 0..<10_000 {
            let taken = controller.round(
                .init(stall: 0, elapsed: 60 * Self.second, vcpus: 4, residentPages: 1000),
                budget: Self.budget)
            #expect(taken <= 250)
        }
    }

    @Test("measures in the time of all vCPUs")
    func vcpus() {
        var one = StallController()
        var eight = StallController()
        let reading = {
            StallController.Reading(
                stall: Self.second / 100, elapsed: Self.second, vcpus: $0, residentPages: 1_000_000)
        }
        _ = one.round(reading(1), budget: Self.budget)
        _ = eight.round(reading(8), budget: Self.budget)
        #expect(one.isOver(budget: Self.budget) && !eight.isOver(budget: Self.budget))
    }
}
