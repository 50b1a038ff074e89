// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import MartletTestSupport
import Testing

/// The built `martlet`, run as a person runs it.
struct CommandLine {
  struct Result {
    var status: Int32
    var output: String
    var error: String

    /// Standard output as one JSON object.
    func json<Value: Decodable>(_ type: Value.Type = Value.self) throws -> Value {
      try JSONDecoder().decode(type, from: Data(output.utf8))
    }
  }

  /// It lies beside the test bundle, in the build folder.
  static func executable() throws -> String {
    // Of this process's own arguments and its bundle, one is in the build folder.
    let places = [Bundle.main.bundlePath, Bundle.main.executablePath ?? ""] + ProcessInfo.processInfo.arguments
    for place in places where place.hasPrefix("/") {
      var folder = URL(fileURLWithPath: place)
      for _ in 0..<4 {
        let file = folder.appendingPathComponent("martlet").path
        var isDirectory: ObjCBool = false
        if FileManager.default.fileExists(atPath: file, isDirectory: &isDirectory), !isDirectory.boolValue { return file }
        folder.deleteLastPathComponent()
      }
    }
    throw NotFound(places: places)
  }

  struct NotFound: Error { var places: [String] }

  static func run(_ arguments: [String], environment: [String: String] = [:]) throws -> Result {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: try executable())
    process.arguments = arguments
    process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
    process.standardInput = FileHandle.nullDevice
    // Files, not pipes: neither output can fill up and stop the process.
    let folder = try TemporaryFolder()
    let files = ["output", "error"].map { folder.path + "/" + $0 }
    for file in files { try Data().write(to: URL(fileURLWithPath: file)) }
    process.standardOutput = FileHandle(forWritingAtPath: files[0])
    process.standardError = FileHandle(forWritingAtPath: files[1])
    try process.run()
    process.waitUntilExit()
    let texts = try files.map { String(decoding: try Data(contentsOf: URL(fileURLWithPath: $0)), as: UTF8.self) }
    return Result(status: process.terminationStatus, output: texts[0], error: texts[1])
  }
}

/// A new folder, gone with its last reference.
final class TemporaryFolder {
  let path = NSTemporaryDirectory() + "martlet-cli-" + UUID().uuidString

  init() throws { try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true) }
  deinit { try? FileManager.default.removeItem(atPath: path) }

  func write(_ text: String, to name: String) throws -> String {
    try Data(text.utf8).write(to: URL(fileURLWithPath: path + "/" + name))
    return path + "/" + name
  }
}
