import CLinux

/// A GSource on a GMainContext of the library's own: runs a body whenever a
/// watched descriptor is readable, or when as many nanoseconds have passed as it answered.
@safe public final class FaultLoop: @unchecked Sendable {
    private var loop: OpaquePointer?
    private let body: @Sendable () -> UInt64

    public init(body: @escaping @Sendable () -> UInt64) throws(Errno) {
        self.body = body
        let answer = unsafe clinux_loop_new(
            { unsafe Unmanaged<FaultLoop>.fromOpaque($0!).takeUnretainedValue().body() },
            unsafe Unmanaged.passUnretained(self).toOpaque(), &loop)
        if let errno = Errno.from(answer) { throw errno }
    }

    /// Tells a watched descriptor from others.
    @safe public struct Watch: @unchecked Sendable {
        fileprivate let tag: UnsafeMutableRawPointer?
    }

    /// Any thread. The descriptor must stay open while it is watched.
    @discardableResult
    public func watch(descriptor: Int32) -> Watch {
        unsafe Watch(tag: clinux_loop_watch(loop, descriptor))
    }

    /// Any thread. A call of the body may be under way for it still.
    public func unwatch(_ watch: Watch) { unsafe clinux_loop_unwatch(loop, watch.tag) }

    /// Returns after `stop`.
    public func run() { unsafe clinux_loop_run(loop) }
    /// Any thread.
    public func stop() { unsafe clinux_loop_stop(loop) }

    deinit {
        if let loop = unsafe loop { unsafe clinux_loop_free(loop) }
    }
}
