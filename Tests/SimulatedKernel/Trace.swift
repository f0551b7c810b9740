/// What happened in a run, as a hash that two equal runs share and, on demand, as text.
public final class Trace {
    public private(set) var hash: UInt64 = 0xcbf2_9ce4_8422_2325
    private let lineSink: ((String) -> Void)?

    /// `lineSink` takes each event as a line; without it only the hash is kept.
    public init(lineSink: ((String) -> Void)? = nil) {
        self.lineSink = lineSink
    }

    /// Notes an event. The numbers may be anything but addresses: those differ from
    /// one process to the next.
    @inline(__always)
    public func note(_ actor: String, _ event: StaticString, _ first: Int = 0, _ second: Int = 0) {
        mix(UInt64(bitPattern: Int64(first)))
        mix(UInt64(bitPattern: Int64(second)))
        mix(UInt64(UInt(event.utf8CodeUnitCount)))
        if let lineSink { lineSink("\(actor): \(event) \(first) \(second)") }
    }

    public func note(_ actor: String, _ event: String) {
        for byte in event.utf8 { mix(UInt64(byte)) }
        if let lineSink { lineSink("\(actor): \(event)") }
    }

    @inline(__always)
    private func mix(_ value: UInt64) {
        hash = (hash ^ value) &* 0x0000_0100_0000_01b3
        hash ^= hash >> 29
    }
}
