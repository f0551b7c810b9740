import CCrypto
import Kernel

/// Authenticated encryption of what leaves RAM, under a key of its own that never leaves this
/// process and is gone with it.
///
/// A nonce is used once. On a device it is the serial number of a segment, which counts every
/// opening of any segment under this key, and the sector in it, of which each is written once per
/// opening (`SegmentMap`). In memory it is a number that counts the objects under this key. Either
/// is what the reader expects, not what lies with the object; with the page's identity it binds
/// an object to its page and its time, on a device to its place, too, so that a stale, swapped or
/// altered one does not open.
///
/// Any thread: the key is only read.
@safe public final class Sealer: @unchecked Sendable {
    public enum Cipher: Int32, Sendable {
        case aes256GCM = 1
        case chaCha20Poly1305 = 2

        public var name: StaticString {
            switch self {
            case .aes256GCM: "aes-256-gcm"
            case .chaCha20Poly1305: "chacha20-poly1305"
            }
        }

        /// AES where the CPU has instructions for it; in plain code it is slow, and its
        /// tables tell the key to whoever shares the cache.
        public static var best: Cipher {
            Cipher(rawValue: ccrypto_best_cipher()) ?? .chaCha20Poly1305
        }
    }

    /// What the key is made of. Either way it is another one each time.
    public enum KeySource: Sendable {
        case random
        /// Of a secret, and of randomness.
        case derived(SealSecret)
    }

    /// Where an object lies, and when.
    public struct Position: Equatable, Sendable {
        /// Of the segment's opening, or of the object itself.
        public var serial: UInt64
        /// First sector, counted from the segment's; in memory 0.
        public var sector: UInt32

        public init(serial: UInt64, sector: UInt32) {
            self.serial = serial
            self.sector = sector
        }
    }

    private let key: OpaquePointer
    public let cipher: Cipher

    /// Bytes that sealing adds.
    public static let tagLength = 16

    /// ENOMEM: no memory, or none that may be locked (RLIMIT_MEMLOCK).
    public init(_ source: KeySource = .random, cipher: Cipher = .best) throws(Errno) {
        var key: OpaquePointer?
        let answer: Int32
        switch source {
        case .random: answer = unsafe ccrypto_key_random(cipher.rawValue, &key)
        case .derived(let secret): answer = unsafe ccrypto_key_of_key(cipher.rawValue, secret.key, &key)
        }
        if answer < 0 { throw Errno(-answer) }
        unsafe self.key = key!
        self.cipher = cipher
    }

    deinit { unsafe ccrypto_key_free(key) }

    /// Encrypts `length` bytes to `object`, behind a tag that authenticates them and what
    /// they are.
    func seal(
        _ contents: UnsafeRawPointer, length: Int, to object: UnsafeMutableRawPointer,
        _ position: Position, _ tier: TierIndex, _ identity: PageIdentity
    ) {
        unsafe seal(
            contents, length: length, to: object + Self.tagLength, tag: object, position, tier, identity)
    }

    /// The same, with the tag apart.
    @inline(__always)
    func seal(
        _ contents: UnsafeRawPointer, length: Int, to sealed: UnsafeMutableRawPointer,
        tag: UnsafeMutableRawPointer, _ position: Position, _ tier: TierIndex, _ identity: PageIdentity
    ) {
        unsafe withBinding(position, tier, identity) { nonce, data in
            unsafe ccrypto_seal(
                key, nonce, data, Self.dataLength, contents, length, sealed,
                tag.assumingMemoryBound(to: UInt8.self))
        }
    }

    /// The reverse. False when any of it is not what was sealed; then `contents` holds nothing
    /// of worth.
    func open(
        _ object: UnsafeRawPointer, length: Int, to contents: UnsafeMutableRawPointer,
        _ position: Position, _ tier: TierIndex, _ identity: PageIdentity
    ) -> Bool {
        unsafe open(
            object + Self.tagLength, tag: object, length: length, to: contents, position, tier, identity)
    }

    /// The same, with the tag apart.
    @inline(__always)
    func open(
        _ sealed: UnsafeRawPointer, tag: UnsafeRawPointer, length: Int,
        to contents: UnsafeMutableRawPointer, _ position: Position, _ tier: TierIndex,
        _ identity: PageIdentity
    ) -> Bool {
        unsafe withBinding(position, tier, identity) { nonce, data in
            unsafe ccrypto_open(
                key, nonce, data, Self.dataLength, sealed, length,
                tag.assumingMemoryBound(to: UInt8.self), contents) == 0
        }
    }

    private static let nonceLength = 12
    private static let dataLength = 12

    @inline(__always)
    private func withBinding<Answer>(
        _ position: Position, _ tier: TierIndex, _ identity: PageIdentity,
        _ body: (UnsafePointer<UInt8>, UnsafeRawPointer) -> Answer
    ) -> Answer {
        unsafe withUnsafeTemporaryAllocation(
            byteCount: Self.nonceLength + Self.dataLength, alignment: 8
        ) { bytes in
            unsafe bytes.storeBytes(of: position.serial, as: UInt64.self)
            unsafe bytes.storeBytes(of: position.sector, toByteOffset: 8, as: UInt32.self)
            unsafe bytes.storeBytes(of: UInt32(tier.number), toByteOffset: 12, as: UInt32.self)
            unsafe bytes.storeBytes(of: identity.block, toByteOffset: 16, as: UInt32.self)
            unsafe bytes.storeBytes(of: identity.page, toByteOffset: 20, as: UInt32.self)
            let start = bytes.baseAddress!
            return unsafe body(
                start.assumingMemoryBound(to: UInt8.self), UnsafeRawPointer(start + Self.nonceLength))
        }
    }
}

/// What stands for a secret that somebody gave: tiers that come later take their keys from it.
/// The secret itself is not kept. Any thread.
@safe public final class SealSecret: @unchecked Sendable {
    /// In memory like that of other keys; seals nothing itself.
    fileprivate let key: OpaquePointer

    /// ENOMEM: no memory, or none that may be locked (RLIMIT_MEMLOCK).
    public init(_ secret: UnsafeRawBufferPointer) throws(Errno) {
        var key: OpaquePointer?
        let cipher = Sealer.Cipher.chaCha20Poly1305.rawValue
        let answer = unsafe ccrypto_key_derived(cipher, secret.baseAddress, secret.count, &key)
        if answer < 0 { throw Errno(-answer) }
        unsafe self.key = key!
    }

    deinit { unsafe ccrypto_key_free(key) }
}
