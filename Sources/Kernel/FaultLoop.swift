import CLinux

/// A GSource on a GMainContext of the library's own: runs a body whenever a
/// watched descriptor is readable or a tick has passed.
@safe public final class FaultLoop: @unchecked Sendable {
    private var loop: OpaquePointer?
    private let body: @Sendable () -> Void

    public init(body: @escaping @Sendable () -> Void) throws(Errno) {
        self.body = body
        let answer = unsafe clinux_loop_new(
            { unsafe Unmanaged<FaultLoop>.fromOpaque($0!).takeUnretainedValue().body() },
            unsafe Unmanaged.passUnretained(self).toOpaque(), &loop)
        if let errno = Errno.from(answer) { throw errno }
    }

    /// Before `run`.
    public func watch(descriptor: Int32) { unsafe clinux_loop_watch(loop, descriptor) }
    /// Returns after `stop`.
    public func run(tickNanoseconds: UInt64) { unsafe clinux_loop_run(loop, tickNanoseconds) }
    /// Any thread.
    public func stop() { unsafe clinux_loop_stop(loop) }

    deinit {
        if let loop = unsafe loop { unsafe clinux_loop_free(loop) }
    }
}
