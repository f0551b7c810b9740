import Engine
import Testing

@Suite("When a huge page is split, and made whole")
struct HugePageLooksTests {
    private let age: UInt64 = 4
    private let looks = HugePageLooks(count: 1)

    @Test("split after an idle age of warmth")
    func split() {
        #expect(!looks.isDue(0, at: 10, age: age))
        #expect(!looks.isDue(0, at: 13, age: age))
        #expect(looks.isDue(0, at: 14, age: age))
    }

    @Test("in use at once: asked again after twice the wait")
    func inUse() {
        #expect(!looks.isDue(0, at: 10, age: age))
        #expect(looks.isDue(0, at: 14, age: age))
        looks.ask(0, at: 14)
        #expect(looks.asked(since: 14) == [0])
        looks.wasInUse(0, at: 15)
        #expect(looks.asked(since: 0) == [])
        #expect(!looks.isDue(0, at: 22, age: age))
        #expect(looks.isDue(0, at: 23, age: age))
    }

    @Test("nobody looked in time: it is due as before")
    func lateLook() {
        _ = looks.isDue(0, at: 10, age: age)
        looks.ask(0, at: 14)
        #expect(looks.asked(since: 15) == [])
        #expect(looks.isDue(0, at: 15, age: age))
    }

    @Test("after the split its pages are counted for an idle age, and no longer")
    func inside() {
        looks.wasSplit(0, at: 10)
        #expect(looks.mendSince(0, at: 11, age: age) == 10)
        #expect(looks.mendSince(0, at: 15, age: age) == 10)
        #expect(looks.mendSince(0, at: 16, age: age) == nil)
    }

    @Test("each split that did not pay doubles the wait for the next")
    func patience() {
        looks.becameWhole(0)
        _ = looks.isDue(0, at: 10, age: age)
        #expect(!looks.isDue(0, at: 17, age: age))
        #expect(looks.isDue(0, at: 18, age: age))
    }

    @Test("small pages that are busy for an idle age are counted from then on, once for each age")
    func busy() {
        looks.foundSmall(0, touched: 128, at: 10)
        #expect(looks.mendSince(0, at: 13, age: age) == nil)
        looks.foundSmall(0, touched: 512, at: 13)
        #expect(looks.mendSince(0, at: 14, age: age) == 10)
        #expect(looks.mendSince(0, at: 15, age: age) == nil)
        #expect(looks.mendSince(0, at: 18, age: age) == 14)
    }

    @Test("one look that finds few touched ends that", arguments: [0, 127])
    func notBusy(touched: Int) {
        looks.foundSmall(0, touched: 512, at: 10)
        looks.foundSmall(0, touched: touched, at: 12)
        looks.foundSmall(0, touched: 512, at: 13)
        #expect(looks.mendSince(0, at: 16, age: age) == nil)
        #expect(looks.mendSince(0, at: 17, age: age) == 13)
    }
}
