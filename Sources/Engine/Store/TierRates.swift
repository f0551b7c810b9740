import Kernel

/// Bounds on what a tier does to its device, kept by what the device counted. The fault thread
/// and the worker.
final class TierRates: Sendable {
    private let traffic: DeviceTraffic
    private let reads: Lock<Buckets>
    private let writes: Lock<Buckets>

    private struct Buckets {
        var transfers: RateLimit
        var bytes: RateLimit
        var seenTransfers: UInt64
        var seenBytes: UInt64

        init(_ limits: RateLimits, _ transfers: UInt64, _ bytes: UInt64) {
            self.transfers = RateLimit(rate: limits.transfers)
            self.bytes = RateLimit(rate: limits.bytes)
            seenTransfers = transfers
            seenBytes = bytes
        }

        /// Pays for what the device has counted since.
        mutating func settle(_ transfersNow: UInt64, _ bytesNow: UInt64, _ now: UInt64) {
            transfers.use(transfersNow - seenTransfers, at: now)
            bytes.use(bytesNow - seenBytes, at: now)
            (seenTransfers, seenBytes) = (transfersNow, bytesNow)
        }

        func delay(_ now: UInt64, reserve: UInt64) -> UInt64 {
            max(transfers.delay(at: now, reserve: reserve), bytes.delay(at: now, reserve: reserve))
        }
    }

    init(_ traffic: DeviceTraffic, reads: RateLimits, writes: RateLimits) {
        self.traffic = traffic
        self.reads = Lock(Buckets(reads, traffic.reads.value, traffic.readBytes.value))
        self.writes = Lock(Buckets(writes, traffic.writes.value, traffic.writtenBytes.value))
    }

    /// How long a read must wait, in nanoseconds.
    func readDelay(_ purpose: ReadPurpose, at now: UInt64) -> UInt64 {
        reads.withLock {
            $0.settle(traffic.reads.value, traffic.readBytes.value, now)
            return $0.delay(now, reserve: purpose.reserve)
        }
    }

    /// How many pages may be read at once, when there is no delay; at least one, since what is
    /// asked for is paid for later.
    func readRoom(_ purpose: ReadPurpose, at now: UInt64) -> Int {
        reads.withLock {
            $0.settle(traffic.reads.value, traffic.readBytes.value, now)
            let transfers = $0.transfers.room(at: now, reserve: purpose.reserve) ?? .max
            let bytes = $0.bytes.room(at: now, reserve: purpose.reserve) ?? .max
            return Int(clamping: max(1, min(transfers, bytes / Self.bytesPerPage)))
        }
    }

    /// The longest object of a page.
    private static var bytesPerPage: UInt64 { UInt64(pageSize + SegmentMap.sectorSize) }

    func writeDelay(at now: UInt64) -> UInt64 {
        writes.withLock {
            $0.settle(traffic.writes.value, traffic.writtenBytes.value, now)
            return $0.delay(now, reserve: 0)
        }
    }
}
