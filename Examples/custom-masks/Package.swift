// swift-tools-version: 6.2
// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
import PackageDescription

let package = Package(
  name: "custom-masks",
  dependencies: [.package(name: "martlet", path: "../..")],
  targets: [
    .executableTarget(
      name: "custom-masks",
      dependencies: [
        .product(name: "MartletAttention", package: "martlet"), .product(name: "MartletCore", package: "martlet"),
        .product(name: "MartletCPU", package: "martlet"),
      ])
  ],
  swiftLanguageModes: [.v6]
)
