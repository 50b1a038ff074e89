// swift-tools-version: 6.2
// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
import PackageDescription

let package = Package(
  name: "custom-backend",
  dependencies: [.package(name: "martlet", path: "../..")],
  targets: [
    .target(name: "CExampleAttention"),
    .executableTarget(
      name: "custom-backend",
      dependencies: [
        "CExampleAttention",
        .product(name: "Martlet", package: "martlet"),
        .product(name: "MartletAttention", package: "martlet"),
        .product(name: "MartletAttentionTestKit", package: "martlet"),
        .product(name: "MartletCore", package: "martlet"),
        .product(name: "MartletCPU", package: "martlet"),
      ]),
  ],
  swiftLanguageModes: [.v6]
)
