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
        /// Its pages were last touched after `from` and not after `to`; nanoseconds.
        public var from: UInt64
        public var to: UInt64
    }

    /// Ended spans, oldest first.
    public private(set) var spans: [Span] = []
    /// Given to pages touched now.
    public private(set) var current: UInt8
    private var currentFrom: UInt64
    private var free: [UInt8]

    /// How much finer spans are kept up to the idle age.
    private static let finenessBelowIdleAge = 5.0

    public init(at now: UInt64) {
        free = AgeMap.stamps.reversed()
        current = free.removeLast()
        currentFrom = now
    }

    /// Ends the current span and begins the next. When the answer is not nil, it must be
    /// carried out on all ages before any page gets the new current stamp.
    public mutating func endSpan(at now: UInt64, idleAge: UInt64) -> Relabel? {
        spans.append(Span(stamp: current, from: currentFrom, to: max(now, currentFrom)))
        var relabel: Relabel?
        if free.isEmpty { relabel = mergeTwo(at: now, idleAge: idleAge) }
        current = free.removeLast()
        currentFrom = now
        return relabel
    }

    private mutating func mergeTwo(at now: UInt64, idleAge: UInt64) -> Relabel {
        let newest = max(1, spans[spans.count - 1].to - spans[spans.count - 1].from)
        func cost(_ index: Int) -> Double {
            let length = spans[index + 1].to - spans[index].from
            let age = now - spans[index + 1].to
            let fineness = age < idleAge ? Self.finenessBelowIdleAge : 1
            return fineness * Double(length) / Double(age + newest)
        }
        // The youngest span only just ended: it is what tells touched from not touched.
        guard let index = spans.indices.dropLast(2).min(by: { cost($0) < cost($1) }) else {
            preconditionFailure("there are more stamps than three")
        }
        let younger = spans.remove(at: index + 1)
        spans[index].to = younger.to
        free.append(younger.stamp)
        return Relabel(from: younger.stamp, into: spans[index].stamp)
    }

    /// The stamps of pages that were surely not touched for `age` nanoseconds.
    public func stamps(idleFor age: UInt64, at now: UInt64) -> StampSet {
        var set = StampSet()
        for span in spans where now >= span.to && now - span.to >= age { set.insert(span.stamp) }
        return set
    }

    /// The stamps of pages that were surely touched after `time`.
    public func stamps(touchedSince time: UInt64) -> StampSet {
        var set = StampSet()
        for span in spans where span.from >= time { set.insert(span.stamp) }
        if currentFrom >= time { set.insert(current) }
        return set
    }

    /// Pages that have been idle for at least `age` nanoseconds. Within a span, touches
    /// count as spread evenly.
    public func pages(idleFor age: UInt64, at now: UInt64, counts: [Int]) -> Int {
        guard age <= now else { return 0 }
        let latest = now - age
        return spans.reduce(0) { sum, span in
            let pages = counts[Int(span.stamp)]
            if span.to <= latest { return sum + pages }
            if span.from >= latest { return sum }
            let share = Double(latest - span.from) / Double(span.to - span.from)
            return sum + Int(Double(pages) * share)
        }
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
