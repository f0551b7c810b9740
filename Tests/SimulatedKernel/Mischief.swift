import SeededRandom

/// How often, per mille, each thing goes wrong that may go wrong in the real world.
public struct Mischief: Equatable, Sendable {
    /// EAGAIN from COPY, CONTINUE, ZEROPAGE and POISON.
    public var placementBusy = 0
    /// ENOMEM from COPY, CONTINUE, ZEROPAGE and POISON.
    public var placementFailure = 0
    /// EAGAIN from MOVE, before anything moved or half way.
    public var moveAgain = 0
    /// MOVE goes on after a page that it had to wait for, and does not count what it moves then.
    public var moveUncounted = 0
    /// MOVE does not end before a page lies where one is to go, or the world is well again.
    public var moveStuck = 0
    /// ENOMEM from MOVE.
    public var moveFailure = 0
    /// MADV_DONTNEED on shared memory fails.
    public var zapFailure = 0
    /// A page of shared memory is in the host's swap when it is asked for.
    public var swappedOut = 0
    /// No huge page of hugetlbfs is free.
    public var poolEmpty = 0
    /// MADV_REMOVE fails and does nothing.
    public var punchFailure = 0
    /// MADV_REMOVE finds a huge page in use, and fills its part of it with zeros.
    public var punchOnlyErases = 0
    /// A page of shared memory loses its mapping, and with it its arming.
    public var vanishes = 0
    /// MADV_DONTNEED on private memory fails half way; a discard of the device fails.
    public var discardFailure = 0
    /// UFFDIO_SET_MODE fails.
    public var modeFailure = 0
    /// ENOMEM from UFFDIO_REGISTER.
    public var watchFailure = 0
    /// An error from UFFDIO_RWPROTECT.
    public var armFailure = 0
    /// A signal ends a vCPU's wait; it faults again and is reported again.
    public var signal = 0
    /// A scan that reports only a few runs at a time.
    public var shortScan = 0
    /// EIO for a read of the store, and reads that end early.
    public var readError = 0
    public var shortRead = 0
    /// A bit is another than was written.
    public var bitFlip = 0
    /// What was there before the last write.
    public var staleRead = 0
    /// EIO and ENOSPC for a write to the store, and writes that end early.
    public var writeError = 0
    public var noSpace = 0
    public var shortWrite = 0
    /// The queue of transfers takes no more.
    public var submitError = 0
    /// ETIMEDOUT for a write or a discard, which is carried out later.
    public var lateEffect = 0

    public init() {}
    public static let none = Mischief()

    /// Makes failures of single reads so rare that 512 reads in a row often succeed.
    public mutating func spareReads() {
        for kind in [\Self.readError, \.shortRead, \.bitFlip, \.staleRead, \.submitError] {
            self[keyPath: kind] = min(self[keyPath: kind], 1)
        }
    }

    static let kinds: [WritableKeyPath<Mischief, Int> & Sendable] = [
        \.placementBusy, \.placementFailure,
        \.moveAgain, \.moveUncounted, \.moveStuck, \.moveFailure, \.watchFailure,
        \.zapFailure, \.swappedOut, \.poolEmpty, \.punchFailure, \.punchOnlyErases, \.vanishes,
        \.discardFailure,
        \.modeFailure, \.armFailure, \.signal, \.shortScan,
        \.readError, \.shortRead, \.bitFlip, \.staleRead, \.writeError, \.noSpace,
        \.shortWrite, \.submitError, \.lateEffect,
    ]

    /// Swarm testing: each kind is off in half of all runs, so that a common one does
    /// not hide what a rare one alone would show.
    public init(from random: inout SplitMix) {
        for kind in Self.kinds where random.chance(500) {
            self[keyPath: kind] = random.pick([10, 50, 200, 500])
        }
    }
}

/// A kernel, disk, compaction or demotion that breaks its promises: proof that the checks can fail.
public enum Sabotage: CaseIterable, Sendable {
    /// A moved page arrives as zeros.
    case moveLosesContents
    /// MOVE takes pinned pages along, and device I/O into them is lost.
    case moveIgnoresPins
    /// COPY places zeros.
    case copyPlacesZeros
    /// COPY answers that it placed the page, and does not.
    case copyPlacesNothing
    /// Unmapping a page of shared memory takes it out of its file as well, before the store
    /// has it.
    case zapLosesContents
    /// Unmapped pages stay mapped.
    case zapLeavesMapped
    /// CONTINUE answers that it mapped the page, and does not.
    case continueMapsNothing
    /// Of a huge page of hugetlbfs only the first 4 KiB are placed.
    case hugePagesArriveInPart
    /// Of a huge page of hugetlbfs only the first 4 KiB are there to be read.
    case hugePagesAreReadInPart
    /// Punched pages stay in their file.
    case punchDoesNothing
    /// Writes to write-protected pages go on, as if they were asynchronous.
    case writesPassProtection
    /// Arming a page of private memory drops it: before the store has it.
    case armingDropsPages
    /// Lifting a page's protection wakes nobody.
    case disarmingWakesNobody
    /// A scan finds no page touched.
    case scanMissesTouches
    /// Switching to synchronous mode is answered, and accesses go on unnoticed.
    case modeStaysAsynchronous
    /// Switching back takes the messages of those who wait along, and wakes nobody.
    case modeLosesWaiters
    /// MADV_DONTNEED on private memory does nothing.
    case discardDoesNothing
    /// A placed page wakes nobody.
    case placementWakesNobody
    /// WAKE wakes nobody.
    case wakeDoesNothing
    /// A write is acknowledged and not done.
    case diskLosesWrites
    /// A write ends up in another block.
    case diskMisplacesWrites
    /// A discard takes a page more than was given back.
    case diskDiscardsTooMuch
    /// A short read is reported as a whole one.
    case diskReadsHalf
    /// An object of the pool is moved although its page has left meanwhile.
    case compactionOverwritesEntries
    /// The same in a log.
    case relocationOverwritesEntries
    /// Damaged and stale objects of the device are taken for what was written.
    case deviceIsNotSealed
    /// Segments are written anew while a write or discard may reach them yet, which was given up.
    case doubtedSegmentsAreUsed
    /// An object's new place is told before its bytes are there.
    case compactionTellsTooEarly
    /// Demotion drops a page before its entry says where it is now.
    case demotionDropsFirst
    /// Demotion moves a page although it has left the store meanwhile.
    case demotionOverwritesEntries
    /// What arrives in the lower tier is zeros.
    case demotionLosesContents
}
