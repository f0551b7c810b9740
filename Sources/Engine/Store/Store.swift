import Kernel

/// What became of a page that the store was given.
public enum StoreOutcome: Equatable, Sendable {
    case stored(Locator)
    /// No tier took it; the last tier's reason.
    case refused(Refusal)
}

/// Everything below RAM: same-filled pages as words, all others in the configured tiers. A
/// page that one of them refuses is offered to the next.
public final class Store<Port: KernelPort>: @unchecked Sendable {
    public enum Backing {
        case compressed(CompressedStore)
        case log(LogStore<Port.Device>)
    }

    public let words: WordTable
    /// In the order in which pages are offered to them; 1 to `TierIndex.tiersMax`.
    public let tiers: [Backing]
    private let offers: TierOffers

    /// `pagesMax`: pages that can ever be out at once.
    public init(tiers: [Backing], pagesMax: Int) throws(Errno) {
        precondition((1...TierIndex.tiersMax).contains(tiers.count))
        words = try WordTable(capacity: pagesMax)
        self.tiers = tiers
        offers = TierOffers()
    }

    /// The tier of a page that is not same-filled.
    @inline(__always)
    private func tier(_ index: TierIndex) -> Backing { tiers[index.number - 1] }

    /// The tiers that are logs.
    var logs: [(tier: TierIndex, log: LogStore<Port.Device>)] {
        tiers.enumerated().compactMap { number, tier in
            if case .log(let log) = tier { (TierIndex(number + 1), log) } else { nil }
        }
    }

    func log(_ tier: TierIndex) -> LogStore<Port.Device>? {
        if case .log(let log) = self.tier(tier) { log } else { nil }
    }

    /// Takes pages and sets an outcome for each. May block on I/O. Worker thread only.
    public func put(
        _ pages: UnsafeBufferPointer<PagePut>, outcomes: UnsafeMutableBufferPointer<StoreOutcome>
    ) {
        unsafe offers.begin(pages)
        for (number, tier) in tiers.enumerated() where !offers.isEmpty {
            unsafe offers.make(to: TierIndex(number + 1), outcomes) { pages, outcomes in
                switch tier {
                case .compressed(let store): unsafe store.put(pages, outcomes: outcomes)
                case .log(let store): unsafe store.put(pages, outcomes: outcomes)
                }
            }
        }
    }

    /// Reads a page; fault thread only. See `PageStore.get`.
    @inline(__always)
    public func get(
        _ locator: Locator, _ identity: PageIdentity, into buffer: FetchBuffer, token: UInt64
    ) -> GetOutcome {
        if locator.tier == .sameFilled {
            unsafe fill(buffer.page, with: words.get(locator.place))
            return .ready
        }
        switch tier(locator.tier) {
        case .compressed(let store):
            return store.get(locator.place, identity, into: buffer, token: token)
        case .log(let store): return store.get(locator.place, identity, into: buffer, token: token)
        }
    }

    /// Ends a pending read; fault thread only. See `PageStore.finish`.
    public func finish(
        _ locator: Locator, _ identity: PageIdentity, _ result: Int32, _ buffer: FetchBuffer
    ) -> Errno? {
        switch tier(locator.tier) {
        case .compressed(let store): store.finish(locator.place, identity, result, buffer)
        case .log(let store): store.finish(locator.place, identity, result, buffer)
        }
    }

    /// Takes finished reads of all tiers, as many as there is room for. Fault thread only.
    func reapFetches(into completions: UnsafeMutableBufferPointer<TransferCompletion>) -> Int {
        var count = 0
        for case .log(let store) in tiers where count < completions.count {
            count += unsafe store.device.reap(
                .fetch, into: UnsafeMutableBufferPointer(rebasing: completions[count...]), wait: false)
        }
        return count
    }

    /// Any thread.
    public func drop(_ locator: Locator) {
        if locator.tier == .sameFilled { return words.drop(locator.place) }
        switch tier(locator.tier) {
        case .compressed(let store): store.drop(locator.place)
        case .log(let store): store.drop(locator.place)
        }
    }

    /// A page went back to the guest from `locator`. True when its copy stays there, for
    /// `holds` to ask for later: where a copy costs no host memory. Fault thread only.
    func keep(_ locator: Locator, _ contents: UnsafeRawPointer) -> Bool {
        guard locator.tier != .sameFilled, case .log(let store) = tier(locator.tier) else { return false }
        unsafe store.keep(locator.place, contents)
        return true
    }

    /// Whether the copy kept at `locator` is what the page holds now. Worker thread only.
    func holds(_ locator: Locator, _ contents: UnsafeRawPointer) -> Bool {
        guard locator.tier != .sameFilled, case .log(let store) = tier(locator.tier) else { return false }
        return unsafe store.holds(locator.place, contents)
    }

    /// The page that a copy is kept of left again: it is the page's only home. Worker thread only.
    func becomesOnly(_ locator: Locator) {
        guard case .log(let store) = tier(locator.tier) else {
            preconditionFailure("only devices keep copies")
        }
        store.becomesOnly(locator.place)
    }

    /// Drops a kept copy. Any thread.
    func dropCopy(_ locator: Locator) {
        guard case .log(let store) = tier(locator.tier) else {
            preconditionFailure("only devices keep copies")
        }
        store.dropCopy(locator.place)
    }

    /// Worker thread only.
    public func trim() {
        for tier in tiers {
            switch tier {
            case .compressed(let store): store.trim()
            case .log(let store): store.trim()
            }
        }
    }

    /// Host memory that stored pages cost, in bytes: what `limit` counts.
    public var heldBytes: Int {
        tiers.reduce(words.usedBytes) { sum, tier in
            if case .compressed(let store) = tier { sum + store.pool.heldBytes } else { sum }
        }
    }

    /// Memory of the bookkeeping, in bytes. Worker thread only.
    public var metadataBytes: Int {
        tiers.reduce(0) { sum, tier in
            switch tier {
            case .compressed(let store): sum + store.metadataBytes
            case .log(let store): sum + store.metadataBytes
            }
        }
    }
}
