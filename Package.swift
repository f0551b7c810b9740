// swift-tools-version: 6.2
import PackageDescription

let strict: [SwiftSetting] = [
    .strictMemorySafety(),
    .treatAllWarnings(as: .error),
]

let libraryLinkage: [LinkerSetting] = [
    .unsafeFlags(
        [
            "-static-stdlib", "-use-ld=lld",
            "-Xlinker", "-soname=libfrostline.so.1",
            "-Xlinker", "--version-script=\(Context.packageDirectory)/Sources/Exports/frostline.map",
            "-Xlinker", "-z", "-Xlinker", "defs",
            "-Xlinker", "-z", "-Xlinker", "nodelete",
            "-Xlinker", "--gc-sections",
        ], .when(configuration: .release))
]

#if arch(x86_64)
    let multiBufferCrypto = ["-l:libIPSec_MB.a", "-Xlinker", "--exclude-libs=libIPSec_MB.a"]
#else
    let multiBufferCrypto: [String] = []
#endif

let package = Package(
    name: "frostline",
    products: [
        .library(name: "frostline", type: .dynamic, targets: ["Exports"])
    ],
    targets: [
        .systemLibrary(
            name: "CGLib", pkgConfig: "glib-2.0", providers: [.apt(["libglib2.0-dev"])]),
        .target(name: "CFrostline"),
        .target(
            name: "CLinux", dependencies: ["CGLib"],
            cSettings: [.define("_GNU_SOURCE"), .unsafeFlags(["-Wall", "-Wextra", "-Werror"])],
            linkerSettings: [.unsafeFlags(["-l:liburing.a"])]),
        .target(
            name: "CCodec",
            cSettings: [.unsafeFlags(["-Wall", "-Wextra", "-Werror"])],
            // Hidden, since the archive is not compiled to be interposed in a shared object.
            linkerSettings: [
                .unsafeFlags(["-l:liblz4.a", "-l:libzstd.a", "-Xlinker", "--exclude-libs=libzstd.a"])
            ]),
        .target(
            name: "CCrypto",
            cSettings: [.unsafeFlags(["-Wall", "-Wextra", "-Werror"])],
            // Hidden, since the archives are not compiled to be interposed in a shared object.
            linkerSettings: [
                .unsafeFlags(
                    multiBufferCrypto + ["-l:libsodium.a", "-Xlinker", "--exclude-libs=libsodium.a"])
            ]),
        // libnbd is loaded by the first device that wants it: only its header is needed here.
        .target(
            name: "CNBD",
            cSettings: [.define("_GNU_SOURCE"), .unsafeFlags(["-Wall", "-Wextra", "-Werror"])]),
        .target(name: "Kernel", dependencies: ["CLinux", "CNBD"], swiftSettings: strict),
        .target(
            name: "Engine", dependencies: ["Kernel", "CCodec", "CCrypto"], swiftSettings: strict),
        .target(
            name: "Exports", dependencies: ["CFrostline", "Engine", "Kernel"],
            exclude: ["frostline.map"],
            swiftSettings: strict, linkerSettings: libraryLinkage),
        .target(
            name: "CBareLoops", dependencies: ["CLinux", "CCodec"], path: "Benchmarks/CBareLoops",
            cSettings: [.define("_GNU_SOURCE"), .unsafeFlags(["-Wall", "-Wextra", "-Werror"])]),
        .target(
            name: "PageCorpus", dependencies: ["Kernel", "SeededRandom"], path: "Benchmarks/PageCorpus",
            swiftSettings: [.treatAllWarnings(as: .error)]),
        .executableTarget(
            name: "frostline-bench",
            dependencies: ["CBareLoops", "CCodec", "CCrypto", "Engine", "Kernel", "PageCorpus"],
            path: "Benchmarks/frostline-bench",
            swiftSettings: [.treatAllWarnings(as: .error)]),
        .target(
            name: "SeededRandom", path: "Tests/SeededRandom",
            swiftSettings: [.treatAllWarnings(as: .error)]),
        .testTarget(
            name: "NativeTests", dependencies: ["Engine", "Kernel", "SeededRandom"],
            swiftSettings: [.treatAllWarnings(as: .error)]),
        .target(
            name: "SimulatedKernel", dependencies: ["Kernel", "SeededRandom"],
            path: "Tests/SimulatedKernel",
            swiftSettings: [.treatAllWarnings(as: .error)]),
        .testTarget(
            name: "EngineTests",
            dependencies: ["CCrypto", "Engine", "Kernel", "PageCorpus", "SeededRandom"],
            swiftSettings: [.treatAllWarnings(as: .error)]),
        .testTarget(
            name: "SimulationTests",
            dependencies: ["Engine", "Kernel", "SeededRandom", "SimulatedKernel"],
            swiftSettings: [.treatAllWarnings(as: .error)]),
    ],
    swiftLanguageModes: [.v6]
)
