import CCodec
import Kernel
import Synchronization

/// What a device stores of a page: an object of whole sectors, compressed where that saves a
/// sector, and sealed unless sealing is off.
///
///     sealed       tag, 16 bytes │ encrypted: contents
///     not sealed   contents
///     contents     length, 2 bytes │ LZ4 block │ zeros     fewer sectors than `wholeSectors`
///                  the page │ zeros                        `wholeSectors`; zeros in the clear
///
/// The number of sectors is part of an object's place, so nothing of an object needs to be
/// trusted before it is opened.
@safe public final class ObjectCoder: @unchecked Sendable {
    private let tier: TierIndex
    let sealer: Sealer?
    private let overhead: Int
    /// Sectors of a page that is stored as it is: the longest object.
    let wholeSectors: Int
    // Of the worker.
    private let codecState: Mapping
    private let scratch: Mapping
    /// Pages in a row that compression did not make smaller, or was not tried on for that.
    private let misses = Atomic<UInt32>(0)
    /// How many pages of a thousand are compressed, and what comes of that for the next ones.
    let sharePerMille = Atomic<UInt32>(1000)
    private let credit = Atomic<UInt32>(0)

    private static let lengthBytes = 2
    private static let sectorSize = SegmentMap.sectorSize
    /// Bytes that `compress` needs of a thread's own: zeros at first.
    static var codecStateSize: Int { roundUp(Int(ccodec_lz4_state_size()), to: pageSize) }

    public init(tier: TierIndex, sealer: Sealer?) throws(Errno) {
        self.tier = tier
        self.sealer = sealer
        overhead = sealer == nil ? 0 : Sealer.tagLength
        wholeSectors = (pageSize + overhead + Self.sectorSize - 1) / Self.sectorSize
        codecState = try Mapping(length: Self.codecStateSize)
        scratch = try Mapping(length: pageSize)
    }

    /// The contents of an object, ready to be sealed.
    @safe public struct Contents {
        let start: UnsafeRawPointer
        public let sectors: Int
    }

    /// Bytes of an object's contents.
    @inline(__always)
    private func length(sectors: Int) -> Int {
        sectors == wholeSectors ? pageSize : sectors * Self.sectorSize - overhead
    }

    /// What to store of a page. Valid until the next call. Worker thread only.
    public func contents(of page: UnsafeRawPointer) -> Contents {
        let sectors = unsafe compress(page, state: codecState.base, to: scratch.base)
        return unsafe contents(of: page, compressed: scratch.base, sectors: sectors)
    }

    /// Compresses a page into a page of memory. Returns the sectors of its object; with
    /// `wholeSectors` it is stored as it is. Any thread, with `codecStateSize` bytes of its own.
    func compress(
        _ page: UnsafeRawPointer, state: UnsafeMutableRawPointer, to start: UnsafeMutableRawPointer
    ) -> Int {
        guard isWorthTrying else { return wholeSectors }
        let room = length(sectors: wholeSectors - 1)
        let length = unsafe Int(
            ccodec_lz4_compress(
                state, page, Int32(pageSize), start + Self.lengthBytes, Int32(room - Self.lengthBytes)))
        guard length > 0 else {
            misses.wrappingAdd(1, ordering: .relaxed)
            return wholeSectors
        }
        if misses.load(ordering: .relaxed) != 0 { misses.store(0, ordering: .relaxed) }
        unsafe start.storeBytes(of: UInt16(length), as: UInt16.self)
        let used = Self.lengthBytes + length
        let sectors = (used + overhead + Self.sectorSize - 1) / Self.sectorSize
        let padding = self.length(sectors: sectors) - used
        unsafe (start + used).initializeMemory(as: UInt8.self, repeating: 0, count: padding)
        return sectors
    }

    /// All, a share of them, and after pages that did not become smaller (what is encrypted, or
    /// compressed already, lies together) only some, until one does.
    private var isWorthTrying: Bool {
        let share = sharePerMille.load(ordering: .relaxed)
        if share < 1000 {
            let before = credit.wrappingAdd(share, ordering: .relaxed).oldValue
            if before % 1000 + share < 1000 { return false }
        }
        let count = misses.load(ordering: .relaxed)
        if count < Self.missesMax || count % Self.triedOneOf == 0 { return true }
        misses.wrappingAdd(1, ordering: .relaxed)
        return false
    }

    private static let missesMax: UInt32 = 16
    private static let triedOneOf: UInt32 = 8

    /// What `compress` has made of a page.
    func contents(
        of page: UnsafeRawPointer, compressed: UnsafeRawPointer, sectors: Int
    ) -> Contents {
        unsafe Contents(start: sectors == wholeSectors ? page : compressed, sectors: sectors)
    }

    /// Makes an object of it. Worker thread only.
    public func write(
        _ contents: Contents, to object: UnsafeMutableRawPointer, at position: Sealer.Position,
        _ identity: PageIdentity
    ) {
        let length = length(sectors: contents.sectors)
        if let sealer {
            unsafe sealer.seal(contents.start, length: length, to: object, position, tier, identity)
        } else {
            unsafe object.copyMemory(from: contents.start, byteCount: length)
        }
        let end = overhead + length
        unsafe (object + end).initializeMemory(
            as: UInt8.self, repeating: 0, count: contents.sectors * Self.sectorSize - end)
    }

    /// Opens an object where it lies, to be written elsewhere. Nil when it is not what was
    /// written for that page, there and then. Any thread.
    func open(
        _ object: UnsafeMutableRawPointer, sectors: Int, at position: Sealer.Position,
        _ identity: PageIdentity
    ) -> Contents? {
        let isOpen = unsafe open(
            object, sectors: sectors, at: position, identity, to: object + overhead)
        return unsafe isOpen ? opened(object, sectors: sectors) : nil
    }

    /// The contents of an object that has been opened where it lies.
    func opened(_ object: UnsafeRawPointer, sectors: Int) -> Contents {
        unsafe Contents(start: object + overhead, sectors: sectors)
    }

    /// Makes the page of an object, which is overwritten. False when it is not what was
    /// written for that page, there and then. Any thread.
    public func read(
        _ object: UnsafeMutableRawPointer, sectors: Int, at position: Sealer.Position,
        _ identity: PageIdentity, into page: UnsafeMutableRawPointer
    ) -> Bool {
        if sectors == wholeSectors {
            return unsafe open(object, sectors: sectors, at: position, identity, to: page)
        }
        guard let contents = unsafe open(object, sectors: sectors, at: position, identity) else {
            return false
        }
        let used = unsafe Int(contents.start.load(as: UInt16.self))
        guard Self.lengthBytes + used <= length(sectors: sectors) else { return false }
        return unsafe ccodec_lz4_decompress(
            contents.start + Self.lengthBytes, Int32(used), page, Int32(pageSize)) == 0
    }

    private func open(
        _ object: UnsafeRawPointer, sectors: Int, at position: Sealer.Position,
        _ identity: PageIdentity, to start: UnsafeMutableRawPointer
    ) -> Bool {
        let length = length(sectors: sectors)
        guard let sealer else {
            if unsafe UnsafeRawPointer(start) != object {
                unsafe start.copyMemory(from: object, byteCount: length)
            }
            return true
        }
        guard unsafe isZero(object + overhead + length, sectors * Self.sectorSize - overhead - length)
        else { return false }
        return unsafe sealer.open(object, length: length, to: start, position, tier, identity)
    }

    /// What is not authenticated may not be anything either.
    private func isZero(_ bytes: UnsafeRawPointer, _ count: Int) -> Bool {
        unsafe UnsafeRawBufferPointer(start: bytes, count: count).allSatisfy { $0 == 0 }
    }
}
