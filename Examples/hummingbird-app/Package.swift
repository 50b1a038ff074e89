// swift-tools-version: 6.2
// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
import PackageDescription

let package = Package(
  name: "hummingbird-app",
  dependencies: [
    .package(name: "martlet", path: "../..", traits: ["HTTPServer"]),
    .package(url: "https://github.com/hummingbird-project/hummingbird", from: "2.28.1", traits: []),
  ],
  targets: [
    .executableTarget(
      name: "hummingbird-app",
      dependencies: [
        .product(name: "Martlet", package: "martlet"), .product(name: "MartletServer", package: "martlet"),
        .product(name: "Hummingbird", package: "hummingbird"),
      ])
  ],
  swiftLanguageModes: [.v6]
)
