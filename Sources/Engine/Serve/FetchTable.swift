import Kernel

/// A page on its way from the store: who wants it and where it is being read to.
struct Fetch {
    let region: Region
    let page: Int
    /// Its entry, in state `arriving`.
    let entry: PageEntry
    /// When its fault message was read.
    let start: UInt64
    let want: Want
    /// Nobody waited for it at first, and an access came after it.
    var isOvertaken = false

    /// Why a page comes back.
    enum Want {
        /// An access waits for it. `read` says nothing of later writes.
        case read, write
        /// It comes early.
        case ahead
        /// It is to leave the store.
        case recall
        /// A huge page that it is a part of comes back.
        case part
    }

    var tier: TierIndex { Locator(payload: entry.payload).tier }

    var isDemand: Bool { want == .read || want == .write }
    /// An access waits for it. Of a part, its huge page tells (`WholeFetch.Wanted`).
    var isAwaited: Bool { isDemand || isOvertaken }
}

/// The reads under way, each with a buffer; as many as a device's queue takes. Fault
/// thread only.
final class FetchTable {
    private let buffers: Mapping
    private var fetches: [Fetch?]
    private var free: [Int]
    /// Some of the reads may have been taken in by their devices only (`StoreDevice.startReads`).
    var areUnstarted = false
    /// When each was first found under way, in nanoseconds; 0: not yet.
    private var foundAt = [UInt64](repeating: 0, count: capacity)
    /// Reads under way, by tier.
    private var underWay = [Int](repeating: 0, count: TierIndex.tiersMax + 1)

    static let capacity = TransferQueue.depth
    /// What is left to tiers that answer at once.
    private static let spared = 4
    /// The page, and twice as much for what is stored of it.
    private static let bufferSize = 3 * pageSize

    init() throws(Errno) {
        buffers = try Mapping(length: Self.capacity * Self.bufferSize)
        fetches = Array(repeating: nil, count: Self.capacity)
        free = Array((0..<Self.capacity).reversed())
    }

    /// Address and bytes of all buffers.
    var memory: (start: UInt64, length: Int) {
        unsafe (UInt64(UInt(bitPattern: buffers.base)), buffers.length)
    }

    var freeCount: Int { free.count }
    var isIdle: Bool { free.count == Self.capacity }

    func countUnderWay(of tier: TierIndex) -> Int { underWay[tier.number] }

    /// Whether an access to a page on a device must wait until a buffer comes free, lest the
    /// accesses that wait for a device which does not answer stop those to all others. `devices`:
    /// there are; asked for when buffers are scarce.
    func mustWait(for tier: TierIndex, devices: @autoclosure () -> Int) -> Bool {
        if free.count > Self.capacity / 2 { return false }
        return free.count <= Self.spared
            || underWay[tier.number] >= (Self.capacity - Self.spared) / max(1, devices())
    }

    /// A buffer for a fetch; there must be a free one.
    func take() -> Int {
        guard let index = free.popLast() else { preconditionFailure("more fetches than buffers") }
        return index
    }

    func buffer(_ index: Int) -> FetchBuffer {
        let page = unsafe buffers.base + index * Self.bufferSize
        return unsafe FetchBuffer(page: page, raw: page + pageSize)
    }

    /// Remembers what a pending read is for.
    func begin(_ index: Int, _ fetch: Fetch) {
        fetches[index] = fetch
        foundAt[index] = 0
        areUnstarted = true
        underWay[fetch.tier.number] += 1
    }

    /// What a finished read was for.
    func end(_ index: Int) -> Fetch {
        guard let fetch = fetches[index] else { preconditionFailure("a read completed twice") }
        fetches[index] = nil
        underWay[fetch.tier.number] -= 1
        return fetch
    }

    func giveBack(_ index: Int) { free.append(index) }

    /// An access came to a page that is on its way.
    func noteAccess(_ region: Region, _ page: Int) {
        for index in fetches.indices {
            if let fetch = fetches[index], !fetch.isDemand, fetch.page == page, fetch.region === region {
                fetches[index]?.isOvertaken = true
            }
        }
    }

    /// Reads that were under way `limit` nanoseconds ago and still are, as far as earlier calls saw.
    func forEachOverdue(at now: UInt64, after limit: UInt64, _ body: (Fetch) -> Void) {
        for index in fetches.indices {
            guard let fetch = fetches[index] else { continue }
            if foundAt[index] == 0 { foundAt[index] = now }
            if now &- foundAt[index] >= limit { body(fetch) }
        }
    }
}
