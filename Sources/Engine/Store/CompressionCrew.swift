import Kernel
import Synchronization

/// Threads that compress the pages of a log while the worker seals, lays out and writes those
/// before them. Compression is what a page costs most on its way out, and more than a quick
/// device takes for it.
///
/// Pages are claimed in groups, by the helpers and by the worker, which helps where it would wait.
/// A group that was claimed is compressed without waiting for anybody, so the worker waits for a
/// helper for as long as that takes at most. Used by one thread at a time.
@safe final class CompressionCrew {
    private let job: Job
    private let threads: [Thread]
    private var isUsed = false

    /// Pages of one job: those of a batch, so that nobody waits between two jobs of it.
    static var pagesMax: Int { Job.pagesMax }
    /// Fewer are not worth waking a thread for.
    static var pagesMin: Int { 32 }
    /// Times that the worker lets others run before it sleeps, and for how long it does, while a
    /// helper's CPU is somebody else's.
    private static var yieldsMax: Int { 64 }
    private static var nap: UInt64 { 50_000 }

    /// `helpers`: threads, above 0.
    init(_ coder: ObjectCoder, helpers: Int) throws(Errno) {
        precondition(helpers > 0)
        let job = try Job(coder, helpers: helpers)
        var threads: [Thread] = []
        do throws(Errno) {
            for number in 1...helpers {
                threads.append(try Thread(name: "frostline-codec") { job.help(number) })
            }
        } catch {
            job.end()
            for thread in threads { thread.join() }
            throw error
        }
        self.job = job
        self.threads = threads
    }

    deinit {
        job.end()
        for thread in threads { thread.join() }
    }

    var helpers: Int { threads.count }

    /// Has pages compressed: at most `pagesMax`, which stay as they are, where they are, until
    /// `contents` has been asked for each of them.
    func begin(_ pages: UnsafeBufferPointer<PagePut>) {
        isUsed = true
        unsafe job.begin(pages)
    }

    /// Whether these are the pages of the job, and `contents` has not been asked for them all.
    func hasBegun(_ pages: UnsafeBufferPointer<PagePut>) -> Bool { unsafe job.hasBegun(pages) }

    /// Ends the job, if there is one: nobody reads its pages any more.
    func abandon() {
        for index in 0..<job.abandon() { while job.contents(index) == nil { yieldThread() } }
    }

    /// What to store of a page of the job, valid until the next one begins.
    func contents(_ index: Int) -> ObjectCoder.Contents {
        defer { if index == job.count - 1 { job.count = 0 } }
        var waits = 0
        while true {
            if let contents = job.contents(index) { return contents }
            if job.compressSome(as: 0) { continue }
            waits += 1
            if waits < Self.yieldsMax { yieldThread() } else { sleep(nanoseconds: Self.nap) }
        }
    }

    /// Gives memory back if there was no job since the last call. None may be under way.
    func trim() {
        if !isUsed { job.releaseMemory() }
        isUsed = false
    }
}

/// What the worker and its helpers share.
@safe private final class Job: @unchecked Sendable {
    static var pagesMax: Int { hugePageSize / pageSize }
    private static var groupSize: Int { 8 }

    private let coder: ObjectCoder
    private let stateSize: Int
    /// For each thread, the worker's first.
    private let states: Mapping
    /// For each page, what LZ4 makes of it.
    private let compressed: Mapping
    /// For each page, the sectors of its object; 0 while they are not known. Released when
    /// `compressed` holds the page's, acquired by the worker.
    private let sectors: UnsafeMutablePointer<Atomic<UInt32>>
    private let words: Mapping
    /// Which pages are not claimed yet. Released when `pages` is set, acquired with each claim;
    /// they are set anew when all that were claimed have their sectors.
    private let claims = Atomic<UInt64>(0)
    /// Where they are.
    private let pages: UnsafeMutablePointer<UInt64>
    /// Pages of the job; 0 when the worker has them all. Worker only.
    var count = 0
    private let isEnding = Atomic<Bool>(false)
    private let bells: [Bell]

    /// Wakes a helper.
    private final class Bell: Sendable {
        let wakeUp: WakeUp
        init() throws(Errno) { wakeUp = try WakeUp() }
    }

    /// How many pages there are, and the first that nobody has claimed, or one past them.
    private struct Claims {
        var bits: UInt64
        var count: Int { Int(bits >> 32) }
        var next: Int { Int(bits & 0xffff_ffff) }
        init(_ bits: UInt64) { self.bits = bits }
        init(count: Int) { bits = UInt64(count) << 32 }
        var isUsedUp: Bool { next >= count }
    }

    init(_ coder: ObjectCoder, helpers: Int) throws(Errno) {
        self.coder = coder
        stateSize = ObjectCoder.codecStateSize
        states = try Mapping(length: (helpers + 1) * stateSize)
        compressed = try Mapping(length: Self.pagesMax * pageSize)
        words = try Mapping(length: roundUp(Self.pagesMax * (8 + 4), to: pageSize))
        unsafe pages = words.base.assumingMemoryBound(to: UInt64.self)
        unsafe sectors = (words.base + Self.pagesMax * 8).assumingMemoryBound(to: Atomic<UInt32>.self)
        var bells: [Bell] = []
        for _ in 0..<helpers { bells.append(try Bell()) }
        self.bells = bells
    }

    // MARK: Worker

    func begin(_ pages: UnsafeBufferPointer<PagePut>) {
        precondition(pages.count <= Self.pagesMax)
        precondition(Claims(claims.load(ordering: .relaxed)).isUsedUp, "a job is under way")
        count = pages.count
        for index in pages.indices {
            unsafe sectors[index].store(0, ordering: .relaxed)
            unsafe self.pages[index] = unsafe pages[index].address
        }
        claims.store(Claims(count: pages.count).bits, ordering: .releasing)
        for bell in bells { bell.wakeUp.signal() }
    }

    func hasBegun(_ pages: UnsafeBufferPointer<PagePut>) -> Bool {
        pages.count == count && pages.indices.allSatisfy { unsafe self.pages[$0] == pages[$0].address }
    }

    /// Claims the rest, which nobody is to compress. How many the others have claimed, or had.
    func abandon() -> Int {
        guard count > 0 else { return 0 }
        count = 0
        let left = Claims(claims.exchange(0, ordering: .acquiring))
        return min(left.next, left.count)
    }

    /// Nil: not yet.
    func contents(_ index: Int) -> ObjectCoder.Contents? {
        let count = unsafe Int(sectors[index].load(ordering: .acquiring))
        guard count > 0 else { return nil }
        return unsafe coder.contents(of: page(index), compressed: memory(index), sectors: count)
    }

    func releaseMemory() { compressed.release(offset: 0, length: compressed.length) }

    func end() {
        isEnding.store(true, ordering: .releasing)
        for bell in bells { bell.wakeUp.signal() }
    }

    // MARK: Any of the threads

    func help(_ number: Int) {
        while !isEnding.load(ordering: .acquiring) {
            _ = bells[number - 1].wakeUp.wait(nanoseconds: Self.longest)
            while compressSome(as: number) {}
        }
    }

    /// It is woken when there is something to do.
    private static var longest: UInt64 { 3_600_000_000_000 }

    /// Compresses some pages that nobody has claimed. False when there are none.
    func compressSome(as number: Int) -> Bool {
        guard let group = claim() else { return false }
        for index in group {
            let count = unsafe coder.compress(
                page(index), state: states.base + number * stateSize, to: memory(index))
            unsafe sectors[index].store(UInt32(count), ordering: .releasing)
        }
        return true
    }

    /// Whoever is late, and claims pages of the next job, does as well as others: it reads
    /// what it needs of the job after the claim.
    private func claim() -> Range<Int>? {
        // So that a number of vain claims never adds up.
        if Claims(claims.load(ordering: .relaxed)).isUsedUp { return nil }
        let old = claims.add(UInt64(Self.groupSize), ordering: .acquiring).oldValue
        let claims = Claims(old)
        if claims.isUsedUp { return nil }
        return claims.next..<min(claims.next + Self.groupSize, claims.count)
    }

    private func page(_ index: Int) -> UnsafeRawPointer {
        unsafe UnsafeRawPointer(bitPattern: UInt(pages[index]))!
    }

    private func memory(_ index: Int) -> UnsafeMutableRawPointer {
        unsafe compressed.base + index * pageSize
    }
}
