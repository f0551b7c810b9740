import CLinux

/// How the kernel notes touches of guest memory. All but one are asynchronous: the access
/// that is noted does not wait for us.
public enum PageTracking: Equatable, Sendable {
    /// Not at all.
    case none
    /// Reads and writes (userfaultfd RWP, Linux 7.3).
    case readWriteProtection
    /// Writes only (userfaultfd WP, Linux 6.7): a page that is only read looks cold.
    case writeProtection
    /// Writes only, and the first write to an armed page waits for us (userfaultfd WP
    /// without its asynchronous mode): what the guard `write-protect` stands on.
    case synchronousWriteProtection

    /// Asked of UFFDIO_API. The asynchronous mode stands only beside the plain one.
    var features: UInt64 {
        switch self {
        case .none: 0
        case .readWriteProtection: CLINUX_UFFD_FEATURE_RWP | CLINUX_UFFD_FEATURE_RWP_ASYNC
        case .writeProtection: CLINUX_UFFD_FEATURE_WP | CLINUX_UFFD_FEATURE_WP_ASYNC
        case .synchronousWriteProtection: CLINUX_UFFD_FEATURE_WP
        }
    }

    var registerMode: UInt64 {
        switch self {
        case .none: 0
        case .readWriteProtection: CLINUX_UFFD_REGISTER_RWP
        case .writeProtection, .synchronousWriteProtection: CLINUX_UFFD_REGISTER_WP
        }
    }

    /// What PAGEMAP_SCAN reports of a page that was touched since it was armed. It goes by
    /// the protection bit of the page table, in either mode.
    var touchedCategory: UInt64 {
        switch self {
        case .none: 0
        case .readWriteProtection: CLINUX_PAGE_IS_ACCESSED
        case .writeProtection, .synchronousWriteProtection: CLINUX_PAGE_IS_WRITTEN
        }
    }
}
