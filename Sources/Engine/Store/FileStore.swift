import Kernel

/// Pages in page-sized slots of a file or block device, through the port's two
/// transfer queues. Pages put together are written in as few transfers as the
/// free slots allow.
public struct FileStore<Port: KernelPort>: PageStore {
    private let port: Port
    public let slots: SlotMap
    private let kept: KeptCopies

    public var tier: Tier { .file }

    /// Longest single transfer, in pages.
    private static var pagesPerTransferMax: Int { 256 }

    /// `size` in bytes, at least one page.
    public init(port: Port, size: UInt64) throws(Errno) {
        self.port = port
        slots = SlotMap(capacity: Int(size) / pageSize)
        kept = try KeptCopies(capacity: Int(size) / pageSize)
    }

    public func put(
        _ pages: UnsafeBufferPointer<UInt64>, outcomes: UnsafeMutableBufferPointer<PutOutcome>
    ) {
        var next = 0
        var inFlight = 0
        while next < pages.count || inFlight > 0 {
            while next < pages.count, inFlight < StoreFile.evictDepth {
                let run = unsafe contiguousRun(pages, from: next)
                guard let taken = slots.take(upTo: run.count) else {
                    for index in next..<pages.count { unsafe outcomes[index] = .refused(.full) }
                    next = pages.count
                    break
                }
                let written = next..<next + taken.count
                if let errno = unsafe submit(pages, written, slot: taken.lowerBound) {
                    unsafe refuse(written, slots: taken, errno, outcomes)
                } else {
                    for index in written {
                        unsafe outcomes[index] = .stored(
                            place: UInt64(taken.lowerBound + index - written.lowerBound))
                    }
                    inFlight += 1
                }
                next = written.upperBound
            }
            if inFlight > 0 { unsafe inFlight -= finish(outcomes) }
        }
    }

    private func contiguousRun(_ pages: UnsafeBufferPointer<UInt64>, from first: Int) -> Range<Int> {
        var end = first + 1
        while end < pages.count, end - first < Self.pagesPerTransferMax,
            unsafe pages[end] == pages[end - 1] + UInt64(pageSize)
        {
            end += 1
        }
        return first..<end
    }

    private func submit(
        _ pages: UnsafeBufferPointer<UInt64>, _ run: Range<Int>, slot: Int
    ) -> Errno? {
        unsafe port.write(
            Transfer(
                memory: pages[run.lowerBound], length: run.count * pageSize,
                offset: UInt64(slot) * UInt64(pageSize),
                token: UInt64(run.lowerBound) << 32 | UInt64(run.count)))
    }

    /// Waits for at least one write and settles the pages of those that failed.
    /// A short write fails all its pages: a page is stored whole or not at all.
    private func finish(_ outcomes: UnsafeMutableBufferPointer<PutOutcome>) -> Int {
        unsafe withUnsafeTemporaryAllocation(
            of: TransferCompletion.self, capacity: StoreFile.evictDepth
        ) { completions in
            let count = unsafe port.reap(.evict, into: completions, wait: true)
            for index in 0..<count {
                let completion = unsafe completions[index]
                let first = Int(completion.token >> 32)
                let pages = first..<first + Int(completion.token & 0xffff_ffff)
                if Int(completion.result) == pages.count * pageSize { continue }
                guard case .stored(let slot) = unsafe outcomes[first] else {
                    preconditionFailure("a write completed twice")
                }
                let errno = completion.result < 0 ? Errno(-completion.result) : .noSpace
                unsafe refuse(pages, slots: Int(slot)..<Int(slot) + pages.count, errno, outcomes)
            }
            return count
        }
    }

    private func refuse(
        _ pages: Range<Int>, slots taken: Range<Int>, _ errno: Errno,
        _ outcomes: UnsafeMutableBufferPointer<PutOutcome>
    ) {
        for slot in taken { slots.free(slot) }
        for index in pages { unsafe outcomes[index] = .refused(.failed(errno)) }
    }

    public func get(
        _ place: UInt64, into buffer: UnsafeMutableRawPointer, token: UInt64
    ) -> GetOutcome {
        let errno = port.read(
            Transfer(
                memory: UInt64(UInt(bitPattern: buffer)), length: pageSize,
                offset: place * UInt64(pageSize), token: token))
        if let errno { return .failed(errno) }
        return .pending
    }

    public func drop(_ place: UInt64) { slots.free(Int(place)) }
    public func trim() {}

    /// The page at `place` goes back to the guest and its copy stays. Fault thread only.
    func keep(_ place: UInt64, _ contents: UnsafeRawPointer) {
        unsafe kept.remember(Int(place), contents)
    }

    /// Whether the kept copy at `place` still is what the page holds. Worker thread only.
    func holds(_ place: UInt64, _ contents: UnsafeRawPointer) -> Bool {
        unsafe kept.matches(Int(place), contents)
    }

    /// Frees the place of a kept copy. Any thread.
    func dropCopy(_ place: UInt64) {
        kept.forget(Int(place))
        slots.free(Int(place))
    }

    /// Slots that kept copies must give up for `pages` more: an eighth of the file is left to
    /// pages whose only home it is, so that these find room together.
    func shortage(for pages: Int) -> Int {
        max(0, slots.used + pages - (slots.capacity - slots.capacity / 8))
    }

    /// Memory of the bookkeeping, in bytes. Worker thread only.
    var metadataBytes: Int { slots.metadataBytes + kept.trim() }
}
