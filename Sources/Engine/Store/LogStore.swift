import Kernel
import Synchronization

/// Pages on a device, as a log: objects are appended to segments and never written in place.
/// A segment that nothing of use is left in is free again; segments that little is left in are
/// emptied by writing that little anew (`LogCompactor`).
public final class LogStore<Device: StoreDevice>: PageStore, @unchecked Sendable {
    public let device: Device
    public let segments: SegmentMap
    let coder: ObjectCoder
    let writer: LogWriter<Device>
    private let crew: CompressionCrew?
    private var effort = CompressionEffort()
    /// Pages are to leave as fast as they can: the guest is beyond its limit. Set by the worker.
    public var isHurried = false {
        didSet {
            if !isHurried { coder.sharePerMille.store(CompressionEffort().sharePerMille, ordering: .relaxed) }
        }
    }
    private let kept: KeptCopies
    /// What relocated objects are read to.
    let readBuffer: Mapping
    /// The device frees what is discarded.
    private var discards = true
    private let times: LogTimes
    private let clock: @Sendable () -> UInt64
    /// When the spares are looked at next, and how many of them have not been wanted and are
    /// discarded until then.
    private var spareLookAt: UInt64 = 0
    private var idleSpares = 0
    /// Held by whoever opens, fills, closes, chooses or discards segments: the worker, and in
    /// tests whoever evicts beside it.
    let writing = Lock(())
    /// Begun and not ended: what failed of their writes is not forgotten.
    var putsUnderWay = 0
    /// What the last one to begin took until then, and waited for the device of that; nanoseconds.
    private var putTime: (elapsed: UInt64, waited: UInt64) = (0, 0)

    /// Bytes written to the device for pages that were put, and those to empty segments.
    public let writtenBytes = Atomic<UInt64>(0)
    public let rewrittenBytes = Atomic<UInt64>(0)

    /// Free segments that hold old contents still, kept for the next to be opened.
    private static var sparesMax: Int { 4 }
    /// Segments that one `trim` discards: each may take its time.
    private static var discardsMax: Int { 256 }
    /// Objects that are relocated at once: all are read back at once.
    static var relocationsMax: Int { TransferQueue.depth }
    /// Bytes for one of them: two blocks at most.
    static var readSize: Int { 2 * pageSize }

    /// `size`: bytes of the device to use. `sealer`: nil to store pages in the clear; else one
    /// that no other store has. `segmentSize`: bytes; nil for what suits the size.
    /// `helpers`: threads that compress beside the worker. `clock`: nanoseconds, for `times`.
    public init(
        device: Device, size: UInt64, tier: TierIndex, sealer: Sealer?, segmentSize: Int? = nil,
        helpers: Int = 0, times: LogTimes = LogTimes(), clock: @escaping @Sendable () -> UInt64 = monotonicNow
    ) throws(Errno) {
        self.device = device
        self.times = times
        self.clock = clock
        let segmentSize = segmentSize ?? Self.segmentSize(for: size)
        segments = try SegmentMap(
            segments: Int(size) / segmentSize, sectorsPerSegment: segmentSize / SegmentMap.sectorSize)
        coder = try ObjectCoder(tier: tier, sealer: sealer)
        crew = helpers > 0 ? try CompressionCrew(coder, helpers: helpers) : nil
        writer = try LogWriter(device: device, segments: segments, clock: clock)
        kept = try KeptCopies(sectors: size / UInt64(SegmentMap.sectorSize))
        readBuffer = try Mapping(length: Self.relocationsMax * Self.readSize)
        precondition(segments.count > spared, "a log needs segments to be emptied into")
    }

    /// The smaller a device, the smaller its segments: 1 MiB, or what there are 32 of.
    private static func segmentSize(for size: UInt64) -> Int {
        var segmentSize = 1 << 20
        while segmentSize > 64 << 10, UInt64(32 * segmentSize) > size { segmentSize /= 2 }
        return segmentSize
    }

    /// Threads that compress beside the worker.
    public var helpers: Int { crew?.helpers ?? 0 }

    /// Which cipher seals what is stored; nil when none does.
    public var cipher: Sealer.Cipher? { coder.sealer?.cipher }

    /// Free segments that only compaction may use: what it empties must go somewhere.
    var spared: Int { max(2, segments.count / 128) }

    // MARK: Putting

    /// These pages are about to be put: compression begins. They stay readable until they have been
    /// put, or `abandonExpected`. Worker thread only.
    public func expect(_ pages: UnsafeBufferPointer<PagePut>) {
        guard let crew, (CompressionCrew.pagesMin...CompressionCrew.pagesMax).contains(pages.count) else {
            return
        }
        unsafe crew.begin(pages)
    }

    /// Nobody reads pages any more that were expected and did not come. Worker thread only.
    public func abandonExpected() { crew?.abandon() }

    public func put(
        _ pages: UnsafeBufferPointer<PagePut>, outcomes: UnsafeMutableBufferPointer<PutOutcome>
    ) {
        unsafe beginPut(pages, outcomes)
        unsafe endPut(outcomes)
    }

    /// As `put`, but the writes are under way still: what is `stored` is so when `endPut` has said it
    /// too. The pages are not read any more. Worker thread only.
    public func beginPut(
        _ pages: UnsafeBufferPointer<PagePut>, _ outcomes: UnsafeMutableBufferPointer<PutOutcome>
    ) {
        writing.withLock { _ in
            let before = writer.bytesWritten
            let (start, waited) = (clock(), writer.waited)
            if putsUnderWay == 0 { writer.forgetFailures() }
            putsUnderWay += 1
            unsafe append(pages, outcomes)
            writer.submitAll()
            writtenBytes.add(writer.bytesWritten - before, ordering: .relaxed)
            putTime = (clock() &- start, writer.waited &- waited)
        }
    }

    public func endPut(_ outcomes: UnsafeMutableBufferPointer<PutOutcome>) {
        writing.withLock { _ in
            let (start, waited) = (clock(), writer.waited)
            writer.flush()
            for index in outcomes.indices { unsafe settle(&outcomes[index]) }
            putsUnderWay -= 1
            // Compression is what makes room, too.
            let hurries = isHurried && segments.freeCount > segments.count / 2
            effort.judge(
                pages: outcomes.count, elapsed: putTime.elapsed &+ (clock() &- start),
                waited: putTime.waited &+ (writer.waited &- waited), isHurried: hurries)
            coder.sharePerMille.store(effort.sharePerMille, ordering: .relaxed)
        }
    }

    private func append(
        _ pages: UnsafeBufferPointer<PagePut>, _ outcomes: UnsafeMutableBufferPointer<PutOutcome>
    ) {
        guard let crew, pages.count >= CompressionCrew.pagesMin else {
            for index in pages.indices { unsafe outcomes[index] = append(pages[index]) }
            return
        }
        for first in stride(from: 0, to: pages.count, by: CompressionCrew.pagesMax) {
            let end = min(first + CompressionCrew.pagesMax, pages.count)
            let part = unsafe UnsafeBufferPointer(rebasing: pages[first..<end])
            if unsafe !crew.hasBegun(part) {
                crew.abandon()
                unsafe crew.begin(part)
            }
            for index in first..<end {
                // Asked for each, whether there is room or not: then none is under way any more.
                let contents = crew.contents(index - first)
                unsafe outcomes[index] = append(contents, pages[index].identity, sparing: spared)
            }
        }
    }

    private func append(_ page: PagePut) -> PutOutcome {
        let contents = unsafe coder.contents(of: UnsafeRawPointer(bitPattern: UInt(page.address))!)
        return append(contents, page.identity, sparing: spared)
    }

    /// Lays an object out; `settle` follows when the writer is flushed.
    func append(
        _ contents: ObjectCoder.Contents, _ identity: PageIdentity, sparing spared: Int
    ) -> PutOutcome {
        guard let (sector, object) = unsafe writer.reserve(contents.sectors, sparing: spared) else {
            return .refused(.full)
        }
        unsafe coder.write(contents, to: object, at: segments.position(of: sector), identity)
        return .stored(place: LogPlace(sector: sector, sectors: contents.sectors).place)
    }

    /// What could not be written is refused.
    func settle(_ outcome: inout PutOutcome) {
        guard case .stored(let place) = outcome else { return }
        guard let errno = writer.failure(of: LogPlace(place)) else { return }
        drop(place)
        outcome = .refused(.failed(errno))
    }

    // MARK: Getting

    public func get(
        _ place: UInt64, _ identity: PageIdentity, into buffer: FetchBuffer, token: UInt64
    ) -> GetOutcome {
        let transfer = unsafe transfer(LogPlace(place), to: buffer.raw, token: token)
        if let errno = device.read(transfer) { return .failed(errno) }
        return .pending
    }

    public func finish(
        _ place: UInt64, _ identity: PageIdentity, _ completion: TransferCompletion, _ buffer: FetchBuffer
    ) -> GetOutcome { finish(place, identity, completion, buffer, .fetch) }

    /// The same for a read of either queue, by its thread.
    func finish(
        _ place: UInt64, _ identity: PageIdentity, _ completion: TransferCompletion,
        _ buffer: FetchBuffer, _ queue: TransferQueue
    ) -> GetOutcome {
        let place = LogPlace(place)
        let blocks = blocks(of: place)
        let result = completion.result
        guard Int(result) == blocks.count else {
            return .failed(result < 0 ? Errno(-result) : .inputOutput)
        }
        let isRead = unsafe coder.read(
            buffer.raw + blocks.skipped, sectors: place.sectors, at: segments.position(of: place.sector),
            identity, into: buffer.page)
        if isRead { return .ready }
        let transfer = unsafe transfer(place, to: buffer.raw, token: completion.token)
        switch device.readElsewhere(transfer, queue) {
        case nil: return .pending
        case .noData?: return .failed(.badMessage)
        // It is not known to be damaged everywhere. That there was no room to ask is told of all the
        // same (EBUSY: nothing was asked at all).
        case .busy?: return .failed(.again)
        case let errno?: return .failed(errno)
        }
    }

    /// The device's blocks that an object lies in: where they begin, their bytes, and how many of
    /// these precede it. At most two blocks or pages.
    func blocks(of place: LogPlace) -> (offset: UInt64, count: Int, skipped: Int) {
        let block = UInt64(device.blockSize)
        let start = place.sector * UInt64(SegmentMap.sectorSize)
        let end = start + UInt64(place.sectors * SegmentMap.sectorSize)
        let offset = start / block * block
        return (offset, Int((end + block - 1) / block * block - offset), Int(start - offset))
    }

    func transfer(_ place: LogPlace, to memory: UnsafeMutableRawPointer, token: UInt64) -> Transfer {
        let blocks = blocks(of: place)
        return Transfer(
            memory: UInt64(UInt(bitPattern: memory)), length: blocks.count, offset: blocks.offset,
            token: token)
    }

    // MARK: Dropping

    public func drop(_ place: UInt64) {
        let place = LogPlace(place)
        segments.drop(place.sector, place.sectors)
    }

    /// Free segments that have not been wanted for a while are discarded, but for a few.
    public func trim() {
        writing.withLock { _ in
            let now = clock()
            segments.collect()
            segments.releaseDoubted(at: now, after: times.doubt)
            writer.trim()
            crew?.trim()
            if now >= spareLookAt {
                idleSpares = segments.takeIdleSpares()
                spareLookAt = now &+ times.spare
            }
            for _ in 0..<min(idleSpares, Self.discardsMax) where discards {
                guard let segment = segments.takeToDiscard(keeping: Self.sparesMax) else { return }
                idleSpares -= 1
                guard discard(segment) else { return }
            }
        }
    }

    /// False when the device is not to be asked again for now.
    private func discard(_ segment: UInt32) -> Bool {
        let length = UInt64(segments.sectorsPerSegment * SegmentMap.sectorSize)
        switch device.discard(offset: UInt64(segment) * length, length: length) {
        case .notSupported?:
            discards = false
            segments.notDiscarded(segment)
        case .busy?:
            segments.notDiscarded(segment)
            return false
        case let errno? where errno.mayTakeEffectLater:
            segments.discardDoubted(segment)
            return false
        // An error costs nothing but the device's space, and is of this moment.
        default: segments.discarded(segment)
        }
        return true
    }

    // MARK: Copies

    /// The page at `place` goes back to the guest and its copy stays. Fault thread only.
    func keep(_ place: UInt64, _ contents: UnsafeRawPointer) {
        let place = LogPlace(place)
        unsafe kept.remember(place.sector, contents)
        segments.becomesCopy(place.sector, place.sectors)
    }

    /// Whether the kept copy at `place` still is what the page holds. It is for asking once:
    /// who gets a yes stores the page there, and the digest need not be remembered any more.
    /// Worker thread only.
    func holds(_ place: UInt64, _ contents: UnsafeRawPointer) -> Bool {
        let sector = LogPlace(place).sector
        let matches = unsafe kept.matches(sector, contents)
        if matches { kept.forget(sector) }
        return matches
    }

    /// The page leaves again, and its copy is its only home. Worker thread only.
    func becomesOnly(_ place: UInt64) {
        let place = LogPlace(place)
        segments.becomesOnly(place.sector, place.sectors)
    }

    /// Frees the place of a kept copy. Any thread.
    func dropCopy(_ place: UInt64) {
        let place = LogPlace(place)
        kept.forget(place.sector)
        segments.dropCopy(place.sector, place.sectors)
    }

    // MARK: For statistics

    /// Bytes of the device in use, what is of no use any more included.
    public var usedBytes: Int {
        (segments.count - segments.freeCount) * segments.sectorsPerSegment * SegmentMap.sectorSize
    }

    /// Bytes of the device that may be used.
    public var capacity: Int { segments.count * segments.sectorsPerSegment * SegmentMap.sectorSize }

    /// Bounds of what is under way at the device at any moment, in transfers and bytes.
    public var inFlightMax: (transfers: Int, bytes: Int) {
        // Each queue's reads, of up to two blocks or pages, and what is laid out to be written.
        (2 * TransferQueue.depth, 2 * TransferQueue.depth * Self.readSize + writer.memoryLength)
    }

    /// Memory of the bookkeeping, in bytes. Worker thread only.
    var metadataBytes: Int { segments.residentBytes + kept.trim() }
}

/// How long a log waits before it touches free segments. Nanoseconds.
public struct LogTimes: Sendable {
    /// Free segments that have not been wanted for so long, and up to twice as long, are
    /// discarded: what is written again soon is cheaper to overwrite than to give up and have
    /// found anew.
    public var spare: UInt64
    /// A segment that a write or discard may yet reach, which was given up for want of an
    /// answer, is not used again for so long. Nothing tells when that is over: a server may go on
    /// with what it was asked over a connection that is lost, a disk behind a path that is.
    public var doubt: UInt64

    public init(spare: UInt64 = 10_000_000_000, doubt: UInt64 = 600_000_000_000) {
        self.spare = spare
        self.doubt = doubt
    }
}
