import Kernel

/// Pages in page-sized slots of a device. Pages put together are written in as few transfers as the
/// free slots allow.
public struct FileStore<Device: StoreDevice>: PageStore {
    let device: Device
    public let slots: SlotMap
    private let kept: KeptCopies

    /// Longest single transfer, in pages.
    private static var pagesPerTransferMax: Int { 256 }

    /// `size`: bytes of the device to use, at least one page.
    public init(device: Device, size: UInt64) throws(Errno) {
        self.device = device
        slots = SlotMap(capacity: Int(size) / pageSize)
        kept = try KeptCopies(capacity: Int(size) / pageSize)
    }

    public func put(
        _ pages: UnsafeBufferPointer<PagePut>, outcomes: UnsafeMutableBufferPointer<PutOutcome>
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

    private func contiguousRun(_ pages: UnsafeBufferPointer<PagePut>, from first: Int) -> Range<Int> {
        var end = first + 1
        while end < pages.count, end - first < Self.pagesPerTransferMax,
            unsafe pages[end].address == pages[end - 1].address + UInt64(pageSize)
        {
            end += 1
        }
        return first..<end
    }

    private func submit(
        _ pages: UnsafeBufferPointer<PagePut>, _ run: Range<Int>, slot: Int
    ) -> Errno? {
        unsafe device.write(
            Transfer(
                memory: pages[run.lowerBound].address, length: run.count * pageSize,
                offset: UInt64(slot) * UInt64(pageSize),
                token: UInt64(run.lowerBound) << 32 | UInt64(run.count)))
    }

    /// Waits for at least one write and settles the pages of those that failed.
    /// A short write fails all its pages: a page is stored whole or not at all.
    private func finish(_ outcomes: UnsafeMutableBufferPointer<PutOutcome>) -> Int {
        unsafe withUnsafeTemporaryAllocation(
            of: TransferCompletion.self, capacity: StoreFile.evictDepth
        ) { completions in
            let count = unsafe device.reap(.evict, into: completions, wait: true)
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
        _ place: UInt64, _ identity: PageIdentity, into buffer: FetchBuffer, token: UInt64
    ) -> GetOutcome {
        let errno = unsafe device.read(
            Transfer(
                memory: UInt64(UInt(bitPattern: buffer.page)), length: pageSize,
                offset: place * UInt64(pageSize), token: token))
        if let errno { return .failed(errno) }
        return .pending
    }

    public func finish(
        _ place: UInt64, _ identity: PageIdentity, _ result: Int32, _ buffer: FetchBuffer
    ) -> Errno? {
        if Int(result) == pageSize { return nil }
        // A short read is a failed one: the file ends before the page does.
        return result < 0 ? Errno(-result) : .inputOutput
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
