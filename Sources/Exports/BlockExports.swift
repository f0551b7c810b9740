import CFrostline
import Engine
import Kernel

/// What a `frostline_block` points to.
final class AttachedBlock: Sendable {
    let owner: LivePager
    let region: Region

    init(owner: LivePager, region: Region) {
        self.owner = owner
        self.region = region
    }
}

@c @implementation
public func frostline_block_attach(
    _ pager: OpaquePointer?, _ info: UnsafePointer<frostline_block_info>?,
    _ out: UnsafeMutablePointer<OpaquePointer?>?, _ error: UnsafeMutablePointer<CChar>?,
    _ errorSize: Int
) -> Int32 {
    unsafe answer(error, errorSize) { () throws(SetupFailure) in
        guard let out = unsafe out, let info = unsafe info?.pointee else {
            throw SetupFailure(.invalid, "block info and a place for the block must be given")
        }
        unsafe out.pointee = nil
        guard unsafe info.struct_size >= MemoryLayout<frostline_block_info>.size else {
            throw SetupFailure(.invalid, "frostline_block_info.struct_size is too small")
        }
        let name = unsafe info.name.map { unsafe String(cString: $0) } ?? "(unnamed)"
        guard unsafe info.page_size == pageSize else {
            throw SetupFailure(
                .notSupported,
                unsafe "block \(name) has pages of \(info.page_size) bytes; only 4096 is supported")
        }
        let owner = unsafe livePager(pager)
        let region = unsafe try owner.attach(
            name: name, start: UInt64(UInt(bitPattern: info.address)), length: info.length)
        let block = AttachedBlock(owner: owner, region: region)
        unsafe out.pointee = OpaquePointer(Unmanaged.passRetained(block).toOpaque())
    }
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

private func withPages(
    _ block: OpaquePointer?, _ offset: UInt64, _ length: UInt64,
    _ body: (Pager<LinuxKernel>, Region, Range<Int>) -> Void
) {
    guard let block = unsafe block else { preconditionFailure("a null block was passed") }
    let attached = unsafe Unmanaged<AttachedBlock>.fromOpaque(UnsafeRawPointer(block)).takeUnretainedValue()
    precondition(
        offset % UInt64(pageSize) == 0 && length % UInt64(pageSize) == 0,
        "a discard covers whole pages")
    let first = Int(offset) / pageSize
    body(attached.owner.pager, attached.region, first..<first + Int(length) / pageSize)
}
