import Engine

/// Writes a sentence into the caller's buffer, cut to fit and always terminated.
func write(_ message: String, to buffer: UnsafeMutablePointer<CChar>?, size: Int) {
    guard let buffer = unsafe buffer, size > 0 else { return }
    var length = 0
    for byte in message.utf8 {
        guard length < size - 1 else { break }
        unsafe buffer[length] = CChar(bitPattern: byte)
        length += 1
    }
    unsafe buffer[length] = 0
}

/// Runs a step that can fail; answers 0, or the negated errno with its sentence written.
func answer(
    _ buffer: UnsafeMutablePointer<CChar>?, _ size: Int,
    _ body: () throws(SetupFailure) -> Void
) -> Int32 {
    do {
        try body()
        return 0
    } catch {
        unsafe write(error.message, to: buffer, size: size)
        return -error.errno.code
    }
}
