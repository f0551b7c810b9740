/// A device of the real kernel, whatever its kind.
public final class LinuxDevice: Sendable {
    private enum Kind {
        case file(StoreFile)
        case nbd(NBDDevice)
        case mirrored(first: LinuxDevice, MirroredDevice<LinuxDevice>)
    }

    private let kind: Kind
    /// What an event loop polls to learn of finished reads of the fetch queue.
    public let fetchDescriptors: [Int32]
    public let traffic: DeviceTraffic
    /// An export of a server, and not of this machine; with a mirror, the first is.
    public var isRemote: Bool {
        switch kind {
        case .file: false
        case .nbd: true
        case .mirrored(let first, _): first.isRemote
        }
    }

    /// Calls `body` for each export that it is made of: none, one, or two with a mirror.
    public func forEachExport(_ body: (NBDDevice) -> Void) {
        switch kind {
        case .file: break
        case .nbd(let export): body(export)
        case .mirrored(_, let device): for side in device.sides { side.forEachExport(body) }
        }
    }

    public init(_ file: StoreFile) {
        kind = .file(file)
        traffic = DeviceTraffic()
        fetchDescriptors = [file.fetchDescriptor]
    }

    public init(_ export: NBDDevice) {
        kind = .nbd(export)
        traffic = DeviceTraffic()
        fetchDescriptors = [export.fetchDescriptor]
    }

    /// Two devices that hold the same.
    public init(_ first: LinuxDevice, mirroredBy second: LinuxDevice) throws(Errno) {
        traffic = DeviceTraffic()
        kind = .mirrored(first: first, try MirroredDevice(first, second, traffic: traffic))
        fetchDescriptors = first.fetchDescriptors + second.fetchDescriptors
    }
}

extension LinuxDevice: CountedDevice {
    public var size: UInt64 {
        switch kind {
        case .file(let file): file.size
        case .nbd(let export): export.size
        case .mirrored(_, let device): device.size
        }
    }

    public var blockSize: Int {
        switch kind {
        case .file(let file): file.blockSize
        case .nbd(let export): export.blockSize
        case .mirrored(_, let device): device.blockSize
        }
    }

    public var givesUp: Bool {
        switch kind {
        case .file: false
        case .nbd: true
        case .mirrored(_, let device): device.givesUp
        }
    }

    public func offer(_ queue: TransferQueue, memory: UInt64, length: Int) {
        switch kind {
        case .file(let file): file.offer(queue, memory: memory, length: length)
        case .nbd: break
        case .mirrored(_, let device): device.offer(queue, memory: memory, length: length)
        }
    }

    public func letGo(_ queue: TransferQueue) {
        switch kind {
        case .file(let file): file.letGo(queue)
        case .nbd: break
        case .mirrored(_, let device): device.letGo(queue)
        }
    }

    public func read(_ transfer: Transfer) -> Errno? {
        traffic.noteRead(bytes: transfer.length)
        let answer =
            switch kind {
            case .file(let file): file.read(transfer)
            case .nbd(let export): export.read(transfer)
            case .mirrored(_, let device): device.read(transfer)
            }
        return traffic.begin(transfer, .fetch, answer)
    }

    public func startReads() -> Bool {
        switch kind {
        case .file(let file): file.startReads()
        case .nbd: true
        case .mirrored(_, let device): device.startReads()
        }
    }

    public func askOthers(at now: UInt64) {
        if case .mirrored(_, let device) = kind { device.askOthers(at: now) }
    }

    public var owesLateAnswers: Bool {
        if case .mirrored(_, let device) = kind { device.owesLateAnswers } else { false }
    }

    public func readElsewhere(_ transfer: Transfer, _ queue: TransferQueue) -> Errno? {
        guard case .mirrored(_, let device) = kind else { return .noData }
        traffic.noteRead(bytes: transfer.length)
        return traffic.begin(transfer, queue, device.readElsewhere(transfer, queue))
    }

    public func write(_ transfer: Transfer) -> Errno? {
        traffic.noteWrite(bytes: transfer.length)
        let answer =
            switch kind {
            case .file(let file): file.write(transfer)
            case .nbd(let export): export.write(transfer)
            case .mirrored(_, let device): device.write(transfer)
            }
        return traffic.begin(transfer, .evict, answer)
    }

    public func readBack(_ transfer: Transfer) -> Errno? {
        traffic.noteRead(bytes: transfer.length)
        let answer =
            switch kind {
            case .file(let file): file.readBack(transfer)
            case .nbd(let export): export.readBack(transfer)
            case .mirrored(_, let device): device.readBack(transfer)
            }
        return traffic.begin(transfer, .evict, answer)
    }

    public func discard(offset: UInt64, length: UInt64) -> Errno? {
        traffic.whileWorkerWaits {
            switch kind {
            case .file(let file): file.discard(offset: offset, length: length)
            case .nbd(let export): export.discard(offset: offset, length: length)
            case .mirrored(_, let device): device.discard(offset: offset, length: length)
            }
        }
    }

    public func allocate(offset: UInt64, length: UInt64) -> Errno? {
        traffic.whileWorkerWaits {
            switch kind {
            case .file(let file): file.allocate(offset: offset, length: length)
            case .nbd(let export): export.allocate(offset: offset, length: length)
            case .mirrored(_, let device): device.allocate(offset: offset, length: length)
            }
        }
    }

    public func reap(
        _ queue: TransferQueue, into completions: UnsafeMutableBufferPointer<TransferCompletion>,
        wait: Bool
    ) -> Int {
        let count =
            wait
            ? traffic.whileWorkerWaits { unsafe take(queue, into: completions, wait: true) }
            : unsafe take(queue, into: completions, wait: false)
        for index in 0..<count { unsafe traffic.end(completions[index].token, queue) }
        return count
    }

    private func take(
        _ queue: TransferQueue, into completions: UnsafeMutableBufferPointer<TransferCompletion>,
        wait: Bool
    ) -> Int {
        switch kind {
        case .file(let file): unsafe file.reap(queue, into: completions, wait: wait)
        case .nbd(let export): unsafe export.reap(queue, into: completions, wait: wait)
        case .mirrored(_, let device): unsafe device.reap(queue, into: completions, wait: wait)
        }
    }
}
