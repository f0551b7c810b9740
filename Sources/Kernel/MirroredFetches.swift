/// The fault thread's reads of a mirrored device. One side is asked; the other, when that side
/// fails or takes long. Who answers first is believed.
///
/// A read that a side does not end may still write to memory when nobody expects it any more, so
/// each side reads into memory that is its own, and what it brought is copied from there.
final class MirroredFetches<Side: StoreDevice> {
    /// The most that is read at once: what is stored of a page, and blocks around it.
    static var lengthMax: Int { 2 * pageSize }

    /// One transfer, by its token.
    private struct Read {
        var transfer: Transfer
        let since: UInt64
        /// The sides' own tokens of it, where they owe an answer.
        var tokens: (Int?, Int?) = (nil, nil)
        /// The side that it has not been asked of.
        var untried: Int?
        /// Both have been asked, one of them because the other took long.
        var isRace = false
        /// The worse of the sides' answers so far; 0: none.
        var failure: Int32 = 0
        var isAwaited: Bool { tokens.0 != nil || tokens.1 != nil }
    }

    /// What a side's token stands for.
    private enum Owner {
        case nobody
        /// The read of that token.
        case read(Int)
        /// A read that the other side has ended.
        case left
    }

    private let sides: [Side]
    private let traffic: DeviceTraffic
    private let depth: Int
    /// Where the sides read to: `lengthMax` for each token of the first, then of the second.
    private let landings: Landings
    private var owners: [[Owner]]
    private var free: [[Int]]
    private var reads: [Read?]
    /// Answers that the sides owe and nobody waits for.
    private(set) var late = 0
    /// By token: the side that the last read was not asked of.
    private var untried: [Int?]
    /// The side that reads are asked of first.
    private var preferred = 0
    /// A second read was taken in, and may not have begun.
    private var areUnstarted = false
    /// Ended while others were started or waited for.
    private var ended: [TransferCompletion] = []

    init(sides: [Side], depth: Int, _ traffic: DeviceTraffic) throws(Errno) {
        self.sides = sides
        self.traffic = traffic
        self.depth = depth
        landings = Landings(try Mapping(length: 2 * depth * Self.lengthMax))
        owners = Array(repeating: Array(repeating: .nobody, count: depth), count: 2)
        free = Array(repeating: (0..<depth).reversed(), count: 2)
        reads = Array(repeating: nil, count: depth)
        untried = Array(repeating: nil, count: depth)
        ended.reserveCapacity(depth)
    }

    /// Where a side reads to.
    func landing(of side: Int) -> (start: UInt64, length: Int) {
        (address(side, 0), depth * Self.lengthMax)
    }

    private func address(_ side: Int, _ token: Int) -> UInt64 {
        unsafe UInt64(UInt(bitPattern: landings.memory.base))
            + UInt64((side * depth + token) * Self.lengthMax)
    }

    // MARK: Asking

    /// EBUSY: neither side takes more.
    func begin(_ transfer: Transfer) -> Errno? {
        var read = Read(transfer: transfer, since: monotonicNow(), untried: 1 - preferred)
        if ask(preferred, &read) != nil {
            // It may take the read later.
            read.untried = preferred
            if let failure = ask(1 - preferred, &read) { return failure }
            noteSecondRead()
        }
        precondition(reads[Int(transfer.token)] == nil, "two reads have one token")
        reads[Int(transfer.token)] = read
        return nil
    }

    /// Again, of the side that was not asked: what came is wrong.
    func readElsewhere(_ transfer: Transfer) -> Errno? {
        guard let side = untried[Int(transfer.token)] else { return .noData }
        var read = Read(transfer: transfer, since: monotonicNow())
        if let failure = ask(side, &read) { return failure }
        reads[Int(transfer.token)] = read
        preferred = side
        noteSecondRead()
        return nil
    }

    /// Asks the other side, too, for what one has not answered in time.
    func askOthers(at now: UInt64) {
        for token in reads.indices {
            guard let read = reads[token], now > read.since, now - read.since >= MirroredDevice<Side>.patience
            else { continue }
            guard askOther(token) else { continue }
            reads[token]?.isRace = true
        }
    }

    /// False: there is no other, or it does not take the read.
    private func askOther(_ token: Int) -> Bool {
        guard var read = reads[token], let side = read.untried else { return false }
        guard ask(side, &read) == nil else { return false }
        read.untried = nil
        reads[token] = read
        areUnstarted = true
        noteSecondRead()
        return true
    }

    private func ask(_ side: Int, _ read: inout Read) -> Errno? {
        precondition(read.transfer.length <= Self.lengthMax)
        guard let token = free[side].popLast() else { return .busy }
        var named = read.transfer
        named.token = UInt64(token)
        named.memory = address(side, token)
        if let failure = sides[side].read(named) {
            free[side].append(token)
            return failure
        }
        owners[side][token] = .read(Int(read.transfer.token))
        if side == 0 { read.tokens.0 = token } else { read.tokens.1 = token }
        return nil
    }

    private func noteSecondRead() { traffic.secondReads.add(1, ordering: .relaxed) }

    /// Both sides, even when the first cannot.
    func startReads() -> Bool {
        var areAll = true
        for side in sides where !side.startReads() { areAll = false }
        return areAll
    }

    // MARK: Answers

    func reap(into completions: UnsafeMutableBufferPointer<TransferCompletion>, wait: Bool) -> Int {
        for side in sides.indices { unsafe collect(side, completions, wait: false) }
        if areUnstarted { areUnstarted = !startReads() }
        // Of two that owe an answer, one has taken long.
        while wait, ended.isEmpty, let side = [preferred, 1 - preferred].first(where: owesAnswer) {
            unsafe collect(side, completions, wait: true)
        }
        let count = min(ended.count, completions.count)
        for index in 0..<count { unsafe completions[index] = ended[index] }
        ended.removeFirst(count)
        return count
    }

    private func owesAnswer(_ side: Int) -> Bool {
        reads.contains { $0.map { (side == 0 ? $0.tokens.0 : $0.tokens.1) != nil } ?? false }
    }

    /// Takes a side's answers; `scratch` is overwritten.
    private func collect(
        _ side: Int, _ scratch: UnsafeMutableBufferPointer<TransferCompletion>, wait: Bool
    ) {
        guard free[side].count < depth else { return }
        let count = unsafe sides[side].reap(.fetch, into: scratch, wait: wait)
        for index in 0..<count { unsafe note(scratch[index], from: side) }
    }

    private func note(_ answer: TransferCompletion, from side: Int) {
        let sideToken = Int(answer.token)
        let owner = owners[side][sideToken]
        owners[side][sideToken] = .nobody
        free[side].append(sideToken)
        switch owner {
        case .nobody: preconditionFailure("a transfer ended twice")
        case .left:
            late -= 1
            traffic.inFlight.subtract(1, ordering: .relaxed)
        case .read(let token): note(answer.result, token, from: side, address(side, sideToken))
        }
    }

    private func note(_ result: Int32, _ token: Int, from side: Int, _ landing: UInt64) {
        guard var read = reads[token] else { preconditionFailure("a side answered for no read") }
        if side == 0 { read.tokens.0 = nil } else { read.tokens.1 = nil }
        let isWhole = result == Int32(read.transfer.length)
        if !isWhole { read.failure = min(read.failure, result < 0 ? result : -Errno.inputOutput.code) }
        reads[token] = read
        if isWhole {
            Self.copy(read.transfer, from: landing)
            if read.isRace { preferred = side }
            leave(read)
        } else {
            preferred = 1 - side
            if read.isAwaited || askOther(token) { return }
        }
        reads[token] = nil
        // One that owes an answer may be asked again.
        untried[token] = isWhole ? read.untried ?? (read.isAwaited ? 1 - side : nil) : nil
        ended.append(
            TransferCompletion(token: UInt64(token), result: isWhole ? result : read.failure))
    }

    private static func copy(_ transfer: Transfer, from landing: UInt64) {
        unsafe UnsafeMutableRawPointer(bitPattern: UInt(transfer.memory))!.copyMemory(
            from: UnsafeRawPointer(bitPattern: UInt(landing))!, byteCount: transfer.length)
    }

    /// Nobody waits for the other side's answer any more. It counts as in flight until it is there.
    private func leave(_ read: Read) {
        if let token = read.tokens.0 { leave(token, at: 0) }
        if let token = read.tokens.1 { leave(token, at: 1) }
    }

    private func leave(_ token: Int, at side: Int) {
        owners[side][token] = .left
        late += 1
        traffic.inFlight.add(1, ordering: .relaxed)
    }

    /// A side may write to what it owes an answer for as long as its device pleases: then the memory
    /// stays for as long as the process.
    deinit {
        let owes = late > 0 || reads.contains { $0 != nil }
        if owes { _ = unsafe Unmanaged.passRetained(landings) }
    }
}

/// Where the sides of a mirrored device read to.
private final class Landings: Sendable {
    let memory: Mapping
    init(_ memory: consuming Mapping) { self.memory = memory }
}
