// swift-tools-version: 6.2
import PackageDescription

/// Set `MARTLET_WARNINGS_AS_ERRORS=1` to make every Swift and C warning of this package an error (CI does).
let warningsAsErrors = Context.environment["MARTLET_WARNINGS_AS_ERRORS"] == "1"

/// Set `MARTLET_SANITIZED=1` to leave out what no sanitizer runs: the command line, and the tests of it, of the test kit and of templates, whose
/// fuzzer runs under one.
let isSanitized = Context.environment["MARTLET_SANITIZED"] == "1"
let unsanitized: Set = [
  "MartletCLI", "MartletCLITests", "MartletAttentionTestKit", "MartletAttentionTestKitTests", "MartletTemplatesTests",
]

let swiftSettings: [SwiftSetting] =
  [
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
  ] + (warningsAsErrors ? [.treatAllWarnings(as: .error)] : [])

let cSettings: [CSetting] = warningsAsErrors ? [.treatAllWarnings(as: .error)] : []

let package = Package(
  name: "martlet",
  products: [
    .library(name: "Martlet", targets: ["Martlet", "MartletAnswers", "MartletFormats", "MartletModels", "MartletTemplates", "MartletTokenizers"]),
    .library(name: "MartletCore", targets: ["MartletCore"]),
    .library(name: "MartletAttention", targets: ["MartletAttention", "MartletKVCache"]),
    .library(name: "MartletAttentionTestKit", targets: ["MartletAttentionTestKit"]),
    .library(name: "MartletCPU", targets: ["MartletCPU"]),
    .executable(name: "martlet", targets: ["MartletCLI"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.0"),
    .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
    .package(url: "https://github.com/apple/swift-log", from: "1.16.0"),
    .package(url: "https://github.com/apple/swift-metrics", from: "2.13.0"),
  ],
  targets: [
    .target(name: "CMartletKernels", cSettings: cSettings),
    .target(name: "CMartletLibc", cSettings: cSettings),
    .target(name: "MartletCore", swiftSettings: swiftSettings),
    .target(name: "MartletCPU", dependencies: ["MartletCore", "CMartletKernels", "CMartletLibc"], swiftSettings: swiftSettings),
    .target(name: "MartletFormats", dependencies: ["MartletCore", "CMartletLibc"], swiftSettings: swiftSettings),
    .target(name: "MartletTemplates", dependencies: ["CMartletLibc"], swiftSettings: swiftSettings),
    .target(
      name: "MartletTokenizers", dependencies: ["MartletCore", "MartletFormats", "MartletTemplates"], swiftSettings: swiftSettings),
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
        "MartletCore", "MartletFormats", "MartletTemplates", "MartletTokenizers", "MartletAnswers", "MartletKVCache", "MartletAttention",
        "MartletModels", "MartletCPU", "CMartletLibc",
        .product(name: "Logging", package: "swift-log"),
        .product(name: "Metrics", package: "swift-metrics"),
        .product(name: "DequeModule", package: "swift-collections"),
      ],
      swiftSettings: swiftSettings),
    .executableTarget(
      name: "MartletCLI",
      dependencies: [
        "Martlet", "MartletCore", "MartletFormats", "MartletTemplates", "MartletTokenizers", "MartletKVCache", "MartletAttention",
        "MartletModels", "MartletCPU", "MartletAttentionTestKit",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "Logging", package: "swift-log"),
      ],
      swiftSettings: swiftSettings),

    .target(
      name: "MartletTestSupport", dependencies: ["Martlet", "MartletFormats"], path: "Tests/MartletTestSupport",
      resources: [.copy("Checkpoints")],
      swiftSettings: swiftSettings),
    .testTarget(
      name: "MartletCLITests",
      dependencies: ["MartletCLI", "Martlet", "MartletTemplates", "MartletTokenizers", "MartletAttentionTestKit", "MartletTestSupport"],
      swiftSettings: swiftSettings),
    .testTarget(name: "MartletCoreTests", dependencies: ["MartletCore"], swiftSettings: swiftSettings),
    .testTarget(
      name: "MartletCPUTests",
      dependencies: ["MartletCPU", "MartletCore", "CMartletKernels"],
      resources: [.copy("Fixtures")],
      swiftSettings: swiftSettings),
    .testTarget(
      name: "MartletFormatsTests", dependencies: ["MartletFormats", "MartletCore", "MartletTestSupport"],
      swiftSettings: swiftSettings),
    .testTarget(
      name: "MartletTemplatesTests",
      dependencies: ["MartletTemplates", "MartletFormats"],
      resources: [.copy("Fixtures")],
      swiftSettings: swiftSettings),
    .testTarget(
      name: "MartletTokenizersTests",
      dependencies: ["MartletTokenizers", "MartletTemplates", "MartletFormats", "MartletCore", "MartletTestSupport", "CMartletLibc"],
      resources: [.copy("Fixtures")],
      swiftSettings: swiftSettings),
    .testTarget(
      name: "MartletAnswersTests", dependencies: ["MartletAnswers", "MartletFormats", "MartletTemplates", "MartletTokenizers"],
      resources: [.copy("Fixtures")],
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
      dependencies: ["MartletAttentionTestKit", "MartletAttention", "MartletKVCache", "MartletCore", "MartletCPU"],
      swiftSettings: swiftSettings),
    .testTarget(
      name: "MartletModelsTests",
      dependencies: [
        "MartletModels", "MartletAttention", "MartletKVCache", "MartletFormats", "MartletCore", "MartletCPU", "MartletTestSupport",
        "CMartletLibc",
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
  cLanguageStandard: .gnu17
)

if isSanitized {
  package.targets.removeAll { unsanitized.contains($0.name) }
  package.products.removeAll { $0.name == "martlet" || unsanitized.contains($0.name) }
}
