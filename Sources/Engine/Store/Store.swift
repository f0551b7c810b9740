import Kernel
import Synchronization

/// What became of a page that the store was given.
public enum StoreOutcome: Equatable, Sendable {
    case stored(Locator)
    /// No tier took it; the last tier's reason.
    case refused(Refusal)
}

/// Everything below RAM: same-filled pages as words, all others in the configured tiers. A
/// page that one of them refuses is offered to the next.
public final class Store<Port: KernelPort>: @unchecked Sendable {
    public enum Backing {
        case compressed(CompressedStore)
        case log(LogStore<Port.Device>)
    }

    /// A tier to be.
    public struct Setup {
        public var backing: Backing
        /// Ceiling of what it costs; 0 for none. Bytes.
        public var maxBytes: Int
        /// What may be done to its device.
        public var readLimits = RateLimits()
        public var writeLimits = RateLimits()

        public init(_ backing: Backing, maxBytes: Int = 0) {
            self.backing = backing
            self.maxBytes = maxBytes
        }
    }

    public let words: WordTable
    let table = TierTable<Port>()
    /// Where the fault server reads pages to. Control thread.
    private var fetchMemory: (start: UInt64, length: Int) = (0, 0)
    /// Threads within `reading`.
    private let readers = Atomic<Int>(0)
    private let ordering = Lock<[TierIndex]>([])
    /// The order in which pages are offered, without what is being drained. The control thread
    /// changes it at any time.
    var order: [TierIndex] { ordering.withLock { $0 } }
    let offers = TierOffers()
    /// Of the put that has not ended: the tier that still writes; and whether one was not asked. Worker
    /// thread only.
    var underWay: (tier: Tier<Port>, log: LogStore<Port.Device>)?
    var isLeftOut = false
    /// Who was told of pages to come. Worker thread only.
    var expecting: LogStore<Port.Device>?
    /// What the tiers made of the pages that were put last, those that were asked. Worker
    /// thread only.
    var answers: [(tier: Tier<Port>, answers: TierOffers.Answers)] = []

    /// `tiers`: 1 to `TierIndex.tiersMax`, in the order in which pages are offered to them.
    /// `pagesMax`: pages that can ever be out at once.
    public init(tiers: [Setup], pagesMax: Int) throws(Errno) {
        precondition((1...TierIndex.tiersMax).contains(tiers.count))
        words = try WordTable(capacity: pagesMax)
        for (position, tier) in tiers.enumerated() { insert(tier, at: TierIndex(position + 1)) }
    }

    /// Tiers without ceilings but what their stores have.
    public convenience init(tiers: [Backing], pagesMax: Int) throws(Errno) {
        try self.init(tiers: tiers.map { Setup($0) }, pagesMax: pagesMax)
    }

    // MARK: Tiers that come and go

    /// Lets any thread look at the tiers; for the worker and the fault server that is not needed.
    /// Waits for nothing. A tier that is removed meanwhile is there until `body` has ended.
    public func reading<Result>(_ body: () -> Result) -> Result {
        readers.add(1, ordering: .sequentiallyConsistent)
        defer { readers.subtract(1, ordering: .releasing) }
        return body()
    }

    /// No other thread looks at a tier that has been taken out. Worker thread only.
    var isUnread: Bool { readers.load(ordering: .sequentiallyConsistent) == 0 }

    /// The tier at an index, one that is being drained included. See `reading`.
    public func tier(_ index: TierIndex) -> Tier<Port>? { table[index] }

    /// All of them, by index. See `reading`.
    public var tiers: [Tier<Port>] {
        var all: [Tier<Port>] = []
        table.forEach { all.append($0) }
        return all
    }

    /// The tier that an entry names. An entry that names one keeps it there.
    @inline(__always)
    private func named(_ index: TierIndex) -> Tier<Port> {
        guard let tier = table[index] else { preconditionFailure("an entry names a tier that is gone") }
        return tier
    }

    /// Where the next tier would be; nil when there are `TierIndex.tiersMax`. Control thread.
    var freeIndex: TierIndex? { table.freeIndex }

    /// Adds a tier at a free index: memory above all others, anything else below. Control thread.
    func insert(_ setup: Setup, at index: TierIndex) {
        setup.backing.device?.offer(.fetch, memory: fetchMemory.start, length: fetchMemory.length)
        table.insert(Tier(index, setup))
        ordering.withLock { order in
            if case .compressed = setup.backing { order.insert(index, at: 0) } else { order.append(index) }
        }
    }

    /// The tier keeps no copies any more, and no pages come to it but those that the worker is
    /// putting at this moment. Control thread.
    func beginDraining(_ index: TierIndex) {
        ordering.withLock { $0.removeAll { $0 == index } }
        table[index]?.isDraining.store(true, ordering: .relaxed)
    }

    /// Takes a drained tier out, in which nothing is any more; whoever asked for it before may
    /// still hold it. Worker thread only.
    func remove(_ index: TierIndex) -> Unmanaged<Tier<Port>>? {
        precondition(table[index]?.objects.load(ordering: .acquiring) == 0, "a tier is gone too early")
        answers.removeAll(keepingCapacity: true)
        return unsafe table.remove(index)
    }

    // MARK: For who puts

    /// Whether it is worth offering pages to the tiers, or to those below `upper`. Worker thread only.
    func accepts(below upper: TierIndex? = nil, at now: UInt64) -> Bool {
        putDelay(below: upper, at: now) == 0
    }

    /// How long to wait before pages are offered, in nanoseconds; nil when that is not known. A
    /// tier that must wait for its turn is not passed by.
    func putDelay(below upper: TierIndex? = nil, at now: UInt64) -> UInt64? {
        for index in tiers(below: upper) {
            if let tier = table[index], tier.accepts(at: now) { return tier.writeDelay(at: now) }
        }
        return nil
    }

    /// No tier had room the last time. Worker thread only.
    var isKnownFull: Bool { order.allSatisfy { table[$0]?.isKnownFull ?? true } }

    func tiers(below upper: TierIndex?) -> ArraySlice<TierIndex> {
        let order = order
        guard let upper, let position = order.firstIndex(of: upper) else { return order[...] }
        return order[(position + 1)...]
    }

    /// The tier that pages come to when all others are full. Worker thread only.
    var last: TierIndex? { order.last }

    /// The logs among the tiers that take pages, in their order. Worker thread only.
    var logs: [(tier: TierIndex, log: LogStore<Port.Device>)] {
        order.compactMap { index in log(index).map { (index, $0) } }
    }

    /// Those that pages offered now may come to: below memory that has room, none is likely to.
    func logsInReach(below upper: TierIndex?, at now: UInt64) -> [(
        tier: TierIndex, log: LogStore<Port.Device>
    )] {
        var logs: [(tier: TierIndex, log: LogStore<Port.Device>)] = []
        for index in tiers(below: upper) {
            guard let tier = table[index], tier.accepts(at: now) else { continue }
            guard case .log(let log) = tier.backing else { break }
            logs.append((index, log))
        }
        return logs
    }

    func log(_ index: TierIndex) -> LogStore<Port.Device>? {
        if case .log(let log) = table[index]?.backing { log } else { nil }
    }

    // MARK: Getting and dropping

    /// Whether pages of a tier are read from a device.
    func isOnDevice(_ index: TierIndex) -> Bool {
        index != .sameFilled && table[index]?.backing.device != nil
    }

    /// Whether a tier's device ends each transfer, after a time-out at the latest.
    func givesUp(_ index: TierIndex) -> Bool { table[index]?.backing.device?.givesUp ?? false }

    /// Whether they are read from a server's export.
    func isRemote(_ index: TierIndex) -> Bool { table[index]?.backing.device?.isRemote ?? false }

    /// Tiers on devices.
    var deviceCount: Int {
        var count = 0
        table.forEach { if $0.backing.device != nil { count += 1 } }
        return count
    }

    /// Whether a stored page's tier may do only so much to its device.
    @inline(__always)
    func limitsRates(of locator: Locator) -> Bool {
        locator.tier != .sameFilled && table[locator.tier]?.isLimited ?? false
    }

    /// How long a read of a stored page must wait for its turn, in nanoseconds.
    func readDelay(_ locator: Locator, _ purpose: ReadPurpose, at now: UInt64) -> UInt64 {
        // The entry may have been moved, and its tier be gone, by now: then it is not this one's turn.
        guard locator.tier != .sameFilled, let tier = table[locator.tier] else { return 0 }
        return tier.readDelay(purpose, at: now)
    }

    /// Reads a page; fault thread only. See `PageStore.get`.
    @inline(__always)
    public func get(
        _ locator: Locator, _ identity: PageIdentity, into buffer: FetchBuffer, token: UInt64
    ) -> GetOutcome {
        if locator.tier == .sameFilled {
            unsafe fill(buffer.page, with: words.get(locator.place))
            return .ready
        }
        let tier = named(locator.tier)
        tier.reads.increment()
        return tier.backing.get(locator.place, identity, into: buffer, token: token)
    }

    /// Ends a pending read; fault thread only. See `PageStore.finish`.
    public func finish(
        _ locator: Locator, _ identity: PageIdentity, _ completion: TransferCompletion,
        _ buffer: FetchBuffer
    ) -> GetOutcome {
        named(locator.tier).backing.finish(locator.place, identity, completion, buffer)
    }

    /// A page of a tier could not be read. Fault and worker thread, before its place is dropped.
    func noteReadError(_ index: TierIndex) { table[index]?.readErrors.increment() }

    /// … and no access waits for it.
    func noteUnawaitedReadError(_ index: TierIndex, _ errno: Errno) {
        guard let tier = table[index] else { return }
        tier.unawaitedErrno.store(errno.code, ordering: .relaxed)
        tier.unawaitedReadErrors.add(1, ordering: .releasing)
    }

    /// Calls `body` for all tiers, by index. See `reading`.
    func forEachTier(_ body: (Tier<Port>) -> Void) { table.forEach(body) }

    /// A page could not be written anew within its tier, or its device does not answer who writes.
    /// Worker and fault thread.
    func noteWriteError(_ index: TierIndex) { table[index]?.writeErrors.increment() }

    /// Whether pages are to leave as fast as they can. Worker thread only.
    func hurry(_ isHurried: Bool) {
        for (_, log) in logs { log.isHurried = isHurried }
    }

    /// Tells all devices, and those to come, where pages are read to. Control thread, while there
    /// is no fault server, or none any more.
    func offer(_ start: UInt64, length: Int) {
        fetchMemory = (start, length)
        table.forEach { $0.backing.device?.offer(.fetch, memory: start, length: length) }
    }

    /// See `StoreDevice`. Fault thread only.
    var owesLateAnswers: Bool {
        var owes = false
        table.forEach { if $0.backing.device?.owesLateAnswers ?? false { owes = true } }
        return owes
    }

    /// Begins the reads that devices have taken in. False: not all for now. Fault thread only.
    func startFetches() -> Bool {
        var areAll = true
        table.forEach { if let device = $0.backing.device, !device.startReads() { areAll = false } }
        return areAll
    }

    /// Takes finished reads of all tiers, so many of each at most, as many as there is room for.
    /// Fault thread only.
    func reapFetches(
        into completions: UnsafeMutableBufferPointer<TransferCompletion>, ofEach most: Int
    ) -> Int {
        var count = 0
        table.forEach { tier in
            let end = min(count + most, completions.count)
            guard count < end, let device = tier.backing.device else { return }
            count += unsafe device.reap(
                .fetch, into: UnsafeMutableBufferPointer(rebasing: completions[count..<end]), wait: false)
        }
        return count
    }

    /// Any thread.
    public func drop(_ locator: Locator) {
        if locator.tier == .sameFilled { return words.drop(locator.place) }
        let tier = named(locator.tier)
        tier.backing.drop(locator.place)
        tier.objects.subtract(1, ordering: .releasing)
    }

    /// There is an object which did not come by `put`: it was moved within its tier. Worker
    /// thread only.
    func adopt(_ locator: Locator) { named(locator.tier).objects.add(1, ordering: .relaxed) }

    // MARK: Kept copies

    /// A page went back to the guest from `locator`. True when its copy stays there, for
    /// `holds` to ask for later: where a copy costs no host memory, or a word. Fault thread only.
    func keep(_ locator: Locator, _ contents: UnsafeRawPointer) -> Bool {
        if locator.tier == .sameFilled { return true }
        let tier = named(locator.tier)
        if tier.isDraining.load(ordering: .relaxed) { return false }
        return unsafe tier.backing.keep(locator.place, contents)
    }

    /// Whether the copy kept at `locator` is what the page holds now. A discard may drop it at this
    /// moment: then the answer means nothing, and the page's entry has changed. Worker thread only.
    func holds(_ locator: Locator, _ contents: UnsafeRawPointer) -> Bool {
        if locator.tier == .sameFilled { return unsafe sameFilledWord(contents) == words.get(locator.place) }
        let tier = named(locator.tier)
        if tier.isDraining.load(ordering: .relaxed) { return false }
        return unsafe tier.backing.holds(locator.place, contents)
    }

    /// The page that a copy is kept of left again: it is the page's only home. Worker thread only.
    func becomesOnly(_ locator: Locator) {
        if locator.tier != .sameFilled { named(locator.tier).backing.becomesOnly(locator.place) }
    }

    /// Drops a kept copy. Any thread.
    func dropCopy(_ locator: Locator) {
        if locator.tier == .sameFilled { return words.drop(locator.place) }
        let tier = named(locator.tier)
        tier.backing.dropCopy(locator.place)
        tier.objects.subtract(1, ordering: .releasing)
    }

    // MARK: All tiers together

    /// Worker thread only.
    public func trim() { table.forEach { $0.backing.trim() } }

    /// Host memory that stored pages cost, in bytes: what `limit` counts.
    public var heldBytes: Int {
        var sum = words.usedBytes
        table.forEach { sum += $0.backing.heldBytes }
        return sum
    }

    /// What tiers in memory may still come to hold, in bytes; nil for no bound. Worker thread only.
    var memoryRoom: Int? {
        var room = 0
        for index in order {
            guard let tier = table[index], tier.backing.device == nil else { continue }
            if tier.maxBytes == 0 { return nil }
            room += max(0, tier.maxBytes - tier.backing.heldBytes)
        }
        return room
    }

    /// Memory of the bookkeeping, in bytes. Worker thread only.
    public var metadataBytes: Int {
        var sum = 0
        table.forEach { sum += $0.backing.metadataBytes }
        return sum
    }
}
