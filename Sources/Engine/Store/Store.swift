import Kernel

/// Everything below RAM: same-filled pages as words, all others in the one tier
/// that was configured.
public final class Store<Port: KernelPort>: @unchecked Sendable {
    public enum Backing {
        case compressed(CompressedStore)
        case file(FileStore<Port>)
    }

    public let words: WordTable
    public let backing: Backing

    /// `pagesMax`: pages that can ever be out at once.
    public init(backing: Backing, pagesMax: Int) throws(Errno) {
        words = try WordTable(capacity: pagesMax)
        self.backing = backing
    }

    /// Takes pages; worker thread only. See `PageStore.put`.
    public func put(
        _ pages: UnsafeBufferPointer<UInt64>, outcomes: UnsafeMutableBufferPointer<PutOutcome>
    ) {
        switch backing {
        case .compressed(let store): unsafe store.put(pages, outcomes: outcomes)
        case .file(let store): unsafe store.put(pages, outcomes: outcomes)
        }
    }

    /// The tier that `put` puts into.
    public var tier: Tier {
        switch backing {
        case .compressed: .compressed
        case .file: .file
        }
    }

    /// Reads a page; fault thread only. See `PageStore.get`.
    @inline(__always)
    public func get(
        _ locator: Locator, into buffer: UnsafeMutableRawPointer, token: UInt64
    ) -> GetOutcome {
        if locator.tier == .sameFilled {
            unsafe fill(buffer, with: words.get(locator.place))
            return .ready
        }
        switch backing {
        case .compressed(let store): return unsafe store.get(locator.place, into: buffer, token: token)
        case .file(let store): return unsafe store.get(locator.place, into: buffer, token: token)
        }
    }

    /// Any thread.
    public func drop(_ locator: Locator) {
        if locator.tier == .sameFilled { return words.drop(locator.place) }
        switch backing {
        case .compressed(let store): store.drop(locator.place)
        case .file(let store): store.drop(locator.place)
        }
    }

    /// A page went back to the guest from `locator`. True when its copy stays there, for
    /// `holds` to ask for later: where a copy costs no host memory. Fault thread only.
    func keep(_ locator: Locator, _ contents: UnsafeRawPointer) -> Bool {
        guard locator.tier == .file, case .file(let store) = backing else { return false }
        unsafe store.keep(locator.place, contents)
        return true
    }

    /// Whether the copy kept at `locator` is what the page holds now. Worker thread only.
    func holds(_ locator: Locator, _ contents: UnsafeRawPointer) -> Bool {
        guard locator.tier == .file, case .file(let store) = backing else { return false }
        return unsafe store.holds(locator.place, contents)
    }

    /// Drops a kept copy. Any thread.
    func dropCopy(_ locator: Locator) {
        guard case .file(let store) = backing else { preconditionFailure("only files keep copies") }
        store.dropCopy(locator.place)
    }

    /// Kept copies that must go before `pages` more are put. Worker thread only.
    func shortage(for pages: Int) -> Int {
        guard case .file(let store) = backing else { return 0 }
        return store.shortage(for: pages)
    }

    /// Worker thread only.
    public func trim() {
        switch backing {
        case .compressed(let store): store.trim()
        case .file(let store): store.trim()
        }
    }

    /// Host memory that stored pages cost, in bytes: what `limit` counts.
    public var heldBytes: Int {
        switch backing {
        case .compressed(let store): store.pool.heldBytes + words.usedBytes
        case .file: words.usedBytes
        }
    }

    /// Memory of the bookkeeping, in bytes. Worker thread only.
    public var metadataBytes: Int {
        switch backing {
        case .compressed(let store): store.pool.metadataBytes
        case .file(let store): store.metadataBytes
        }
    }
}
