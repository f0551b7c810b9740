import Kernel

/// How pages come to the tiers: each is offered what those before it refused. Worker thread only.
extension Store {
    /// Takes pages and sets an outcome for each; `answers` says what each tier made of them.
    /// `below`: offers them only to tiers that come after that one. May wait for a device. Worker
    /// thread only.
    public func put(
        _ pages: UnsafeBufferPointer<PagePut>, outcomes: UnsafeMutableBufferPointer<StoreOutcome>,
        below upper: TierIndex? = nil, at now: UInt64
    ) {
        unsafe beginPut(pages, outcomes: outcomes, below: upper, at: now)
        unsafe endPut(outcomes: outcomes)
    }

    /// As `put`, but the last tier's writes may be under way still: outcomes and answers mean something
    /// after `endPut`, with the same `outcomes`, which comes before the next pages are put. The pages
    /// are not read any more. Worker thread only.
    func beginPut(
        _ pages: UnsafeBufferPointer<PagePut>, outcomes: UnsafeMutableBufferPointer<StoreOutcome>,
        below upper: TierIndex? = nil, at now: UInt64
    ) {
        precondition(underWay == nil, "a put has not ended")
        answers.removeAll(keepingCapacity: true)
        unsafe offers.begin(pages, outcomes)
        isLeftOut = false
        let order = tiers(below: upper)
        for index in order where !offers.isEmpty {
            guard let tier = table[index], tier.accepts(at: now) else {
                isLeftOut = true
                continue
            }
            if tier.writeDelay(at: now) > 0 {
                unsafe offers.leftWaiting(outcomes)
                isLeftOut = false
                return
            }
            if index == order.last, case .log(let log) = tier.backing {
                unsafe offers.make { pages, outcomes in unsafe log.beginPut(pages, outcomes) }
                underWay = (tier, log)
            } else {
                unsafe offers.make { pages, outcomes in unsafe tier.backing.put(pages, outcomes: outcomes) }
                unsafe note(tier, outcomes)
            }
        }
    }

    /// Whether the last put may have writes under way.
    var isWriting: Bool { underWay != nil }

    func endPut(outcomes: UnsafeMutableBufferPointer<StoreOutcome>) {
        if let (tier, log) = underWay {
            underWay = nil
            unsafe offers.make { _, outcomes in unsafe log.endPut(outcomes) }
            unsafe note(tier, outcomes)
        }
        if isLeftOut { unsafe offers.leftOut(outcomes) }
    }

    private func note(_ tier: Tier<Port>, _ outcomes: UnsafeMutableBufferPointer<StoreOutcome>) {
        let made = unsafe offers.note(tier.index, outcomes)
        tier.objects.add(made.taken, ordering: .relaxed)
        answers.append((tier, made))
    }

    /// These pages are about to be put: where they come to a log, it begins to compress them. They stay
    /// readable until they have been put, or `abandonExpected`. Worker thread only.
    func expect(_ pages: UnsafeBufferPointer<PagePut>, at now: UInt64) {
        guard let first = order.lazy.compactMap({ self.table[$0] }).first(where: { $0.accepts(at: now) }),
            case .log(let log) = first.backing, first.writeDelay(at: now) == 0
        else { return }
        unsafe log.expect(pages)
        expecting = log
    }

    /// Nobody reads pages any more that were expected and did not come. Worker thread only.
    func abandonExpected() {
        expecting?.abandonExpected()
        expecting = nil
    }
}
