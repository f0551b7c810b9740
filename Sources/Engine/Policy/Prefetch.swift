/// Decides which pages to bring back before they are wanted. Guest memory that was left
/// together tends to be wanted together; what proves it is that faults follow each other
/// through it. A few such streams are told apart. A fault where a stream was expected
/// next is a hit and doubles the stream's window; a fault elsewhere begins a stream of its
/// own, which brings nothing until it is followed. So random faults cost nothing, and what
/// is brought in vain is at most the last window of each stream. Where that is more than half of
/// all, because streams end soon, windows are kept shorter, until less than a fifth is. Pure.
public struct Prefetch: Sendable {
    private struct Stream {
        var region: ObjectIdentifier
        /// The page at which the next fault proves the stream.
        var next: Int
        var window: Int
        /// Pages of the window that really were brought.
        var brought: UInt64
        var usedAt: UInt64

        func covers(_ region: ObjectIdentifier, _ page: Int) -> Bool {
            self.region == region && page <= next && page >= next - window
        }
    }

    /// Pages of the largest window.
    public static let windowMax = 32
    private static let windowMin = 2
    private static let streamsMax = 8
    /// Pages brought early, of which it is known whether they were of use, before the largest
    /// window is judged by them.
    private static let judgedAtOnce: UInt64 = 256

    private var streams: [Stream] = []
    private var clock: UInt64 = 0
    /// Pages brought early in windows that the guest went through.
    public private(set) var hits: UInt64 = 0
    /// Pages of the largest window at present.
    private(set) var windowLimit = Self.windowMax
    private var used: UInt64 = 0
    private var unused: UInt64 = 0

    public init() { streams.reserveCapacity(Self.streamsMax) }

    /// A page was brought back because it was wanted. The pages to bring next, perhaps none.
    public mutating func fault(_ region: ObjectIdentifier, _ page: Int) -> Range<Int> {
        clock += 1
        guard let index = streams.firstIndex(where: { $0.covers(region, page) }) else {
            begin(Stream(region: region, next: page + 1, window: 0, brought: 0, usedAt: clock))
            return page + 1..<page + 1
        }
        streams[index].usedAt = clock
        // The guest is quicker than the window that is being brought.
        guard streams[index].next == page else { return page + 1..<page + 1 }
        hits += streams[index].brought
        used += streams[index].brought
        judge()
        streams[index].brought = 0
        let window = min(max(streams[index].window * 2, Self.windowMin), windowLimit)
        streams[index].window = window
        streams[index].next = page + 1 + window
        return page + 1..<page + 1 + window
    }

    /// A page of a window is being brought.
    public mutating func brings(_ region: ObjectIdentifier, _ page: Int) {
        guard let index = streams.firstIndex(where: { $0.covers(region, page) }) else { return }
        streams[index].brought += 1
    }

    private mutating func judge() {
        guard used + unused >= Self.judgedAtOnce else { return }
        if unused > used { windowLimit = max(windowLimit / 2, Self.windowMin) }
        if unused * 4 < used { windowLimit = min(windowLimit * 2, Self.windowMax) }
        (used, unused) = (0, 0)
    }

    private mutating func begin(_ stream: Stream) {
        if streams.count < Self.streamsMax { return streams.append(stream) }
        let oldest = streams.indices.min { streams[$0].usedAt < streams[$1].usedAt }!
        unused += streams[oldest].brought
        judge()
        streams[oldest] = stream
    }
}
