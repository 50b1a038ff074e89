// swift-tools-version: 6.2
// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
import PackageDescription

let package = Package(
  name: "chat-service",
  dependencies: [.package(name: "martlet", path: "../..")],
  targets: [.executableTarget(name: "chat-service", dependencies: [.product(name: "Martlet", package: "martlet")])],
  swiftLanguageModes: [.v6]
)
