/// A device of the real kernel, whatever its kind.
public final class LinuxDevice: Sendable {
    private enum Kind {
        case file(StoreFile)
    }

    private let kind: Kind

    public init(_ file: StoreFile) { kind = .file(file) }

    /// What an event loop polls to learn of finished reads of the fetch queue.
    public var fetchDescriptor: Int32 {
        switch kind {
        case .file(let file): file.fetchDescriptor
        }
    }
}

extension LinuxDevice: StoreDevice {
    public var size: UInt64 {
        switch kind {
        case .file(let file): file.size
        }
    }

    public var blockSize: Int {
        switch kind {
        case .file(let file): file.blockSize
        }
    }

    public func read(_ transfer: Transfer) -> Errno? {
        switch kind {
        case .file(let file): file.read(transfer)
        }
    }

    public func write(_ transfer: Transfer) -> Errno? {
        switch kind {
        case .file(let file): file.write(transfer)
        }
    }

    public func readBack(_ transfer: Transfer) -> Errno? {
        switch kind {
        case .file(let file): file.readBack(transfer)
        }
    }

    public func discard(offset: UInt64, length: UInt64) -> Errno? {
        switch kind {
        case .file(let file): file.discard(offset: offset, length: length)
        }
    }

    public func reap(
        _ queue: TransferQueue, into completions: UnsafeMutableBufferPointer<TransferCompletion>,
        wait: Bool
    ) -> Int {
        switch kind {
        case .file(let file): unsafe file.reap(queue, into: completions, wait: wait)
        }
    }
}
