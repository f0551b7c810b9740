import CLinux

/// The one owner of an open descriptor. Moving it moves the duty to close it.
public struct Descriptor: ~Copyable, Sendable {
    /// Lent to a call; never stored by the callee.
    let number: Int32

    init(adopting number: Int32) {
        precondition(number >= 0)
        self.number = number
    }

    deinit { _ = clinux_close(number) }
}
