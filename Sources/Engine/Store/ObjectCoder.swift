import CCodec
import Kernel

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
    // Of the one compressing thread.
    private let codecState: Mapping
    private let scratch: Mapping

    private static let lengthBytes = 2
    private static let sectorSize = SegmentMap.sectorSize

    public init(tier: TierIndex, sealer: Sealer?) throws(Errno) {
        self.tier = tier
        self.sealer = sealer
        overhead = sealer == nil ? 0 : Sealer.tagLength
        wholeSectors = (pageSize + overhead + Self.sectorSize - 1) / Self.sectorSize
        codecState = try Mapping(length: roundUp(Int(ccodec_lz4_state_size()), to: pageSize))
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
        let room = length(sectors: wholeSectors - 1)
        let start = unsafe scratch.base
        let length = unsafe Int(
            ccodec_lz4_compress(
                codecState.base, page, Int32(pageSize), start + Self.lengthBytes,
                Int32(room - Self.lengthBytes)))
        guard length > 0 else { return unsafe Contents(start: page, sectors: wholeSectors) }
        unsafe start.storeBytes(of: UInt16(length), as: UInt16.self)
        let used = Self.lengthBytes + length
        let sectors = (used + overhead + Self.sectorSize - 1) / Self.sectorSize
        let padding = self.length(sectors: sectors) - used
        unsafe (start + used).initializeMemory(as: UInt8.self, repeating: 0, count: padding)
        return unsafe Contents(start: start, sectors: sectors)
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
