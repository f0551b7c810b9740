/// The last page of what we use of an export says that it is ours: random bytes of this device.
/// After a reconnection they must be there, or what else we wrote is not there either, because
/// the server, or what is behind it, is another. One thread at a time.
@safe final class NBDLabel: @unchecked Sendable {
    private let offset: UInt64
    /// The page, and another to read into.
    private let pages: Mapping

    init(offset: UInt64) throws(Errno) {
        self.offset = offset
        pages = try Mapping(length: 2 * pageSize)
        let words = unsafe pages.base.bindMemory(to: UInt64.self, capacity: pageSize / 8)
        var random = SystemRandomNumberGenerator()
        for index in 0..<pageSize / 8 { unsafe words[index] = random.next() }
    }

    /// Over a connection that nothing else uses yet.
    func write(over connection: NBDConnection, timeout: UInt64, cancel: Signal) -> Errno? {
        unsafe connection.transfer(
            .write, pages.base, length: pageSize, offset: offset, timeout: timeout, cancel: cancel)
    }

    /// Whether it is there. Over a connection that nothing else uses yet.
    func isThere(
        over connection: NBDConnection, timeout: UInt64, cancel: Signal
    ) throws(Errno) -> Bool {
        let copy = unsafe pages.base + pageSize
        let errno = unsafe connection.transfer(
            .read, copy, length: pageSize, offset: offset, timeout: timeout, cancel: cancel)
        if let errno { throw errno }
        let written = unsafe UnsafeRawBufferPointer(start: pages.base, count: pageSize)
        let read = unsafe UnsafeRawBufferPointer(start: copy, count: pageSize)
        return unsafe written.elementsEqual(read)
    }
}
