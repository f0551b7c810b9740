import CLinux

/// Descriptors that are watched together (epoll). It is a descriptor itself, which is readable
/// when any of them is ready. Any thread may call anything.
final class Poller: Sendable {
    private let descriptor: Descriptor

    struct Events: OptionSet, Sendable {
        let rawValue: UInt32
        static let readable = Events(rawValue: UInt32(CLINUX_POLL_READABLE))
        static let writable = Events(rawValue: UInt32(CLINUX_POLL_WRITABLE))
        /// The other end has gone. Reported where `readable` is not wanted.
        static let hangUp = Events(rawValue: UInt32(CLINUX_POLL_HANGUP))
    }

    init() throws(Errno) {
        let number = clinux_poller_open()
        if let errno = Errno.from(number) { throw errno }
        descriptor = Descriptor(adopting: number)
    }

    var number: Int32 { descriptor.number }

    func add(_ watched: Int32, _ events: Events) {
        let answer = clinux_poller_add(number, watched, events.rawValue)
        precondition(answer == 0, "a descriptor that is open, and watched once, can be watched")
    }

    func change(_ watched: Int32, _ events: Events) {
        let answer = clinux_poller_change(number, watched, events.rawValue)
        precondition(answer == 0, "a descriptor that is watched can be watched otherwise")
    }

    func remove(_ watched: Int32) { _ = clinux_poller_remove(number, watched) }

    /// Waits until one of them is ready, or for `nanoseconds`. True: one's other end has gone.
    @discardableResult
    func wait(nanoseconds: UInt64) -> Bool { clinux_poller_wait(number, nanoseconds) }
}

/// Wakes a thread that polls it (eventfd). Any thread.
final class Signal: Sendable {
    private let descriptor: Descriptor

    init() throws(Errno) {
        let number = clinux_eventfd()
        if let errno = Errno.from(number) { throw errno }
        descriptor = Descriptor(adopting: number)
    }

    var number: Int32 { descriptor.number }
    func raise() { clinux_eventfd_signal(number) }
    /// Takes the signal back, after waiting for it for `nanoseconds` at most.
    func lower(waiting nanoseconds: UInt64 = 0) { _ = clinux_eventfd_wait(number, nanoseconds) }
}
