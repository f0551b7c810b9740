import Kernel
import Synchronization

/// One of the configured tiers: what keeps its pages, how it is, and what it has done.
public final class Tier<Port: KernelPort>: @unchecked Sendable {
    public let index: TierIndex
    public let backing: Store<Port>.Backing
    /// Ceiling of what it costs; 0 for none. Bytes.
    public let maxBytes: Int

    /// Places in use, for whatever: a page's only home, a copy, or a page on its way. Falls,
    /// releasing, as the last thing that is done about a place; so at 0, whatever was done has been.
    let objects = Atomic<Int>(0)
    public var objectCount: Int { objects.load(ordering: .relaxed) }
    let isDraining = Atomic<Bool>(false)

    /// Pages that it took, and those that it failed to take; being full is no failure.
    public let writes = Atomic<UInt64>(0)
    public let writeErrors = Atomic<UInt64>(0)
    /// Pages that were read for an access, or early.
    public let reads = Atomic<UInt64>(0)
    /// Pages that could not be read, for whatever purpose.
    public let readErrors = Atomic<UInt64>(0)
    /// Of those, pages that no access waited for; and why the last of them could not.
    let unawaitedReadErrors = Atomic<UInt64>(0)
    let unawaitedErrno = Atomic<Int32>(0)
    /// Pages that moved on to another tier.
    public let demotions = Atomic<UInt64>(0)
    /// Its device has not answered the worker for longer than is sound. Set by the fault thread.
    let isHung = Atomic<Bool>(false)

    /// Worker thread only.
    private var health = StoreHealth()
    /// It had no room for a page.
    private var full: Full?
    /// It failed to take pages, and has taken none since.
    private var hasFailed = false
    /// Its oldest pages are moving on.
    private(set) var isDemoting = false
    /// When it is worth trying to move pages out of it again.
    private var moveRetryAt: UInt64 = 0
    private var movePause: UInt64 = 0
    private let condition = Atomic<UInt8>(0)

    private struct Full {
        var payload: Int
        var until: UInt64
    }

    /// What it is doing, as far as the worker last saw. The raw values are the C interface's.
    public enum Condition: UInt8, Sendable {
        case active = 0
        case full = 1
        case failing = 2
        case draining = 3
    }

    /// It failed to take pages, and has taken none since: who heard of it will hear of its end.
    var isFailing: Bool { Condition(rawValue: condition.load(ordering: .relaxed)) == .failing }

    /// Nil for memory.
    public var device: Port.Device? { backing.device }
    public var traffic: DeviceTraffic? { device?.traffic }

    /// Reads that failed, those included that one of two places failed and the other answered.
    public var failedReads: UInt64 {
        readErrors.load(ordering: .relaxed) + (traffic?.secondReads.load(ordering: .relaxed) ?? 0)
    }

    /// Nil where there are no limits.
    private let rates: TierRates?

    init(_ index: TierIndex, _ setup: Store<Port>.Setup) {
        self.index = index
        backing = setup.backing
        maxBytes = setup.maxBytes
        if let device = setup.backing.device, !setup.readLimits.isNone || !setup.writeLimits.isNone {
            rates = TierRates(device.traffic, reads: setup.readLimits, writes: setup.writeLimits)
        } else {
            rates = nil
        }
    }

    var isLimited: Bool { rates != nil }

    /// How long a read must wait for its turn, in nanoseconds.
    @inline(__always)
    func readDelay(_ purpose: ReadPurpose, at now: UInt64) -> UInt64 {
        rates?.readDelay(purpose, at: now) ?? 0
    }

    /// How many pages may be read at once, when none must wait; nil for any number.
    func readRoom(_ purpose: ReadPurpose, at now: UInt64) -> Int? { rates?.readRoom(purpose, at: now) }

    /// How long pages to be put must wait.
    func writeDelay(at now: UInt64) -> UInt64 { rates?.writeDelay(at: now) ?? 0 }

    /// Whether some of what it has may be written anew.
    func mayRewrite(_ purpose: ReadPurpose, at now: UInt64) -> Bool {
        guard let rates else { return true }
        return rates.readDelay(purpose, at: now) == 0 && rates.writeDelay(at: now) == 0
    }

    /// Any thread.
    public var state: Condition {
        if isDraining.load(ordering: .relaxed) { return .draining }
        if isHung.load(ordering: .relaxed) { return .failing }
        return Condition(rawValue: condition.load(ordering: .relaxed)) ?? .active
    }

    /// Asking a tier for room costs a compression, so a full one is left alone for so long, or
    /// until it has a little less to keep. Nanoseconds.
    private static var fullPause: UInt64 { 1_000_000_000 }
    private static var movePauseMax: UInt64 { 30_000_000_000 }

    /// Whether it is worth asking. Worker thread only.
    func accepts(at now: UInt64) -> Bool {
        guard !isDraining.load(ordering: .relaxed), health.mayTry(at: now) else { return false }
        guard let full else { return true }
        return now >= full.until || backing.payload <= full.payload - full.payload / 64 - 1
    }

    /// It had no room the last time. Worker thread only.
    var isKnownFull: Bool { full != nil }

    /// What became of pages that it was offered. `isFullNews`: being full means that pages stay
    /// in RAM, and the host program is told. Worker thread only.
    func note(_ answers: TierOffers.Answers, isFullNews: Bool, _ region: Region, at now: UInt64, host: Host) {
        writes.increment(by: UInt64(answers.taken))
        writeErrors.increment(by: UInt64(answers.failed))
        full = answers.isFull ? Full(payload: backing.payload, until: now + Self.fullPause) : nil
        if let failure = answers.failure {
            health.record(failure, index, region, at: now, host: host)
        } else if answers.isFull, isFullNews {
            health.record((.noSpace, answers.fullPage), index, region, at: now, host: host)
        } else if answers.taken > 0 {
            health.recordSuccess(index, host: host)
        }
        note(failed: answers.failure != nil, took: answers.taken)
    }

    /// What became of pages that it had, and that were to be written anew within it. Worker
    /// thread only.
    func note(_ rewrites: Rewrites, at now: UInt64, host: Host) {
        if let (errno, page, region) = rewrites.failure {
            health.record((errno, page), index, region, at: now, host: host)
        } else if rewrites.count > 0, !isKnownFull {
            // Of a full one the host program was told that pages stay in RAM, and they still do.
            health.recordSuccess(index, host: host)
        }
        note(failed: rewrites.failure != nil, took: rewrites.count)
    }

    private func note(failed: Bool, took: Int) {
        if failed { hasFailed = true } else if took > 0 { hasFailed = false }
        let seen: Condition = hasFailed ? .failing : full != nil ? .full : .active
        condition.store(seen.rawValue, ordering: .relaxed)
    }

    // MARK: Moving on

    /// Nothing could be moved out of it: it is tried again after a while. Worker thread only.
    func noteFruitlessMove(at now: UInt64) {
        movePause = min(max(Self.fullPause, movePause * 2), Self.movePauseMax)
        moveRetryAt = now + movePause
    }

    func noteMoves() { (movePause, moveRetryAt) = (0, 0) }

    func mayMove(at now: UInt64) -> Bool { now >= moveRetryAt }

    /// Decides whether pages move on: from when it is nearly full until it has some room. `pages`: of
    /// which it is the only home. Worker thread only.
    func updateDemotion(pages: Int) {
        let excess = excess(pages: pages)
        isDemoting = excess.isPressing || isDemoting && excess.bytes > 0
    }

    /// What it holds beyond what demotion brings it to, and whether that must begin.
    private func excess(pages: Int) -> (bytes: Int, isPressing: Bool) {
        guard maxBytes > 0 else { return (0, false) }
        // Kept copies give way by themselves.
        let objects = max(pages, self.objects.load(ordering: .relaxed))
        let payload = objects > 0 ? backing.payload / objects * pages : 0
        // Full well below its ceiling: what it holds does not fill it without gaps.
        let target = min(maxBytes / 4 * 3, (full?.payload ?? .max) / 8 * 7)
        let bytes = max(0, payload - target)
        return (bytes, bytes > 0 && (payload >= maxBytes / 8 * 7 || full != nil))
    }
}

/// What became of pages that were to be written anew within their tier.
struct Rewrites {
    var count = 0
    /// The last one's.
    var failure: (errno: Errno, page: Int, region: Region)?
}
