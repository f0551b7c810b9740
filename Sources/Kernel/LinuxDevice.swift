/// A device of the real kernel, whatever its kind.
public final class LinuxDevice: Sendable {
    private enum Kind {
        case file(StoreFile)
        case nbd(NBDDevice)
    }

    private let kind: Kind
    public let traffic = DeviceTraffic()
    /// An export of a server, and not of this machine.
    public var isRemote: Bool {
        if case .nbd = kind { true } else { false }
    }

    public init(_ file: StoreFile) { kind = .file(file) }
    public init(_ export: NBDDevice) { kind = .nbd(export) }

    /// What an event loop polls to learn of finished reads of the fetch queue.
    public var fetchDescriptor: Int32 {
        switch kind {
        case .file(let file): file.fetchDescriptor
        case .nbd(let export): export.fetchDescriptor
        }
    }
}

extension LinuxDevice: StoreDevice {
    public var size: UInt64 {
        switch kind {
        case .file(let file): file.size
        case .nbd(let export): export.size
        }
    }

    public var blockSize: Int {
        switch kind {
        case .file(let file): file.blockSize
        case .nbd(let export): export.blockSize
        }
    }

    public func read(_ transfer: Transfer) -> Errno? {
        traffic.noteRead(bytes: transfer.length)
        return switch kind {
        case .file(let file): file.read(transfer)
        case .nbd(let export): export.read(transfer)
        }
    }

    public func write(_ transfer: Transfer) -> Errno? {
        traffic.noteWrite(bytes: transfer.length)
        return switch kind {
        case .file(let file): file.write(transfer)
        case .nbd(let export): export.write(transfer)
        }
    }

    public func readBack(_ transfer: Transfer) -> Errno? {
        traffic.noteRead(bytes: transfer.length)
        return switch kind {
        case .file(let file): file.readBack(transfer)
        case .nbd(let export): export.readBack(transfer)
        }
    }

    public func discard(offset: UInt64, length: UInt64) -> Errno? {
        switch kind {
        case .file(let file): file.discard(offset: offset, length: length)
        case .nbd(let export): export.discard(offset: offset, length: length)
        }
    }

    public func reap(
        _ queue: TransferQueue, into completions: UnsafeMutableBufferPointer<TransferCompletion>,
        wait: Bool
    ) -> Int {
        switch kind {
        case .file(let file): unsafe file.reap(queue, into: completions, wait: wait)
        case .nbd(let export): unsafe export.reap(queue, into: completions, wait: wait)
        }
    }
}
