import CLinux
import CNBD

/// A negotiated connection to an NBD server (libnbd). One thread at a time.
@safe final class NBDConnection: @unchecked Sendable {
    private var handle: OpaquePointer?
    let export: NBDExport
    /// Its socket, by a number of our own: libnbd closes its own as soon as the connection ends, on
    /// whatever thread, and then that number may be another connection's at once.
    private let socket: Descriptor
    var descriptor: Int32 { socket.number }

    static let commandsMax = Int(CNBD_COMMANDS_MAX)

    /// Waits for `timeout` nanoseconds at most, and while names are resolved.
    init(_ options: NBDOptions, timeout: UInt64, cancel: Signal) throws(NBDFailure) {
        var made: OpaquePointer?
        var said = cnbd_export()
        var text = ""
        let answer = unsafe withUnsafeTemporaryAllocation(of: CChar.self, capacity: 512) { buffer in
            unsafe buffer.initialize(repeating: 0)
            let answer = unsafe Self.connect(options, timeout, cancel.number, &made, &said, buffer)
            unsafe text = String(cString: buffer.baseAddress!)
            return answer
        }
        switch answer {
        case 0: break
        case Int32(CNBD_NO_LIBRARY): throw .noLibrary(text)
        case Int32(CNBD_BAD_TARGET): throw .badOption(text)
        case Int32(CNBD_UNREACHABLE): throw .unreachable(text)
        case Int32(CNBD_CANCELLED): throw .cancelled
        default: throw .system(Errno(-answer))
        }
        let number = unsafe clinux_duplicate(cnbd_descriptor(made))
        if let errno = Errno.from(number) {
            unsafe cnbd_close(made)
            throw .system(errno)
        }
        unsafe handle = made
        socket = Descriptor(adopting: number)
        export = NBDExport(said)
    }

    private static func connect(
        _ options: NBDOptions, _ timeout: UInt64, _ cancel: Int32, _ out: inout OpaquePointer?,
        _ export: inout cnbd_export, _ text: UnsafeMutableBufferPointer<CChar>
    ) -> Int32 {
        unsafe options.uri.withCString { uri in
            guard let folder = options.tlsCertificates else {
                return unsafe cnbd_connect(
                    uri, nil, timeout, cancel, &out, &export, text.baseAddress, text.count)
            }
            return unsafe folder.withCString { folder in
                unsafe cnbd_connect(
                    uri, folder, timeout, cancel, &out, &export, text.baseAddress, text.count)
            }
        }
    }

    /// What to poll the descriptor for; nil: the connection has ended.
    var interest: Poller.Events? {
        let wanted = unsafe cnbd_interest(handle)
        if wanted == 0 { return nil }
        return wanted & UInt32(CNBD_WRITABLE) == 0 ? .readable : [.readable, .writable]
    }

    /// Starts a part of a transfer. ENOTCONN: the connection is dead. EBUSY: later.
    func start(_ kind: NBDRequest.Kind, memory: UInt64, length: Int, offset: UInt64, token: UInt64) -> Errno?
    {
        let address = unsafe UnsafeMutableRawPointer(bitPattern: UInt(memory))
        let answer =
            switch kind {
            case .read: unsafe cnbd_read(handle, address, length, offset, token)
            case .write: unsafe cnbd_write(handle, address, length, offset, token)
            case .trim: unsafe cnbd_trim(handle, UInt64(length), offset, token)
            }
        return Errno.from(answer)
    }

    /// Answers to take before something else is done: a server whose answers are all waited for
    /// before it is asked again has nothing to do meanwhile.
    private static let answersMax: Int32 = 8

    /// Sends and receives what can be without waiting. False: the connection has ended.
    func drive(_ settle: (_ token: UInt64, _ error: Int32) -> Void) -> Bool {
        unsafe withUnsafeTemporaryAllocation(of: cnbd_completion.self, capacity: Self.commandsMax) { raw in
            var isDead = false
            let count = unsafe cnbd_drive(handle, raw.baseAddress, Self.answersMax, &isDead)
            for index in 0..<Int(count) { unsafe settle(raw[index].token, raw[index].error) }
            return !isDead
        }
    }

    /// A read or write of its own, before anything else is under way.
    func transfer(
        _ kind: NBDRequest.Kind, _ memory: UnsafeMutableRawPointer, length: Int, offset: UInt64,
        timeout: UInt64, cancel: Signal
    ) -> Errno? {
        let answer =
            unsafe kind == .write
            ? cnbd_write_and_wait(handle, memory, length, offset, timeout, cancel.number)
            : cnbd_read_and_wait(handle, memory, length, offset, timeout, cancel.number)
        return answer == Int32(CNBD_CANCELLED) ? .again : Errno.from(answer)
    }

    /// What is under way is given up, and its memory not touched any more. `politely`: the
    /// server is told, which may take a moment.
    func close(politely: Bool = false) {
        guard let open = unsafe handle else { return }
        unsafe politely ? cnbd_close_politely(open) : cnbd_close(open)
        unsafe handle = nil
    }

    deinit { close() }
}

/// What the server says of the export.
struct NBDExport: Equatable, Sendable {
    /// Bytes.
    let size: UInt64
    /// The smallest and the largest transfer, in bytes; 0: not said.
    let blockMin: UInt64
    let blockMax: UInt64
    let isReadOnly: Bool
    let canTrim: Bool
    /// What is written over one connection is seen over another.
    let allowsSeveralConnections: Bool

    init(_ raw: cnbd_export) {
        size = raw.size
        blockMin = raw.block_min
        blockMax = raw.block_max
        isReadOnly = raw.is_read_only
        canTrim = raw.can_trim
        allowsSeveralConnections = raw.can_multi_conn
    }

    /// Bytes of one command, at most.
    var partMax: Int { Int(min(blockMax == 0 ? .max : blockMax, 256 << 10)) / pageSize * pageSize }

    /// What transfers are aligned to.
    var blockSize: Int { blockMin <= 512 ? 512 : pageSize }

    /// Refuses what cannot be used, before anything is written to it.
    func check(_ options: NBDOptions) throws(NBDFailure) {
        if isReadOnly { throw .readOnly }
        if blockMin > UInt64(pageSize) { throw .blockSize(blockMin) }
        if blockMax != 0, blockMax < UInt64(pageSize) { throw .blockSize(blockMax) }
        let wanted = max(options.size, options.sizes.lowerBound)
        if size < wanted { throw .tooSmall(export: size, wanted: wanted) }
        if options.size == 0, size > options.sizes.upperBound {
            throw .tooLarge(export: size, most: options.sizes.upperBound)
        }
    }
}
