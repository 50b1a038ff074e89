// swift-tools-version: 6.2
// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
import PackageDescription

let package = Package(
  name: "grammar-bench",
  dependencies: [.package(name: "martlet", path: "../..")],
  targets: [
    .executableTarget(
      name: "grammar-bench",
      dependencies: [.product(name: "Martlet", package: "martlet"), .product(name: "MartletGrammar", package: "martlet")])
  ],
  swiftLanguageModes: [.v6]
)
