import CFrostline
import Engine
import Kernel

@c @implementation
public func frostline_block_hotness_size_max(_ block: OpaquePointer?) -> Int {
    HotnessImage.sizeMax(pageCount: unsafe attachedBlock(block).region.pageCount)
}

@c @implementation
public func frostline_block_export_hotness(
    _ block: OpaquePointer?, _ data: UnsafeMutableRawPointer?, _ size: Int,
    _ length: UnsafeMutablePointer<Int>?, _ error: UnsafeMutablePointer<CChar>?, _ errorSize: Int
) -> Int32 {
    unsafe answer(error, errorSize) { () throws(SetupFailure) in
        guard let data = unsafe data, let length = unsafe length else {
            throw SetupFailure(.invalid, "a place for the data and for their length must be given")
        }
        let attached = unsafe attachedBlock(block)
        let image = try attached.owner.exportHotness(attached.region)
        guard image.count <= size else {
            throw SetupFailure(
                .noSpace,
                "the hotness of block \(attached.region.name) takes \(image.count) bytes now, and there is "
                    + "room for \(size); frostline_block_hotness_size_max says what is always enough")
        }
        unsafe image.withUnsafeBytes { unsafe data.copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
        unsafe length.pointee = image.count
    }
}

@c @implementation
public func frostline_block_import_hotness(
    _ block: OpaquePointer?, _ data: UnsafeRawPointer?, _ length: Int,
    _ error: UnsafeMutablePointer<CChar>?, _ errorSize: Int
) -> Int32 {
    unsafe answer(error, errorSize) { () throws(SetupFailure) in
        guard let data = unsafe data else { throw SetupFailure(.invalid, "data must be given") }
        let attached = unsafe attachedBlock(block)
        // Nothing longer is taken, so nothing longer need be copied before it is refused.
        let taken = min(length, HotnessImage.sizeMax(pageCount: attached.region.pageCount) + 1)
        let bytes = unsafe Array(UnsafeRawBufferPointer(start: data, count: taken))
        try attached.owner.importHotness(bytes, into: attached.region)
    }
}

private func attachedBlock(_ pointer: OpaquePointer?) -> AttachedBlock {
    guard let pointer = unsafe pointer else { preconditionFailure("a null block was passed") }
    return unsafe Unmanaged<AttachedBlock>.fromOpaque(UnsafeRawPointer(pointer)).takeUnretainedValue()
}
