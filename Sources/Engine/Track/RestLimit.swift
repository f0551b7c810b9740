/// How many passes memory in which nothing was touched may be left out: many while hardly
/// anything is found to have been touched meanwhile, none for a while after much was.
///
/// A page touched during a rest of `n` passes is found `n / 2` passes late on average, and
/// for so long it is called in use when it is idle. The sum of pages times passes found late
/// in a pass is therefore the number of pages about which the tracker is wrong at any
/// moment. It is kept to 1/256 of the resident pages. What was touched a bit here and
/// there stays far below that; a scan, or another phase of a program, does not.
public struct RestLimit: Sendable {
    /// The longest rest now, in passes; one less than a power of two.
    public private(set) var passes: UInt16
    /// The longest rest ever, in passes.
    public let longest: UInt16
    private var latePages = 0
    private var passesOfWindow = 0
    /// Calm windows in a row, and those wanted before rests are made longer.
    private var calmWindows = 0
    private var patience = 1

    /// An idle age, mostly (`PassInterval`).
    private static let window = 8
    private static let patienceMax = 8
    /// Huge pages looked at in each pass for the sake of finding out, in blocks of whatever size.
    /// A small block has no more to look at.
    private static let samples = 16
    private static let longestMin: UInt16 = 15
    private static let longestMax: UInt16 = 1023

    /// For a block of so many huge pages.
    public init(hugePages: Int) {
        var longest = Self.longestMin
        while longest < Self.longestMax, (Int(longest) + 1) * 2 * Self.samples <= hugePages {
            longest = longest * 2 + 1
        }
        self.longest = longest
        passes = longest
    }

    /// Ends a pass. `latePasses` is the sum, over the pages found touched, of the passes that
    /// were left out before. True when so much was found that all that rests is to be looked
    /// at at once, and in each pass of a window.
    public mutating func endPass(latePasses: Int, residentPages: Int) -> Bool {
        passesOfWindow += 1
        latePages += latePasses / 2
        if passes > 0, latePasses / 2 > residentPages / 128 {
            patience = passes < longest ? min(patience * 2, Self.patienceMax) : 1
            passes = 0
            beginWindow(isCalm: false)
            return true
        }
        if latePages > residentPages * Self.window / 256 {
            passes /= 2
            beginWindow(isCalm: false)
        } else if passesOfWindow == Self.window {
            // Twice the rest is up to four times as wrong.
            let isCalm = latePages <= residentPages * Self.window / 1024
            beginWindow(isCalm: isCalm)
            if calmWindows >= patience { lengthen() }
        }
        return false
    }

    private mutating func beginWindow(isCalm: Bool) {
        passesOfWindow = 0
        latePages = 0
        calmWindows = isCalm ? calmWindows + 1 : 0
    }

    private mutating func lengthen() {
        calmWindows = 0
        passes = min(passes * 2 + 1, longest)
    }
}
