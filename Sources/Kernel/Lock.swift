import CLinux

/// A value that one thread at a time may use (pthread_mutex). Not the standard
/// library's Mutex, because ThreadSanitizer knows only this one.
@safe public struct Lock<Value: ~Copyable>: ~Copyable, @unchecked Sendable {
    private let mutex: OpaquePointer
    private let value: UnsafeMutablePointer<Value>

    public init(_ initial: consuming sending Value) {
        unsafe mutex = clinux_mutex_new()
        unsafe value = .allocate(capacity: 1)
        unsafe value.initialize(to: initial)
    }

    /// Waits for whoever holds it. Not recursive.
    @inline(__always)
    public borrowing func withLock<Result: ~Copyable>(_ body: (inout Value) -> Result) -> Result {
        unsafe clinux_mutex_lock(mutex)
        defer { unsafe clinux_mutex_unlock(mutex) }
        return unsafe body(&value.pointee)
    }

    /// Nil when another thread holds it.
    public borrowing func withLockIfAvailable<Result>(_ body: (inout Value) -> Result) -> Result? {
        guard unsafe clinux_mutex_try_lock(mutex) else { return nil }
        defer { unsafe clinux_mutex_unlock(mutex) }
        return unsafe body(&value.pointee)
    }

    deinit {
        unsafe value.deinitialize(count: 1)
        unsafe value.deallocate()
        unsafe clinux_mutex_free(mutex)
    }
}
