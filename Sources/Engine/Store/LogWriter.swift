import Kernel

/// The head of the log: objects are laid out in memory as they will lie in the open segment,
/// and go to the device in few large writes, which are under way while the next objects are
/// made. What was written stays as it is: the head only moves forward, and sectors that could
/// not be written are passed over. Worker thread only.
///
/// Writes begin and end between pages of the device where they can. ext4 has a write that does
/// not keep to its blocks, where these were never written, hold the whole file and wait for all
/// other writes (ext4_dio_write_checks), and one into a hole wait for a thread of the kernel's,
/// which is why space is set aside first (`StoreDevice.allocate`).
@safe final class LogWriter<Device: StoreDevice> {
    private let device: Device
    private let segments: SegmentMap
    private let segmentSize: Int
    private let sectorsPerBlock: Int
    /// Two segments' worth, used in turns.
    private let memory: Mapping
    private var turn = 0
    private var isMemoryUsed = false

    private var segment: UInt32?
    /// Sectors of the open segment that are laid out, and those that were given to the device.
    private var filled = 0
    private var submitted = 0
    /// Sectors laid out since the last `submitAll`.
    private var unflushed = 0

    /// Where what the device has set aside in one go ends, in bytes, and how much that is.
    private var allocated: UInt64 = 0
    private var stretch: UInt64
    private var allocates = true

    private struct Slice {
        var sector: UInt64
        var sectors: Int
        var turn: Int
    }

    /// Writes under way, by their tokens; nil where none is.
    private var slices: [Slice?]
    private var inFlight = [0, 0]
    private var failures: [(sectors: Range<UInt64>, errno: Errno)] = []
    private let clock: @Sendable () -> UInt64
    /// Nanoseconds waited for writes so far.
    private(set) var waited: UInt64 = 0
    /// Bytes given to the device so far.
    private(set) var bytesWritten: UInt64 = 0

    /// Bytes that are worth a write of their own while more is to come.
    private static var sliceSize: Int { 256 << 10 }
    /// Bytes that can be laid out or under way at a time.
    var memoryLength: Int { memory.length }
    private static var slicesMax: Int { 16 }
    private static var sectorSize: Int { SegmentMap.sectorSize }
    private static var sectorsPerPage: Int { pageSize / sectorSize }
    /// What ends on a whole page of the device: it costs at most a sixteenth of this.
    private static var wholePagesFrom: Int { 64 << 10 }
    /// Bytes that the device sets aside in one go, at most.
    private static var stretchMax: Int { 64 << 20 }

    init(
        device: Device, segments: SegmentMap, clock: @escaping @Sendable () -> UInt64
    ) throws(Errno) {
        self.device = device
        self.clock = clock
        self.segments = segments
        segmentSize = segments.sectorsPerSegment * Self.sectorSize
        sectorsPerBlock = device.blockSize / Self.sectorSize
        // Each time, what is under way is waited for; and it is taken before it is needed.
        stretch = UInt64(min(max(segmentSize, segments.count / 8 * segmentSize), Self.stretchMax))
        precondition(segmentSize % device.blockSize == 0 && segmentSize % pageSize == 0)
        memory = try Mapping(length: 2 * segmentSize)
        slices = Array(repeating: nil, count: Self.slicesMax)
        unsafe device.offer(.evict, memory: UInt64(UInt(bitPattern: memory.base)), length: memory.length)
    }

    deinit { device.offer(.evict, memory: 0, length: 0) }

    /// Sectors that can be laid out before all but `spared` free segments are used up, with
    /// objects of at most `longest`, none of which lies in two segments.
    func room(sparing spared: Int, longest: Int) -> Int {
        let left = segment == nil ? 0 : segments.sectorsPerSegment - filled
        let whole = max(0, segments.freeCount - spared)
        return max(0, left - longest + 1) + whole * (segments.sectorsPerSegment - longest + 1)
    }

    /// Where an object of `sectors` comes to lie, and the memory to make it in before the next
    /// call. They count as of use from now on. Nil when all but `spared` free segments are used.
    func reserve(_ sectors: Int, sparing spared: Int) -> (sector: UInt64, object: UnsafeMutableRawPointer)? {
        if let segment, filled + sectors <= segments.sectorsPerSegment {
            if (filled - submitted) * Self.sectorSize >= Self.sliceSize {
                submit(upTo: filled / Self.sectorsPerPage * Self.sectorsPerPage)
            }
            segments.add(sectors, to: segment)
        } else {
            guard openNext(sparing: spared) else { return nil }
            segments.add(sectors, to: segment!)
        }
        isMemoryUsed = true
        defer {
            filled += sectors
            unflushed += sectors
        }
        return unsafe (sector(filled), memory.base + turn * segmentSize + filled * Self.sectorSize)
    }

    /// The device's number of a sector of the open segment.
    private func sector(_ index: Int) -> UInt64 {
        UInt64(segment!) * UInt64(segments.sectorsPerSegment) + UInt64(index)
    }

    private func openNext(sparing spared: Int) -> Bool {
        segments.collect()
        guard segments.freeCount > spared else { return false }
        if let segment {
            submitRest(to: Self.sectorsPerPage)
            // Not free at once: what was just laid out in it is of use.
            segments.close(segment)
        }
        segment = segments.open()
        if allocates, segments.openedBlank, let segment { allocate(segment) }
        turn = 1 - turn
        while inFlight[turn] > 0 { settle() }
        filled = 0
        submitted = 0
        return true
    }

    /// Sets space aside for a segment that holds nothing, and for those behind it when that was
    /// not done yet. An error is not one of the log's: the writes will tell.
    private func allocate(_ segment: UInt32) {
        let size = UInt64(segmentSize)
        let start = UInt64(segment) * size
        let isNew = start + size > allocated
        let length = isNew ? min(stretch, UInt64(segments.count) * size - start) : size
        switch device.allocate(offset: start, length: length) {
        case nil:
            if isNew { allocated = start + length }
        case .notSupported?: allocates = false
        // Some of it may be had, or not.
        default: stretch = size
        }
    }

    /// Writes what is laid out, up to a multiple of so many sectors. Nothing alone: it could be
    /// under way still when the segment, empty, is opened anew.
    private func submitRest(to multiple: Int) {
        guard filled > submitted else { return }
        let end = (filled + multiple - 1) / multiple * multiple
        let start = unsafe memory.base + turn * segmentSize + filled * Self.sectorSize
        unsafe start.initializeMemory(
            as: UInt8.self, repeating: 0, count: (end - filled) * Self.sectorSize)
        filled = end
        submit(upTo: end)
    }

    private func submit(upTo end: Int) {
        guard end > submitted else { return }
        let slice = Slice(sector: sector(submitted), sectors: end - submitted, turn: turn)
        let token = takeToken()
        let start = unsafe memory.base + turn * segmentSize + submitted * Self.sectorSize
        let errno = device.write(
            Transfer(
                memory: UInt64(UInt(bitPattern: start)), length: slice.sectors * Self.sectorSize,
                offset: slice.sector * UInt64(Self.sectorSize), token: UInt64(token)))
        submitted = end
        if let errno { return fail(slice, errno) }
        bytesWritten += UInt64(slice.sectors * Self.sectorSize)
        slices[token] = slice
        inFlight[turn] += 1
    }

    private func takeToken() -> Int {
        while true {
            if let token = slices.firstIndex(where: { $0 == nil }) { return token }
            settle()
        }
    }

    /// Waits for at least one write. A short one has failed: an object is stored whole or not
    /// at all.
    private func settle() {
        unsafe withUnsafeTemporaryAllocation(
            of: TransferCompletion.self, capacity: Self.slicesMax
        ) { completions in
            let before = clock()
            let count = unsafe device.reap(.evict, into: completions, wait: true)
            waited &+= clock() &- before
            for index in 0..<count {
                let completion = unsafe completions[index]
                guard let slice = slices[Int(completion.token)] else {
                    preconditionFailure("a write completed twice")
                }
                slices[Int(completion.token)] = nil
                inFlight[slice.turn] -= 1
                if Int(completion.result) == slice.sectors * Self.sectorSize { continue }
                let errno = completion.result < 0 ? Errno(-completion.result) : .noSpace
                if errno.mayTakeEffectLater { segments.doubt(slice.sector) }
                fail(slice, errno)
            }
        }
    }

    private func fail(_ slice: Slice, _ errno: Errno) {
        failures.append((slice.sector..<slice.sector + UInt64(slice.sectors), errno))
    }

    /// Has all that is laid out written.
    func submitAll() {
        let isMuch = unflushed * Self.sectorSize >= Self.wholePagesFrom
        unflushed = 0
        if segment != nil { submitRest(to: isMuch ? Self.sectorsPerPage : sectorsPerBlock) }
    }

    /// Writes what is laid out, and waits for all writes. `failure` tells of them until the
    /// next object is reserved after `forgetFailures`.
    func flush() {
        submitAll()
        while inFlight[0] + inFlight[1] > 0 { settle() }
    }

    /// Why an object that was laid out since the last `forgetFailures` is not on the device.
    func failure(of place: LogPlace) -> Errno? {
        let sectors = place.sector..<place.sector + UInt64(place.sectors)
        return failures.first { $0.sectors.overlaps(sectors) }?.errno
    }

    func forgetFailures() { failures.removeAll(keepingCapacity: true) }

    /// Gives the memory back if it was not used since the last call.
    func trim() {
        if !isMemoryUsed {
            device.letGo(.evict)
            memory.release(offset: 0, length: memory.length)
        }
        isMemoryUsed = false
    }
}

/// Where an object lies: in the bits of a place.
public struct LogPlace: Equatable, Sendable {
    /// First sector, counted from the device's.
    public let sector: UInt64
    /// 1 to 16.
    public let sectors: Int

    private static let countBits: UInt64 = 4

    @inline(__always)
    init(sector: UInt64, sectors: Int) {
        assert((1...1 << Int(Self.countBits)).contains(sectors))
        self.sector = sector
        self.sectors = sectors
    }

    @inline(__always)
    public init(_ place: UInt64) {
        sector = place >> Self.countBits
        sectors = Int(place & (1 << Self.countBits - 1)) + 1
    }

    @inline(__always)
    var place: UInt64 { sector << Self.countBits | UInt64(sectors - 1) }
}
