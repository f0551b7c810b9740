/// A transfer, from when it was asked for until it is reaped. It goes out in parts, and again
/// from the start when its connection is lost.
struct NBDRequest {
    enum Kind { case read, write, trim }
    enum Stage: Equatable {
        case unused
        /// Parts may be under way.
        case open
        /// Waits to be reaped; 0 or an errno.
        case finished(Int32)
    }

    var stage = Stage.unused
    var kind = Kind.read
    var memory: UInt64 = 0
    var length = 0
    var offset: UInt64 = 0
    var token: UInt64 = 0
    /// When it was asked for, and when its first part went out over this connection.
    var asked: UInt64 = 0
    var sent: UInt64 = 0
    /// Bytes that were handed over to this connection, and parts that are not answered.
    var handedOver = 0
    var parts = 0
    /// The first error of a part, or 0.
    var error: Int32 = 0

    var isComplete: Bool { parts == 0 && handedOver == length }
}

/// A bounded queue of slots.
struct SlotQueue {
    private var slots: ContiguousArray<UInt16>
    private var head = 0
    private(set) var count = 0

    init(capacity: Int) { slots = ContiguousArray(repeating: 0, count: capacity) }

    var first: Int? { count > 0 ? Int(slots[head]) : nil }

    mutating func append(_ slot: Int) {
        precondition(count < slots.count, "a slot is in a queue once")
        slots[(head + count) % slots.count] = UInt16(slot)
        count += 1
    }

    mutating func popFirst() -> Int? {
        guard let slot = first else { return nil }
        head = (head + 1) % slots.count
        count -= 1
        return slot
    }

    mutating func removeAll() { count = 0 }
}
