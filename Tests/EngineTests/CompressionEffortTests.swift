import Engine
import Testing
@Suite("How much is compressed")
struct CompressionEffortTests {
    /// After so many batches, each of which waited so long of 1000.
    private func share(
        _ batches: Int, waited: UInt64, pages: Int = 512, isHurried: Bool = true,
        from start: CompressionEffort = CompressionEffort()
    ) -> CompressionEffort {
        var effort = start
        for _ in 0..<batches {
            effort.judge(pages: pages, elapsed: 1000, waited: waited, isHurried: isHurried)
        }
        return effort
    }

    @Test("is all of it without a hurry, at once")
    func withoutHurry() {
        #expect(share(100, waited: 0, isHurried: false).sharePerMille == 1000)
        let low = share(100, waited: 0)
        #expect(share(1, waited: 0, isHurried: false, from: low).sharePerMille == 1000)
    }

    @Test("gives way while the device waits for us, and comes back while we wait for it")
    func givesWay() {
        #expect((1..<1000).contains(share(1, waited: 0).sharePerMille))
        let low = share(100, waited: 0)
        #expect(low.sharePerMille == 0)
        #expect((1..<1000).contains(share(2, waited: 500, from: low).sharePerMille))
        #expect(share(100, waited: 500, from: low).sharePerMille == 1000)
    }

    @Test("stays where both are at work")
    func stays() {
        let some = share(4, waited: 0)
        #expect(share(100, waited: 200, from: some).sharePerMille == some.sharePerMille)
    }

    @Test("is not judged by a few pages")
    func few() {
        #expect(share(100, waited: 0, pages: 16).sharePerMille == 1000)
    }
}
