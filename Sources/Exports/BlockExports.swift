import CFrostline
import Engine
import Kernel

/// What a `frostline_block` points to.
final class AttachedBlock: Sendable {
    let owner: LivePager
    let region: Region
    let name: CStringCopy

    init(owner: LivePager, region: Region) {
        self.owner = owner
        self.region = region
        name = CStringCopy(region.name)
    }
}

/// A string for C, as long as this lives.
@safe final class CStringCopy: @unchecked Sendable {
    let pointer: UnsafePointer<CChar>
    private let buffer: UnsafeMutableBufferPointer<CChar>

    init(_ string: String) {
        let bytes = string.utf8CString
        unsafe buffer = .allocate(capacity: bytes.count)
        _ = unsafe buffer.initialize(from: bytes)
        unsafe pointer = UnsafePointer(buffer.baseAddress!)
    }

    deinit { unsafe buffer.deallocate() }
}

@c @implementation
public func frostline_block_attach(
    _ pager: OpaquePointer?, _ info: UnsafePointer<frostline_block_info>?,
    _ out: UnsafeMutablePointer<OpaquePointer?>?, _ error: UnsafeMutablePointer<CChar>?,
    _ errorSize: Int
) -> Int32 {
    unsafe answer(error, errorSize) { () throws(SetupFailure) in
        guard let out = unsafe out, let given = unsafe info else {
            throw SetupFailure(.invalid, "block info and a place for the block must be given")
        }
        unsafe out.pointee = nil
        let info = unsafe try known(given)
        let name = unsafe info.name.map { unsafe String(cString: $0) } ?? "(unnamed)"
        let owner = unsafe livePager(pager)
        let region = unsafe try owner.attach(
            name: name, start: UInt64(UInt(bitPattern: info.address)), length: info.length,
            pageBytes: Int(info.page_size),
            mayMerge: info.flags & FROSTLINE_BLOCK_MERGEABLE.rawValue != 0)
        let block = AttachedBlock(owner: owner, region: region)
        unsafe out.pointee = OpaquePointer(Unmanaged.passRetained(block).toOpaque())
    }
}

private func known(
    _ info: UnsafePointer<frostline_block_info>
) throws(SetupFailure) -> frostline_block_info {
    let known = unsafe try callerStruct(
        info, size: info.pointee.struct_size,
        leastSize: MemoryLayout<frostline_block_info>.offset(of: \.flags)!, empty: frostline_block_info(),
        "frostline_block_info")
    guard unsafe known.flags & ~FROSTLINE_BLOCK_MERGEABLE.rawValue == 0 else {
        throw SetupFailure(
            .invalid, unsafe "frostline_block_info.flags is \(known.flags); 0 and 1 (mergeable) are known")
    }
    unsafe try requireZero(known.reserved, "frostline_block_info.reserved")
    return unsafe known
}

@c @implementation
public func frostline_block_detach(_ block: OpaquePointer?) {
    guard let block = unsafe block else { return }
    let retained = unsafe Unmanaged<AttachedBlock>.fromOpaque(UnsafeRawPointer(block))
    let attached = unsafe retained.takeUnretainedValue()
    attached.owner.pager.detach(attached.region)
    unsafe retained.release()
}

@c @implementation
public func frostline_discard_begin(_ block: OpaquePointer?, _ offset: UInt64, _ length: UInt64) {
    unsafe withPages(block, offset, length) { $0.beginDiscard($1, pages: $2) }
}

@c @implementation
public func frostline_discard_end(_ block: OpaquePointer?, _ offset: UInt64, _ length: UInt64) {
    unsafe withPages(block, offset, length) { $0.endDiscard($1, pages: $2) }
}

@c @implementation
public func frostline_transfer_begin(_ block: OpaquePointer?, _ offset: UInt64, _ length: UInt64) {
    unsafe withPages(touchedBy: block, offset, length) { $0.beginTransfer($1, pages: $2) }
}

@c @implementation
public func frostline_transfer_end(_ block: OpaquePointer?, _ offset: UInt64, _ length: UInt64) {
    unsafe withPages(touchedBy: block, offset, length) { $0.endTransfer($1, pages: $2) }
}

/// The pages that a range of bytes touches.
private func withPages(
    touchedBy block: OpaquePointer?, _ offset: UInt64, _ length: UInt64,
    _ body: (Pager<LinuxKernel>, Region, Range<Int>) -> Void
) {
    guard length > 0 else { return }
    let start = offset / UInt64(pageSize) * UInt64(pageSize)
    let end = UInt64(roundUp(Int(offset + length), to: pageSize))
    unsafe withPages(block, start, end - start, body)
}

@c @implementation
public func frostline_block_working_set(
    _ block: OpaquePointer?, _ set: UnsafeMutablePointer<frostline_working_set>?
) {
    guard let block = unsafe block, let set = unsafe set else { return }
    let attached = unsafe Unmanaged<AttachedBlock>.fromOpaque(UnsafeRawPointer(block)).takeUnretainedValue()
    var filled = unsafe snapshot(attached)
    unsafe copyKnownFields(of: &filled, to: set)
}

private func snapshot(_ block: AttachedBlock) -> frostline_working_set {
    var set = unsafe frostline_working_set()
    let region = block.region
    unsafe set.block = block.name.pointer
    unsafe set.guest_bytes = region.length
    unsafe set.resident_bytes = UInt64(region.workingSet.residentPages * pageSize)
    unsafe withUnsafeMutableBytes(of: &set.idle_bytes) { bytes in
        let idle = unsafe bytes.assumingMemoryBound(to: UInt64.self)
        for power in idle.indices {
            unsafe idle[power] = UInt64(region.workingSet.idlePages(power: power) * pageSize)
        }
    }
    unsafe withUnsafeMutableBytes(of: &set.returns_per_1000s) { bytes in
        let returns = unsafe bytes.assumingMemoryBound(to: UInt64.self)
        for power in returns.indices {
            unsafe returns[power] = UInt64(region.workingSet.returnsPerSecond(power: power) * 1000)
        }
    }
    return unsafe set
}

private func withPages(
    _ block: OpaquePointer?, _ offset: UInt64, _ length: UInt64,
    _ body: (Pager<LinuxKernel>, Region, Range<Int>) -> Void
) {
    guard let block = unsafe block else { preconditionFailure("a null block was passed") }
    let attached = unsafe Unmanaged<AttachedBlock>.fromOpaque(UnsafeRawPointer(block)).takeUnretainedValue()
    precondition(
        (offset | length) % UInt64(pageSize) == 0, "a discard covers whole pages")
    let first = Int(offset) / pageSize
    body(attached.owner.pager, attached.region, first..<first + Int(length) / pageSize)
}
