import Engine
import Testing

@Suite("The guest's clock")
struct GuestClockTests {
    @Test("goes with the kernel's while the guest runs, and falls behind while it stands still")
    func falls() {
        let clock = GuestClock()
        #expect(clock.now(1000) == 1000)
        clock.setRunning(false, at: 1200)
        #expect(!clock.isRunning)
        #expect(clock.now(1200) == 1200)
        #expect(clock.now(5000) == 1200)
        #expect(clock.behind(5000) == 3800)
        clock.setRunning(true, at: 6000)
        #expect(clock.behind(6000) == 4800 && clock.behind(6400) == 4800)
        #expect(clock.isRunning)
        #expect(clock.now(6000) == 1200)
        #expect(clock.now(6500) == 1700)
        clock.setRunning(false, at: 7000)
        clock.setRunning(true, at: 9000)
        #expect(clock.now(9100) == 2300)
    }

    @Test("takes being told twice for once")
    func twice() {
        let clock = GuestClock()
        clock.setRunning(true, at: 500)
        #expect(clock.now(600) == 600)
        clock.setRunning(false, at: 700)
        clock.setRunning(false, at: 900)
        #expect(clock.now(1000) == 700)
        clock.setRunning(true, at: 1100)
        clock.setRunning(true, at: 1300)
        #expect(clock.now(1400) == 1000)
    }

    @Test("does not go back for who read the kernel's clock before the guest was stopped")
    func monotonic() {
        let clock = GuestClock()
        #expect(clock.now(1010) == 1010)
        clock.setRunning(false, at: 1000)
        #expect(clock.now(1020) == 1010)
        clock.setRunning(true, at: 2000)
        #expect(clock.now(2005) == 1010)
        #expect(clock.now(2020) == 1020)
    }
}
