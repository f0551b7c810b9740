import CFrostline

/// The ABI this library was compiled for.
@c @implementation
public func frostline_abi_version() -> UInt32 { UInt32(FROSTLINE_ABI_VERSION) }

private let release: StaticString = "0.1.0"

@c @implementation
public func frostline_version() -> UnsafePointer<CChar>? {
    unsafe cString(release)
}

/// A static string as C sees it: it lives as long as the library.
func cString(_ string: StaticString) -> UnsafePointer<CChar> {
    unsafe UnsafeRawPointer(string.utf8Start).assumingMemoryBound(to: CChar.self)
}
