import CLinux

/// A Linux error number, as a failed call returned it.
public struct Errno: Error, Equatable, Sendable {
    /// Always positive.
    public let code: Int32

    public init(_ code: Int32) {
        precondition(code > 0, "an errno is positive; a shim returns its negative")
        self.code = code
    }

    /// Reads a shim's answer: a value at or above zero, or a negated errno.
    @inline(__always)
    static func from(_ answer: Int32) -> Errno? {
        answer < 0 ? Errno(-answer) : nil
    }

    public static let notPermitted = Errno(1)  // EPERM
    public static let noSuchEntry = Errno(2)  // ENOENT
    public static let noSuchProcess = Errno(3)  // ESRCH
    public static let interrupted = Errno(4)  // EINTR
    public static let inputOutput = Errno(5)  // EIO
    public static let again = Errno(11)  // EAGAIN
    public static let noMemory = Errno(12)  // ENOMEM
    public static let accessDenied = Errno(13)  // EACCES
    /// EFAULT: from UFFDIO_CONTINUE, the page is not in its file.
    public static let badAddress = Errno(14)  // EFAULT
    public static let busy = Errno(16)  // EBUSY
    public static let exists = Errno(17)  // EEXIST
    public static let invalid = Errno(22)  // EINVAL
    public static let noSpace = Errno(28)  // ENOSPC
    public static let readOnly = Errno(30)  // EROFS
    public static let noData = Errno(61)  // ENODATA
    public static let linkSevered = Errno(67)  // ENOLINK
    /// EBADMSG: what was read is not what was written.
    public static let badMessage = Errno(74)  // EBADMSG
    public static let notSupported = Errno(95)  // EOPNOTSUPP
    public static let notConnected = Errno(107)  // ENOTCONN
    public static let shutDown = Errno(108)  // ESHUTDOWN
    public static let timedOut = Errno(110)  // ETIMEDOUT

    /// Nobody waits for the device's answer any more, which may do what it was asked to all the
    /// same: its link was lost (ENOLINK), or it took too long (ETIMEDOUT).
    public var mayTakeEffectLater: Bool { self == .timedOut || self == .linkSevered }

    /// Of the moment: there was no memory, or no room in a queue. It says nothing of what was asked for.
    public var isMomentary: Bool {
        self == .again || self == .busy || self == .noMemory || self == .interrupted
    }

    /// The C library's sentence for it.
    public var text: String {
        unsafe withUnsafeTemporaryAllocation(of: CChar.self, capacity: 128) { buffer in
            unsafe String(cString: clinux_error_text(code, buffer.baseAddress!, buffer.count))
        }
    }
}
