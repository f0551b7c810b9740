import Kernel

/// Tiers of kind nbd.
extension Setup {
    /// Connects to the export. What becomes of the connection later is in the log, with the tier.
    static func openExport(
        _ uri: String, _ tier: TierOptions, _ index: Int, _ host: Host
    ) throws(SetupFailure) -> NBDDevice {
        let options = NBDOptions(
            uri: uri, size: tier.maxBytes, sizes: TierOptions.deviceSizes,
            timeout: tier.timeoutSeconds == 0
                ? NBDOptions.timeoutDefault : UInt64(tier.timeoutSeconds) * 1_000_000_000,
            tlsCertificates: tier.tlsCertificates,
            connections: tier.connections == 0 ? NBDOptions.connectionsDefault : tier.connections)
        do {
            return try NBDDevice(options) { notice in
                let (level, text) = describe(notice)
                host.log(level, "tier \(index) (nbd): \(text)")
            }
        } catch {
            throw refusal(index, tier, errno(of: error), "cannot use \(uri): \(error.reason)")
        }
    }

    private static func describe(_ notice: NBDNotice) -> (LogLevel, String) {
        switch notice {
        case .lost: (.warning, "the server is lost; what is to be read or written waits for it")
        case .failing(let reason):
            (.error, "the server is not back (\(reason)); nothing is read or written until it is")
        case .back(let nanoseconds):
            (.warning, "the server is back after \(nanoseconds / 1_000_000) ms")
        }
    }

    private static func errno(of failure: NBDFailure) -> Errno {
        switch failure {
        case .system(let errno), .unusable(let errno): errno
        case .badOption, .tooLarge: .invalid
        case .noLibrary, .blockSize: .notSupported
        case .unreachable, .cancelled: .notConnected
        case .readOnly: .readOnly
        case .tooSmall: .noSpace
        case .changed: .inputOutput
        }
    }
}
