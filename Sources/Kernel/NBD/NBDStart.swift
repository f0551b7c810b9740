/// The connections that a device starts with, and what it found.
struct NBDStart {
    let connections: [NBDConnection]
    let export: NBDExport
    let label: NBDLabel
    /// Bytes for pages: all that is used but the label.
    let size: UInt64

    init(_ options: NBDOptions, cancel: Signal) throws(NBDFailure) {
        let timeout = min(NBDKeeper.attemptTimeout, options.timeout)
        let first = try NBDConnection(options, timeout: timeout, cancel: cancel)
        let export = first.export
        try export.check(options)
        let used = (options.size == 0 ? export.size : options.size) / UInt64(pageSize) * UInt64(pageSize)
        size = used - UInt64(pageSize)
        do throws(Errno) {
            label = try NBDLabel(offset: size)
        } catch {
            throw .system(error)
        }
        if let errno = label.write(over: first, timeout: timeout, cancel: cancel) {
            throw .unusable(errno)
        }
        let count = export.allowsSeveralConnections ? options.connections : 1
        var connections = [first]
        // Each finds what was written over the first, or the export is not what it says it is.
        while connections.count < count {
            let next = try NBDConnection(options, timeout: timeout, cancel: cancel)
            try Self.check(next, against: export, label, count, timeout, cancel)
            connections.append(next)
        }
        if count == 1 { try Self.check(first, against: export, label, count, timeout, cancel) }
        self.connections = connections
        self.export = export
    }

    /// What is found must be the export that was left, with what was written to it.
    static func check(
        _ connection: NBDConnection, against export: NBDExport, _ label: NBDLabel, _ count: Int,
        _ timeout: UInt64, _ cancel: Signal
    ) throws(NBDFailure) {
        let found = connection.export
        if found.size != export.size {
            throw .changed("the export has \(found.size) bytes, and had \(export.size)")
        }
        if found.isReadOnly { throw .changed("the export is read-only, and was not") }
        if found.blockMin > UInt64(export.blockSize) {
            throw .changed("the server wants larger transfers than before")
        }
        if found.partMax < export.partMax {
            throw .changed("the server wants smaller transfers than before")
        }
        if export.canTrim, !found.canTrim {
            throw .changed("the server does not discard any more")
        }
        if count > 1, !found.allowsSeveralConnections {
            throw .changed("the server allows one connection, and allowed several")
        }
        do throws(Errno) {
            if try label.isThere(over: connection, timeout: timeout, cancel: cancel) { return }
        } catch {
            throw .unreachable("the export cannot be read: \(error.text)")
        }
        throw .changed("the export does not hold what was written to it")
    }
}
