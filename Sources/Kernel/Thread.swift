import CLinux

/// A thread of the library's own, all signals blocked but those
/// of its own faults. Joined explicitly.
public final class Thread: Sendable {
    private let handle: UInt64

    private final class Body: Sendable {
        let run: @Sendable () -> Void
        init(_ run: @escaping @Sendable () -> Void) { self.run = run }
    }

    /// `name` is at most 15 bytes (prctl(2), PR_SET_NAME).
    public init(name: String, body: @escaping @Sendable () -> Void) throws(Errno) {
        let retained = unsafe Unmanaged.passRetained(Body(body))
        var handle: UInt64 = 0
        let answer = unsafe clinux_thread_start(
            name,
            { argument in
                unsafe Unmanaged<Body>.fromOpaque(argument!).takeRetainedValue().run()
                return nil
            }, unsafe retained.toOpaque(), &handle)
        if let errno = Errno.from(answer) {
            unsafe retained.release()
            throw errno
        }
        self.handle = handle
    }

    /// Waits for the body to return.
    public func join() { clinux_thread_join(handle) }

    /// Keeps the thread on one CPU: the simulation, where only one thread runs at a time, is quicker so.
    public func pin(toCPU cpu: Int) { _ = clinux_thread_pin(handle, Int32(cpu)) }
}

/// Wakes a sleeping thread early (eventfd). Any thread may signal; one waits.
public struct WakeUp: ~Copyable, Sendable {
    private let descriptor: Descriptor

    public init() throws(Errno) {
        let number = clinux_eventfd()
        if let errno = Errno.from(number) { throw errno }
        descriptor = Descriptor(adopting: number)
    }

    public func signal() { clinux_eventfd_signal(descriptor.number) }

    /// For a loop to watch, in place of a thread that waits: readable once signalled, until
    /// `clear`.
    public var number: Int32 { descriptor.number }
    public func clear() { _ = wait(nanoseconds: 0) }

    /// Returns when signalled, with true, or after `nanoseconds`.
    public func wait(nanoseconds: UInt64) -> Bool {
        clinux_eventfd_wait(descriptor.number, nanoseconds) == 1
    }
}

/// Sleeps the calling thread.
public func sleep(nanoseconds: UInt64) { clinux_sleep(nanoseconds) }
/// Monotonic nanoseconds.
public func monotonicNow() -> UInt64 { clinux_now() }
/// CPUs that this process may run on, at least 1.
public var usableCPUs: Int { max(1, Int(clinux_cpu_count())) }
/// What tells the calling thread from others that run; not 0.
public func currentThread() -> UInt64 { clinux_thread_self() }
/// Lets another thread run.
public func yieldThread() { clinux_yield() }
