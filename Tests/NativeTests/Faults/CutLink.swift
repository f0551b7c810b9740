import Glibc
import Kernel
import SeededRandom
import Synchronization
import Testing

/// A network that breaks connections: it stands between an NBD client and a server, passes on
/// what either says, and cuts each connection after so many bytes of one direction, in the middle
/// of a request or an answer as likely as not.
final class CutLink: Sendable {
    private let listener: Int32
    private let server: String
    private let state: Lock<State>
    private let cutCount = Atomic<Int>(0)

    /// A connection of a client, and the one to the server in its name.
    private struct Pair {
        let sockets: [Int32]
        var threads: [Kernel.Thread] = []
        /// Directions that have ended.
        var ended = 0
    }

    private struct State {
        var random: SplitMix
        var isCutting = false
        var accepter: Kernel.Thread?
        /// By the client's socket.
        var pairs: [Int32: Pair] = [:]
    }

    /// Bytes of one direction after which a connection is cut.
    private static let bytesMin = 32 << 10
    private static let bytesMax = 2 << 20

    /// Listens at `path` for connections to `server`, both Unix sockets.
    init(_ path: String, server: String, seed: UInt64) throws {
        self.server = server
        unlink(path)
        let listener = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        self.listener = listener
        state = Lock(State(random: SplitMix(seed: seed)))
        try #require(listener >= 0 && Self.call(bind, listener, path) == 0)
        try #require(listen(listener, 16) == 0)
        let thread = try Kernel.Thread(name: "link") { [self] in
            while true {
                let client = accept(listener, nil, nil)
                tidyUp()
                if client < 0 { return }
                connect(client)
            }
        }
        state.withLock { $0.accepter = thread }
    }

    /// Connections that were cut.
    var cuts: Int { cutCount.load(ordering: .relaxed) }

    /// From now on, connections are cut, those that are there not yet.
    func beginCutting() { state.withLock { $0.isCutting = true } }
    func endCutting() { state.withLock { $0.isCutting = false } }

    /// Ends all connections, and waits for the threads.
    func close() {
        shutdown(listener, Int32(SHUT_RDWR))
        state.withLock { $0.accepter.take() }?.join()
        Glibc.close(listener)
        state.withLock { state in
            for socket in state.pairs.values.flatMap(\.sockets) { shutdown(socket, Int32(SHUT_RDWR)) }
        }
        while !state.withLock({ $0.pairs.isEmpty }) {
            Kernel.sleep(nanoseconds: 1_000_000)
            tidyUp()
        }
    }

    /// Closes what is not used any more.
    private func tidyUp() {
        let done = state.withLock { state in
            let done = state.pairs.filter { $0.value.ended == 2 }
            for client in done.keys { state.pairs[client] = nil }
            return done.values
        }
        for pair in done {
            for thread in pair.threads { thread.join() }
            for socket in pair.sockets { Glibc.close(socket) }
        }
    }

    private func connect(_ client: Int32) {
        let peer = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        guard Self.call(Glibc.connect, peer, server) == 0 else {
            for socket in [client, peer] { Glibc.close(socket) }
            return
        }
        state.withLock { state in
            let bytes = Self.bytesMin + state.random.below(Self.bytesMax - Self.bytesMin)
            let cutsRequests = state.random.below(2) == 0
            var pair = Pair(sockets: [client, peer])
            for (source, target, isCut) in [(client, peer, cutsRequests), (peer, client, !cutsRequests)] {
                let thread = try? Kernel.Thread(name: "pump") { [self] in
                    pump(source, target, cutAfter: isCut ? bytes : nil)
                    self.state.withLock { $0.pairs[client]?.ended += 1 }
                }
                if let thread { pair.threads.append(thread) } else { pair.ended += 1 }
            }
            state.pairs[client] = pair
        }
    }

    /// Passes bytes on until there are no more, or the connection is to be cut.
    private func pump(_ source: Int32, _ target: Int32, cutAfter limit: Int?) {
        var buffer = [UInt8](repeating: 0, count: 64 << 10)
        var passed = 0
        while true {
            var count = recv(source, &buffer, buffer.count, 0)
            guard count > 0 else { break }
            let isCut: Bool
            if let limit, passed + count >= limit, state.withLock({ $0.isCutting }) {
                count = max(0, limit - passed)
                isCut = true
                cutCount.add(1, ordering: .relaxed)
            } else {
                isCut = false
            }
            var sent = 0
            while sent < count {
                let answer = buffer.withUnsafeBytes {
                    send(target, $0.baseAddress! + sent, count - sent, Int32(MSG_NOSIGNAL))
                }
                guard answer > 0 else { break }
                sent += answer
            }
            passed += count
            if isCut || sent < count { break }
        }
        for socket in [source, target] { shutdown(socket, Int32(SHUT_RDWR)) }
    }

    /// bind or connect, with a path.
    private static func call(
        _ function: (Int32, UnsafePointer<sockaddr>, socklen_t) -> Int32, _ socket: Int32, _ path: String
    ) -> Int32 {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let bytes = Array(path.utf8)
        precondition(bytes.count < MemoryLayout.size(ofValue: address.sun_path))
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
        return withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                function(socket, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
    }
}
