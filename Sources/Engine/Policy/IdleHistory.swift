/// What the 14 stamps of an `AgeMap` stand for: spans of time in which a page was last
/// touched, fine for the recent past and ever coarser before it, an hour back and more.
///
/// A span ends with each pass of the tracker. When the stamps run out, two neighbouring
/// spans become one: those whose union is shortest beside its age, so that ages stay
/// exact to a share of themselves. Up to the idle age, where eviction decides, spans are
/// kept finer. An age is never overstated: a span counts as young as its young end.
public struct IdleHistory: Sendable {
    public struct Span: Equatable, Sendable {
        public let stamp: UInt8
        /// Its pages were last touched after `from` and not after `to`; nanoseconds. Ages that
        /// come from elsewhere may go back to before this host's clock began.
        public var from: Int64
        public var to: Int64
    }

    /// Ended spans, by their young ends, oldest first. Those that were admitted may overlap others.
    public private(set) var spans: [Span] = []
    /// Given to pages touched now.
    public private(set) var current: UInt8
    private var currentFrom: Int64
    private var free: [UInt8]

    /// How much finer spans are kept up to the idle age.
    private static let finenessBelowIdleAge = 5.0

    public init(at now: UInt64) {
        free = AgeMap.stamps.reversed()
        current = free.removeLast()
        currentFrom = Int64(now)
    }

    /// Ends the current span and begins the next. When the answer is not nil, it must be
    /// carried out on all ages before any page gets the new current stamp.
    public mutating func endSpan(at now: UInt64, idleAge: UInt64) -> Relabel? {
        spans.append(Span(stamp: current, from: currentFrom, to: max(Int64(now), currentFrom)))
        var relabel: Relabel?
        if free.isEmpty { relabel = mergeTwo(at: now, idleAge: idleAge) }
        current = free.removeLast()
        currentFrom = Int64(now)
        return relabel
    }

    private mutating func mergeTwo(at now: UInt64, idleAge: UInt64) -> Relabel {
        let newest = max(1, spans[spans.count - 1].to - spans[spans.count - 1].from)
        func cost(_ index: Int) -> Double {
            let length = spans[index + 1].to - min(spans[index].from, spans[index + 1].from)
            let age = Int64(now) - spans[index + 1].to
            let fineness = age < Int64(idleAge) ? Self.finenessBelowIdleAge : 1
            return fineness * Double(length) / Double(age + newest)
        }
        // The youngest span only just ended: it is what tells touched from not touched.
        guard let index = spans.indices.dropLast(2).min(by: { cost($0) < cost($1) }) else {
            preconditionFailure("there are more stamps than three")
        }
        let younger = spans.remove(at: index + 1)
        spans[index].from = min(spans[index].from, younger.from)
        spans[index].to = younger.to
        free.append(younger.stamp)
        return Relabel(from: younger.stamp, into: spans[index].stamp)
    }

    /// The stamps of pages that were surely not touched for `age` nanoseconds.
    public func stamps(idleFor age: UInt64, at now: UInt64) -> StampSet {
        var set = StampSet()
        for span in spans where Int64(now) - span.to >= Int64(age) { set.insert(span.stamp) }
        return set
    }

    /// The stamps of pages that were surely touched after `time`.
    public func stamps(touchedSince time: UInt64) -> StampSet {
        var set = StampSet()
        for span in spans where span.from >= Int64(time) { set.insert(span.stamp) }
        if currentFrom >= Int64(time) { set.insert(current) }
        return set
    }

    /// Pages that have been idle for at least `age` nanoseconds. Within a span, touches
    /// count as spread evenly.
    public func pages(idleFor age: UInt64, at now: UInt64, counts: [Int]) -> Int {
        let latest = Int64(now) - Int64(age)
        return spans.reduce(0) { sum, span in
            let pages = counts[Int(span.stamp)]
            if span.to <= latest { return sum + pages }
            if span.from >= latest { return sum }
            let share = Double(latest - span.from) / Double(span.to - span.from)
            return sum + Int(Double(pages) * share)
        }
    }
}

/// Ages that go to another pager, and such that come from one.
extension IdleHistory {
    /// What the stamps say at `now`: the idle times of an image's classes, and the class of
    /// each stamp.
    public func classes(at now: UInt64) -> (scale: HotnessScale, classOfStamp: [UInt8]) {
        var classOfStamp = [UInt8](repeating: HotnessImage.unknown, count: AgeMap.stampCount)
        classOfStamp[Int(AgeMap.kept)] = HotnessImage.out
        classOfStamp[Int(current)] = 1
        var leastIdle: [UInt64] = [0]
        for span in spans.reversed() {
            leastIdle.append(UInt64(max(0, Int64(now) - span.to)))
            classOfStamp[Int(span.stamp)] = UInt8(leastIdle.count)
        }
        let oldest = spans.reduce(currentFrom) { min($0, $1.from) }
        let horizon = max(UInt64(max(0, Int64(now) - oldest)), leastIdle[leastIdle.count - 1])
        return (HotnessScale(leastIdle: leastIdle, horizon: horizon), classOfStamp)
    }

    /// Which stamps the classes of an image get.
    public struct Admission {
        /// By class; those that have none stay `AgeMap.absent`.
        public internal(set) var stampOfClass = [UInt8](repeating: AgeMap.absent, count: AgeMap.stampCount)
        /// To be carried out on all ages, in order, before any page gets one of the stamps.
        public internal(set) var relabels: [Relabel] = []
    }

    /// A page that was out counts as idle for as long as a working set looks back: cold
    /// enough to leave here as well.
    private static let outIdleMin: UInt64 = 1_000_000_000 << UInt64(WorkingSet.thresholdCount - 1)
    /// Longer than anybody was idle.
    private static let idleMax: UInt64 = 1 << 60
    /// A span will do for an idle time that it understates by no more than this share.
    private static let slackDivisor: Int64 = 8

    /// Takes over idle times that another pager knew: at `now` a page of a class has been
    /// idle for at least what the scale says. Its stamp here says that or less.
    public mutating func admit(_ scale: HotnessScale, at now: UInt64, idleAge: UInt64) -> Admission {
        precondition(scale.ascends, "an image was checked before it is taken over")
        var admission = Admission()
        let times = (scale.leastIdle + [scale.horizon]).map { min($0, Self.idleMax) }
        for index in scale.leastIdle.indices {
            let idle = times[index]...times[index + 1]
            admission.stampOfClass[index + 1] = stamp(for: idle, at: now, idleAge, &admission)
        }
        let least = max(scale.leastIdle.isEmpty ? 0 : times[times.count - 2], Self.outIdleMin, idleAge)
        let idle = least...max(least, times[times.count - 1])
        admission.stampOfClass[Int(HotnessImage.out)] = stamp(for: idle, at: now, idleAge, &admission)
        return admission
    }

    private mutating func stamp(
        for idle: ClosedRange<UInt64>, at now: UInt64, _ idleAge: UInt64, _ admission: inout Admission
    ) -> UInt8 {
        let to = Int64(now) - Int64(idle.lowerBound)
        let from = Int64(now) - Int64(idle.upperBound)
        if idle.lowerBound == 0 { return current }
        if let index = spans.firstIndex(where: { $0.to >= to }),
            spans[index].to - to <= Int64(idle.lowerBound) / Self.slackDivisor
        {
            spans[index].from = min(spans[index].from, from)
            return spans[index].stamp
        }
        if free.isEmpty {
            let relabel = mergeTwo(at: now, idleAge: idleAge)
            admission.relabels.append(relabel)
            for value in admission.stampOfClass.indices
            where admission.stampOfClass[value] == relabel.from {
                admission.stampOfClass[value] = relabel.into
            }
        }
        let stamp = free.removeLast()
        let index = spans.firstIndex { $0.to > to } ?? spans.count
        spans.insert(Span(stamp: stamp, from: from, to: to), at: index)
        return stamp
    }
}

/// Some of the stamps of an `AgeMap`.
public struct StampSet: Equatable, Sendable {
    private var bits: UInt16 = 0

    public init(_ stamps: [UInt8] = []) { for stamp in stamps { insert(stamp) } }

    public mutating func insert(_ stamp: UInt8) { bits |= 1 << UInt16(stamp) }

    @inline(__always)
    public func contains(_ stamp: UInt8) -> Bool { bits >> UInt16(stamp) & 1 != 0 }
    public var isEmpty: Bool { bits == 0 }
}
