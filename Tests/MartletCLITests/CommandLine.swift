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

  /// - Parameters:
  ///   - input: what stands on standard input; nil is nothing.
  ///   - directory: the folder that it runs in; nil is this process's own.
  static func run(
    _ arguments: [String], environment: [String: String] = [:], input: String? = nil, directory: String? = nil
  ) throws -> Result {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: try executable())
    process.arguments = arguments
    process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
    if let directory { process.currentDirectoryURL = URL(fileURLWithPath: directory) }
    // Files, not pipes: neither output can fill up and stop the process.
    let folder = try TemporaryFolder()
    process.standardInput = try input.map { FileHandle(forReadingAtPath: try folder.write($0, to: "input")) } ?? FileHandle.nullDevice
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

/// A `martlet` that runs beside the test: lines can be sent and outputs looked at meanwhile.
final class Child {
  private let process = Process()
  private let input = Pipe()
  private let folder: TemporaryFolder

  init(_ arguments: [String]) throws {
    folder = try TemporaryFolder()
    process.executableURL = URL(fileURLWithPath: try CommandLine.executable())
    process.arguments = arguments
    process.standardInput = input
    process.standardOutput = FileHandle(forWritingAtPath: try folder.write("", to: "output"))
    process.standardError = FileHandle(forWritingAtPath: try folder.write("", to: "error"))
    try process.run()
  }

  deinit { if process.isRunning { process.terminate() } }

  func send(_ text: String) { try? input.fileHandleForWriting.write(contentsOf: Data(text.utf8)) }

  /// As Ctrl-C does.
  func interrupt() { process.interrupt() }

  var output: String { text(of: "output") }
  var error: String { text(of: "error") }

  private func text(of name: String) -> String {
    FileManager.default.contents(atPath: folder.path + "/" + name).map { String(decoding: $0, as: UTF8.self) } ?? ""
  }

  // A busy machine may be slow; a minute passes only where the test fails.
  func waitForOutput(_ holds: (String) -> Bool) -> Bool { wait { holds(output) } }
  func waitForError(_ holds: (String) -> Bool) -> Bool { wait { holds(error) } }

  /// The exit status; nil if it does not end.
  func waitForExit() -> Int32? { wait { !process.isRunning } ? process.terminationStatus : nil }

  private func wait(_ holds: () -> Bool) -> Bool {
    for _ in 0..<1200 {
      if holds() { return true }
      Thread.sleep(forTimeInterval: 0.05)
    }
    return false
  }
}
