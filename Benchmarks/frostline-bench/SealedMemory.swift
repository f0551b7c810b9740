import Engine
import Kernel

/// The guest's pages in compressed memory that is sealed, and out of it.
final class SealedMemory {
    private let guest: Guest
    private let store: CompressedStore
    private let buffer: Mapping
    private var outcomes: [PutOutcome] = []

    init(of guest: Guest) throws {
        self.guest = guest
        store = try CompressedStore(
            CompressedStoreOptions(incompressible: .keepRaw), sealer: try Sealer())
        buffer = try Mapping(length: 3 * pageSize)
        // The pool's memory is new the first time.
        let all = (0..<UInt32(guest.pageCount)).map { $0 }[...]
        _ = seal(all)
        _ = open(all)
    }

    private func identity(_ page: UInt32) -> PageIdentity { PageIdentity(block: 1, page: page) }

    /// Each of these: nanoseconds of CPU time a page. What is sealed is to be opened next.
    func seal(_ order: ArraySlice<UInt32>) -> Double {
        let pages = order.map {
            PagePut(address: guest.start + UInt64($0) * UInt64(pageSize), identity: identity($0))
        }
        outcomes = Array(repeating: .refused(.full), count: pages.count)
        return cpuTime {
            pages.withUnsafeBufferPointer { pages in
                outcomes.withUnsafeMutableBufferPointer { store.put(pages, outcomes: $0) }
            }
        } / Double(pages.count)
    }

    func open(_ order: ArraySlice<UInt32>) -> Double {
        let places = outcomes.map { outcome -> UInt64 in
            guard case .stored(let place) = outcome else { preconditionFailure("a page was refused") }
            return place
        }
        defer { for place in places { store.drop(place) } }
        let target = FetchBuffer(page: buffer.base, raw: buffer.base + pageSize)
        return cpuTime {
            for (page, place) in zip(order, places) {
                let outcome = store.get(place, identity(page), into: target, token: 0)
                precondition(outcome == .ready)
            }
        } / Double(places.count)
    }
}
