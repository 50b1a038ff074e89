// swift-tools-version: 6.2
import PackageDescription

let package = Package(
  name: "generate",
  dependencies: [.package(name: "martlet", path: "../..")],
  targets: [.executableTarget(name: "generate", dependencies: [.product(name: "Martlet", package: "martlet")])],
  swiftLanguageModes: [.v6]
)
