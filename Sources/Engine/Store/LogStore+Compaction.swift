import Kernel

/// An object that is moved to the log's head.
public struct Relocation {
    /// Where it is.
    public let place: UInt64
    public let identity: PageIdentity
    /// Where it is then.
    public var outcome = PutOutcome.refused(.full)

    public init(place: UInt64, identity: PageIdentity) {
        self.place = place
        self.identity = identity
    }
}

/// What compaction asks of a log. Worker thread only.
extension LogStore {
    /// Whether segments must be emptied before `pages` more are put, for all that is known of
    /// what they come to.
    func lacksRoom(for pages: Int) -> Bool {
        writing.withLock { _ in
            segments.collect()
            return writer.room(sparing: spared, longest: coder.wholeSectors) < pages * coder.wholeSectors
        }
    }

    /// Sectors that can be laid out, at least, before all segments are used up.
    var room: Int {
        writing.withLock { _ in
            segments.collect()
            return writer.room(sparing: 0, longest: coder.wholeSectors)
        }
    }

    /// Whether free segments have become few. `isGoingOn`: once begun, it is worth going on for
    /// some more, so that it need not begin again at once.
    func runsLow(isGoingOn: Bool) -> Bool {
        writing.withLock { _ in segments.collect() }
        return segments.freeCount < spared + max(1, segments.count / (isGoingOn ? 16 : 32))
    }

    /// Chooses segments to empty. False when none is worth it.
    public func chooseVictims() -> Bool {
        writing.withLock { _ in
            segments.collect()
            // At most seven sectors are written anew for one that comes free.
            let limit = segments.sectorsPerSegment * 7 / 8
            let room = writer.room(sparing: 0, longest: coder.wholeSectors) * 7 / 8
            return segments.chooseVictims(room: room, limit: limit, most: max(2, segments.count / 8)) > 0
        }
    }

    public func isVictim(_ place: UInt64) -> Bool { segments.isVictim(LogPlace(place).sector) }

    /// Writes objects anew, at most `relocationsMax`, and says where each is then; they stay
    /// where they were, too. `failed(.badMessage)`: it could not be read; `notNow`: nor asked for.
    public func relocate(_ relocations: inout [Relocation]) {
        writing.withLock { _ in
            let before = writer.bytesWritten
            if putsUnderWay == 0 { writer.forgetFailures() }
            readBack(&relocations)
            for index in relocations.indices {
                guard case .stored = relocations[index].outcome else { continue }
                relocations[index].outcome = rewrite(relocations[index], index)
            }
            writer.flush()
            for index in relocations.indices { settle(&relocations[index].outcome) }
            rewrittenBytes.add(writer.bytesWritten - before, ordering: .relaxed)
        }
    }

    private func memory(_ index: Int) -> UnsafeMutableRawPointer {
        unsafe readBuffer.base + index * Self.readSize
    }

    /// Reads and opens all objects before the first is written: the log may come to overwrite
    /// segments that others have emptied meanwhile. The outcome of those that were is `stored`
    /// where they are.
    private func readBack(_ relocations: inout [Relocation]) {
        precondition(relocations.count <= Self.relocationsMax)
        var underWay = 0
        for index in relocations.indices {
            let place = LogPlace(relocations[index].place)
            let errno = unsafe device.readBack(transfer(place, to: memory(index), token: UInt64(index)))
            // One that the device did not even take in says nothing of it, and nothing of writing.
            relocations[index].outcome = .refused(errno == nil ? .failed(.badMessage) : .notNow)
            if errno == nil { underWay += 1 }
        }
        while underWay > 0 { underWay -= takeReadBack(&relocations) }
    }

    private func takeReadBack(_ relocations: inout [Relocation]) -> Int {
        unsafe withUnsafeTemporaryAllocation(
            of: TransferCompletion.self, capacity: Self.relocationsMax
        ) { completions in
            let count = unsafe device.reap(.evict, into: completions, wait: true)
            var finished = count
            for position in 0..<count {
                let completion = unsafe completions[position]
                let index = Int(completion.token)
                let place = LogPlace(relocations[index].place)
                guard Int(completion.result) == blocks(of: place).count else { continue }
                let isRead =
                    unsafe coder.open(
                        memory(index) + blocks(of: place).skipped, sectors: place.sectors,
                        at: segments.position(of: place.sector), relocations[index].identity) != nil
                if isRead {
                    relocations[index].outcome = .stored(place: relocations[index].place)
                    continue
                }
                let again = unsafe transfer(place, to: memory(index), token: completion.token)
                switch device.readElsewhere(again, .evict) {
                case nil: finished -= 1
                case .noData?: break
                // It is not known to be damaged everywhere.
                default: relocations[index].outcome = .refused(.notNow)
                }
            }
            return finished
        }
    }

    private func rewrite(_ relocation: Relocation, _ index: Int) -> PutOutcome {
        let place = LogPlace(relocation.place)
        let contents = unsafe coder.opened(memory(index) + blocks(of: place).skipped, sectors: place.sectors)
        return append(contents, relocation.identity, sparing: 0)
    }

    /// What is at `place` cannot be moved.
    func spoil(_ place: UInt64) { writing.withLock { _ in segments.spoil(LogPlace(place).sector) } }

    /// All that was to be moved has been, or stays.
    public func endCompaction() {
        writing.withLock { _ in
            segments.clearVictims()
            readBuffer.release(offset: 0, length: readBuffer.length)
        }
    }
}
