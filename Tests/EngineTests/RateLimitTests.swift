import Engine
import Testing

@Suite("A rate limit")
struct RateLimitTests {
    private let second: UInt64 = 1_000_000_000

    @Test("lets a second's worth through at once, and then as much as comes in")
    func burst() {
        var limit = RateLimit(rate: 100)
        let start = 50 * second
        var done = 0
        while limit.delay(at: start) == 0 {
            limit.use(1, at: start)
            done += 1
        }
        // The last one begins when nothing is used beyond the burst yet.
        #expect(done == 101)
        #expect(limit.delay(at: start) == second / 100)
        #expect(limit.delay(at: start + second / 100) == 0)
    }

    @Test("is kept on average, however large the steps are", arguments: [1, 7, 999, 50_000])
    func average(step: UInt64) {
        let rate: UInt64 = 1000
        var limit = RateLimit(rate: rate)
        var now = 10 * second
        var used: UInt64 = 0
        let end = now + 100 * second
        while now < end {
            let delay = limit.delay(at: now)
            if delay == 0 {
                limit.use(step, at: now)
                used += step
            }
            now += max(delay, 1000)
        }
        // The burst, and one step that was under way at the end.
        #expect(used <= 101 * rate + step)
        #expect(used + step >= 100 * rate)
    }

    @Test("saves nothing up beyond a second")
    func rest() {
        var limit = RateLimit(rate: 10)
        limit.use(1, at: second)
        limit.use(10, at: 1000 * second)
        #expect(limit.delay(at: 1000 * second) == 0)
        limit.use(1, at: 1000 * second)
        #expect(limit.delay(at: 1000 * second) == second / 10)
    }

    @Test("leaves something to those who are more urgent")
    func urgency() {
        var limit = RateLimit(rate: 100)
        let now = 10 * second
        func delays() -> [UInt64] {
            [ReadPurpose.fault, .prefetch, .background].map { limit.delay(at: now, reserve: $0.reserve) }
        }
        limit.use(25, at: now)
        #expect(delays() == [0, 0, 0])
        limit.use(1, at: now)
        #expect(delays() == [0, 0, second / 100])
        limit.use(25, at: now)
        #expect(delays() == [0, second / 100, second / 4 + second / 100])
        limit.use(50, at: now)
        #expect(delays()[0] == second / 100)
    }

    @Test("says how much may be done at once, so that the rest is left", arguments: [1, 40, 3000])
    func room(rate: UInt64) {
        var limit = RateLimit(rate: rate)
        let now = 10 * second
        let reserve = ReadPurpose.background.reserve
        #expect(limit.room(at: now) == rate)
        #expect(limit.room(at: now, reserve: reserve) == rate / 4)
        limit.use(rate / 4, at: now)
        #expect(limit.room(at: now, reserve: reserve)! <= 1)
        #expect(limit.room(at: now)! >= rate / 4 * 3)
        limit.use(2 * rate, at: now)
        #expect(limit.room(at: now) == 0)
        #expect(limit.room(at: now + 3 * second) == rate)
        #expect(RateLimit(rate: 0).room(at: now) == nil)
    }

    @Test("of 0 is none")
    func none() {
        var limit = RateLimit(rate: 0)
        limit.use(.max, at: 1)
        #expect(limit.delay(at: 1, reserve: second) == 0)
    }
}
