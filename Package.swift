// swift-tools-version: 6.2
import PackageDescription

/// Set `MARTLET_WARNINGS_AS_ERRORS=1` to make every Swift and C warning of this package an error (CI does).
let warningsAsErrors = Context.environment["MARTLET_WARNINGS_AS_ERRORS"] == "1"

/// Set `MARTLET_SANITIZED` to `address` or `thread` to leave out what that sanitizer does not run: the command line and the server, and the tests of
/// them, of the test kit, of answers and of templates, whose fuzzer runs under one; for threads also what has one alone.
let sanitizer = Context.environment["MARTLET_SANITIZED"]
let unsanitized = Set(
  [
    "MartletCLI", "MartletCLITests", "MartletServer", "MartletServerTests", "MartletAnswersTests", "MartletAttentionTestKit",
    "MartletAttentionTestKitTests", "MartletTemplatesTests", "MartletCUDATests",
  ] + (sanitizer == "thread" ? ["MartletCoreTests", "MartletFormatsTests", "MartletTokenizersTests", "MartletModelsTests"] : []))

let swiftSettings: [SwiftSetting] =
  [
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
  ] + (warningsAsErrors ? [.treatAllWarnings(as: .error)] : [])

/// A product of a package that is there only with a trait.
func product(_ name: String, _ package: String, trait: String = "HTTPServer") -> Target.Dependency {
  .product(name: name, package: package, condition: .when(traits: [trait]))
}

let cSettings: [CSetting] = warningsAsErrors ? [.treatAllWarnings(as: .error)] : []
let cxxSettings: [CXXSetting] = warningsAsErrors ? [.treatAllWarnings(as: .error)] : []

let package = Package(
  name: "martlet",
  products: [
    .library(
      name: "Martlet", targets: ["Martlet", "MartletAnswers", "MartletFormats", "MartletModels", "MartletTemplates", "MartletTokenizers"]),
    .library(name: "MartletCore", targets: ["MartletCore"]),
    .library(name: "MartletAttention", targets: ["MartletAttention", "MartletKVCache"]),
    .library(name: "MartletAttentionTestKit", targets: ["MartletAttentionTestKit"]),
    .library(name: "MartletCPU", targets: ["MartletCPU"]),
    .library(name: "MartletCUDA", targets: ["MartletCUDA"]),
    .library(name: "MartletGrammar", targets: ["MartletGrammar"]),
    .library(name: "MartletModels", targets: ["MartletModels"]),
    .library(name: "MartletServer", targets: ["MartletServer"]),
    .executable(name: "martlet", targets: ["MartletCLI"]),
  ],
  // Whoever wants the library alone neither fetches nor builds an HTTP server.
  traits: [
    .trait(name: "HTTPServer", description: "MartletServer and `martlet serve`, on Hummingbird."),
    .trait(name: "TLS", description: "The same with TLS by swift-nio-ssl.", enabledTraits: ["HTTPServer"]),
    .default(enabledTraits: []),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.0"),
    .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
    .package(url: "https://github.com/apple/swift-log", from: "1.16.0"),
    .package(url: "https://github.com/apple/swift-metrics", from: "2.13.0"),
    // Only with the trait HTTPServer: every product of theirs is behind it.
    .package(url: "https://github.com/hummingbird-project/hummingbird", from: "2.28.1", traits: []),
    .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
    .package(url: "https://github.com/apple/swift-async-algorithms", from: "1.1.4"),
    .package(url: "https://github.com/apple/swift-distributed-tracing", from: "1.7.3"),
    .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
    .package(url: "https://github.com/apple/swift-nio-extras", from: "1.35.2"),
    .package(url: "https://github.com/apple/swift-nio-ssl", from: "2.37.6"),
    .package(url: "https://github.com/apple/swift-http-types", from: "1.8.0"),
  ],
  targets: [
    .target(name: "CMartletKernels", cSettings: cSettings),
    .target(name: "CMartletCUDAKernels", exclude: ["kernels"], cSettings: cSettings),
    .target(name: "CMartletLibc", cSettings: cSettings),
    .target(name: "CMartletPage", exclude: ["page"], cSettings: cSettings),
    .target(name: "MartletCore", swiftSettings: swiftSettings),
    .target(name: "MartletCPU", dependencies: ["MartletCore", "CMartletKernels", "CMartletLibc"], swiftSettings: swiftSettings),
    .target(name: "MartletCUDA", dependencies: ["MartletCore", "CMartletCUDAKernels", "CMartletLibc"], swiftSettings: swiftSettings),
    .target(name: "MartletFormats", dependencies: ["MartletCore", "CMartletLibc"], swiftSettings: swiftSettings),
    .target(name: "MartletTemplates", dependencies: ["CMartletLibc"], swiftSettings: swiftSettings),
    .target(
      name: "MartletTokenizers", dependencies: ["MartletCore", "MartletFormats", "MartletTemplates"], swiftSettings: swiftSettings),
    .target(name: "MartletGrammar", dependencies: ["MartletFormats"], swiftSettings: swiftSettings),
    .target(name: "MartletAnswers", dependencies: ["MartletTemplates"], swiftSettings: swiftSettings),
    .target(name: "MartletKVCache", dependencies: ["MartletCore"], swiftSettings: swiftSettings),
    .target(name: "MartletAttention", dependencies: ["MartletCore", "MartletKVCache", "CMartletLibc"], swiftSettings: swiftSettings),
    .target(
      name: "MartletAttentionTestKit", dependencies: ["MartletCore", "MartletKVCache", "MartletAttention", "CMartletLibc"],
      swiftSettings: swiftSettings),
    .target(
      name: "MartletModels",
      dependencies: ["MartletCore", "MartletFormats", "MartletAttention", "MartletKVCache", "CMartletLibc"],
      swiftSettings: swiftSettings),
    .target(
      name: "Martlet",
      dependencies: [
        "MartletCore", "MartletFormats", "MartletTemplates", "MartletTokenizers", "MartletAnswers", "MartletGrammar", "MartletKVCache",
        "MartletAttention", "MartletModels", "MartletCPU", "CMartletLibc",
        .product(name: "Logging", package: "swift-log"),
        .product(name: "Metrics", package: "swift-metrics"),
        .product(name: "DequeModule", package: "swift-collections"),
      ],
      swiftSettings: swiftSettings),
    .target(
      name: "MartletServer",
      dependencies: [
        "Martlet", "MartletFormats", "MartletTemplates", "MartletTokenizers", "MartletAnswers", "CMartletLibc", "CMartletPage",
        product("Hummingbird", "hummingbird"), product("HummingbirdCore", "hummingbird"),
        product("HummingbirdTLS", "hummingbird", trait: "TLS"), product("NIOSSL", "swift-nio-ssl", trait: "TLS"),
        product("ServiceLifecycle", "swift-service-lifecycle"), product("AsyncAlgorithms", "swift-async-algorithms"),
        product("Tracing", "swift-distributed-tracing"), product("HTTPTypes", "swift-http-types"),
        product("NIOCore", "swift-nio"), product("NIOPosix", "swift-nio"), product("NIOHTTPTypes", "swift-nio-extras"),
        product("Logging", "swift-log"), product("Metrics", "swift-metrics"),
      ],
      swiftSettings: swiftSettings),
    .executableTarget(
      name: "MartletCLI",
      dependencies: [
        "Martlet", "MartletServer", "MartletCore", "MartletFormats", "MartletTemplates", "MartletTokenizers", "MartletKVCache",
        "MartletAttention",
        "MartletModels", "MartletCPU", "MartletCUDA", "MartletAttentionTestKit",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "Logging", package: "swift-log"),
        product("Hummingbird", "hummingbird"), product("ServiceLifecycle", "swift-service-lifecycle"),
        product("NIOCore", "swift-nio"), product("NIOPosix", "swift-nio"),
        product("NIOHTTP1", "swift-nio"),
      ],
      swiftSettings: swiftSettings),

    .target(
      name: "MartletTestSupport", dependencies: ["Martlet", "MartletFormats", "CMartletLibc"], path: "Tests/MartletTestSupport",
      resources: [.copy("Checkpoints")],
      swiftSettings: swiftSettings),
    .testTarget(
      name: "MartletCLITests",
      dependencies: [
        "MartletCLI", "Martlet", "MartletTemplates", "MartletTokenizers", "MartletAttention", "MartletCPU", "MartletCore",
        "MartletTestSupport",
      ],
      swiftSettings: swiftSettings),
    .testTarget(name: "MartletCoreTests", dependencies: ["MartletCore"], swiftSettings: swiftSettings),
    .testTarget(
      name: "MartletCPUTests",
      dependencies: ["MartletCPU", "MartletCore", "CMartletKernels"],
      resources: [.copy("Fixtures")],
      swiftSettings: swiftSettings),
    // The kernels of GPUs as C++, and a libcuda over them: tests of CUDA need no GPU.
    .target(
      name: "CMartletCUDAEmulator", dependencies: ["CMartletCUDAKernels"], path: "Tests/CUDAEmulator", exclude: ["checks"],
      cSettings: cSettings, cxxSettings: [.headerSearchPath(".")] + cxxSettings),
    .target(
      name: "CMartletCUDAStandIn", dependencies: ["CMartletCUDAKernels", "CMartletCUDAEmulator"], path: "Tests/CUDAStandIn",
      cxxSettings: cxxSettings),
    .testTarget(
      name: "MartletCUDATests",
      dependencies: [
        "MartletCUDA", "Martlet", "MartletAttention", "MartletAttentionTestKit", "MartletKVCache", "MartletCPU", "MartletCore",
        "MartletTestSupport", "CMartletCUDAStandIn",
      ],
      swiftSettings: swiftSettings),
    .testTarget(
      name: "MartletFormatsTests", dependencies: ["MartletFormats", "MartletCore", "MartletTestSupport"],
      swiftSettings: swiftSettings),
    .testTarget(
      name: "MartletTemplatesTests",
      dependencies: ["MartletTemplates", "MartletFormats", "MartletTestSupport"],
      resources: [.copy("Fixtures")],
      swiftSettings: swiftSettings),
    .testTarget(
      name: "MartletTokenizersTests",
      dependencies: ["MartletTokenizers", "MartletTemplates", "MartletFormats", "MartletCore", "MartletTestSupport"],
      resources: [.copy("Fixtures")],
      swiftSettings: swiftSettings),
    .testTarget(
      name: "MartletAnswersTests", dependencies: ["MartletAnswers", "MartletFormats", "MartletTemplates", "MartletTokenizers"],
      resources: [.copy("Fixtures")],
      swiftSettings: swiftSettings),
    .testTarget(
      name: "MartletGrammarTests", dependencies: ["MartletGrammar", "MartletFormats", "MartletTestSupport"], resources: [.copy("Fixtures")],
      swiftSettings: swiftSettings),
    .testTarget(
      name: "MartletKVCacheTests",
      dependencies: ["MartletKVCache", "MartletCore", "MartletCPU", "MartletTestSupport"],
      swiftSettings: swiftSettings),
    .target(name: "CMartletAllocationCounter", path: "Tests/CMartletAllocationCounter", cSettings: cSettings),
    .testTarget(
      name: "MartletAttentionTests",
      dependencies: [
        "MartletAttention", "MartletKVCache", "MartletCore", "MartletCPU", "MartletTestSupport", "CMartletAllocationCounter",
      ],
      swiftSettings: swiftSettings),
    .testTarget(
      name: "MartletAttentionTestKitTests",
      dependencies: ["MartletAttentionTestKit", "MartletAttention", "MartletKVCache", "MartletCore", "MartletCPU", "CMartletLibc"],
      swiftSettings: swiftSettings),
    .testTarget(
      name: "MartletModelsTests",
      dependencies: [
        "MartletModels", "MartletAttention", "MartletKVCache", "MartletFormats", "MartletCore", "MartletCPU", "MartletTestSupport",
        "CMartletLibc",
      ],
      swiftSettings: swiftSettings),
    .testTarget(
      name: "MartletServerTests",
      dependencies: [
        "MartletServer", "Martlet", "MartletFormats", "MartletTemplates", "MartletTokenizers", "MartletAnswers", "MartletTestSupport",
        product("NIOCore", "swift-nio"), product("Metrics", "swift-metrics"),
        product("HTTPTypes", "swift-http-types"),
      ],
      swiftSettings: swiftSettings),
    .testTarget(
      name: "MartletTests",
      dependencies: [
        "Martlet", "MartletAnswers", "MartletTemplates", "MartletTokenizers", "MartletModels", "MartletAttention", "MartletKVCache",
        "MartletFormats", "MartletCore", "MartletCPU", "MartletTestSupport", "CMartletAllocationCounter",
        .product(name: "Logging", package: "swift-log"),
        .product(name: "Metrics", package: "swift-metrics"),
        .product(name: "MetricsTestKit", package: "swift-metrics"),
      ],
      resources: [.copy("Fixtures")],
      swiftSettings: swiftSettings),
  ],
  swiftLanguageModes: [.v6],
  cLanguageStandard: .gnu17,
  // Not C++20, in which headers of other targets are modules that must be built.
  cxxLanguageStandard: .gnucxx17
)

if sanitizer != nil {
  package.targets.removeAll { unsanitized.contains($0.name) }
  package.products.removeAll { $0.name == "martlet" || unsanitized.contains($0.name) }
}
