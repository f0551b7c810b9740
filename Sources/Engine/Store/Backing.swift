import Kernel

/// What each kind of tier does, and the only place that tells them apart.
extension Store.Backing: PageStore {
    public func put(
        _ pages: UnsafeBufferPointer<PagePut>, outcomes: UnsafeMutableBufferPointer<PutOutcome>
    ) {
        switch self {
        case .compressed(let store): unsafe store.put(pages, outcomes: outcomes)
        case .log(let store): unsafe store.put(pages, outcomes: outcomes)
        }
    }

    @inline(__always)
    public func get(
        _ place: UInt64, _ identity: PageIdentity, into buffer: FetchBuffer, token: UInt64
    ) -> GetOutcome {
        switch self {
        case .compressed(let store): store.get(place, identity, into: buffer, token: token)
        case .log(let store): store.get(place, identity, into: buffer, token: token)
        }
    }

    public func finish(
        _ place: UInt64, _ identity: PageIdentity, _ completion: TransferCompletion, _ buffer: FetchBuffer
    ) -> GetOutcome {
        switch self {
        case .compressed(let store): store.finish(place, identity, completion, buffer)
        case .log(let store): store.finish(place, identity, completion, buffer)
        }
    }

    @inline(__always)
    public func drop(_ place: UInt64) {
        switch self {
        case .compressed(let store): store.drop(place)
        case .log(let store): store.drop(place)
        }
    }

    public func trim() {
        switch self {
        case .compressed(let store): store.trim()
        case .log(let store): store.trim()
        }
    }

    // MARK: Reading on behalf of the worker

    /// Starts reading a page, like `get`. What it reads is the page's contents only if the
    /// page's entry still names the place when it has been read: the page may be dropped
    /// meanwhile. Nothing is overwritten meanwhile, since only the worker puts. Worker thread only.
    func readBack(
        _ place: UInt64, _ identity: PageIdentity, into buffer: FetchBuffer, token: UInt64
    ) -> GetOutcome {
        switch self {
        case .compressed(let store): store.readBack(place, identity, into: buffer)
        case .log(let store): store.readBack(place, into: buffer, token: token)
        }
    }

    /// Ends a pending one, like `finish`. Worker thread only.
    func finishReadBack(
        _ place: UInt64, _ identity: PageIdentity, _ completion: TransferCompletion, _ buffer: FetchBuffer
    ) -> GetOutcome {
        guard case .log(let store) = self else { preconditionFailure("reads of memory are never pending") }
        // Opening an object needs nothing that the fault thread uses.
        return store.finish(place, identity, completion, buffer, .evict)
    }

    /// How what it keeps is sealed; nil where it is not.
    public var cipher: Sealer.Cipher? {
        switch self {
        case .compressed(let store): store.cipher
        case .log(let store): store.cipher
        }
    }

    /// Nil for memory.
    var device: Port.Device? {
        switch self {
        case .compressed: nil
        case .log(let store): store.device
        }
    }

    // MARK: Kept copies

    /// The page at `place` goes back to the guest. True when its copy stays, for `holds` to ask
    /// for later: where a copy costs no host memory. Fault thread only.
    func keep(_ place: UInt64, _ contents: UnsafeRawPointer) -> Bool {
        guard case .log(let store) = self else { return false }
        unsafe store.keep(place, contents)
        return true
    }

    /// Whether the copy kept at `place` is what the page holds now. Worker thread only.
    func holds(_ place: UInt64, _ contents: UnsafeRawPointer) -> Bool {
        guard case .log(let store) = self else { return false }
        return unsafe store.holds(place, contents)
    }

    /// The page that a copy is kept of left again: it is the page's only home. Worker thread only.
    func becomesOnly(_ place: UInt64) {
        guard case .log(let store) = self else { preconditionFailure("only devices keep copies") }
        store.becomesOnly(place)
    }

    /// Any thread.
    func dropCopy(_ place: UInt64) {
        guard case .log(let store) = self else { preconditionFailure("only devices keep copies") }
        store.dropCopy(place)
    }

    // MARK: What it costs, in bytes

    /// Of host memory: what `limit` counts.
    public var heldBytes: Int {
        if case .compressed(let store) = self { store.pool.heldBytes } else { 0 }
    }

    /// Of host memory, or of the device, waste included.
    public var cost: Int {
        switch self {
        case .compressed(let store): store.pool.heldBytes
        case .log(let store): store.usedBytes
        }
    }

    /// Of that, data, kept copies included.
    public var payload: Int {
        switch self {
        case .compressed(let store): store.pool.payloadBytes
        case .log(let store): store.segments.liveSectors * SegmentMap.sectorSize
        }
    }

    /// Of the bookkeeping. Worker thread only.
    var metadataBytes: Int {
        switch self {
        case .compressed(let store): store.metadataBytes
        case .log(let store): store.metadataBytes
        }
    }
}

extension LogStore {
    fileprivate func readBack(_ place: UInt64, into buffer: FetchBuffer, token: UInt64) -> GetOutcome {
        let errno = unsafe device.readBack(transfer(LogPlace(place), to: buffer.raw, token: token))
        if let errno { return .failed(errno) }
        return .pending
    }
}
