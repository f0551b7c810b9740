import CFrostline
import Engine
import Kernel

extension Host {
    /// Wraps the host program's callbacks. `opaque` is theirs to make safe for threads.
    init(checking host: frostline_host) throws(SetupFailure) {
        guard unsafe host.struct_size >= MemoryLayout<frostline_host>.size else {
            throw SetupFailure(.invalid, "frostline_host.struct_size is too small")
        }
        unsafe try requireZero(host.reserved, "frostline_host.reserved")
        let callbacks = unsafe Callbacks(host)
        self.init(report: { callbacks.report($0) }, log: { callbacks.log($0, $1) })
    }
}

@safe private struct Callbacks: @unchecked Sendable {
    private let host: frostline_host

    init(_ host: frostline_host) { unsafe self.host = host }

    func log(_ level: LogLevel, _ message: String) {
        guard let callback = unsafe host.log else { return }
        unsafe message.withCString { unsafe callback(host.opaque, level.rawValue, $0) }
    }

    func report(_ event: HostEvent) {
        switch event {
        case .writeFailed(let errno, let tier, let region, let page):
            send(FROSTLINE_EVENT_WRITE_FAILED, errno, region, page, tier: tier)
        case .writeRecovered(let tier):
            send(FROSTLINE_EVENT_WRITE_RECOVERED, tier: tier)
        case .readFailed(let errno, let tier, let region, let page, let poisoned):
            send(FROSTLINE_EVENT_READ_FAILED, errno, region, page, tier: tier, poisoned: poisoned)
        case .readRecovered:
            send(FROSTLINE_EVENT_READ_RECOVERED)
        case .unawaitedReadFailed(let errno, let tier):
            send(FROSTLINE_EVENT_UNAWAITED_READ_FAILED, errno, tier: tier)
        }
    }

    private func send(
        _ kind: frostline_event_kind, _ errno: Errno? = nil, _ region: Region? = nil, _ page: Int = 0,
        tier: TierIndex? = nil, poisoned: Bool = false
    ) {
        guard let callback = unsafe host.event else { return }
        unsafe (region?.name ?? "").withCString { name in
            var event = unsafe frostline_event(
                struct_size: UInt32(MemoryLayout<frostline_event>.size), kind: kind.rawValue,
                block: name, offset: region?.offset(of: page) ?? 0, error: errno?.code ?? 0,
                poisoned: poisoned ? 1 : 0, tier: Int32(tier?.position ?? -1), reserved: 0)
            unsafe callback(host.opaque, &event)
        }
    }
}
