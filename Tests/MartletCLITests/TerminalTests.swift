// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import MartletTestSupport
import Testing

/// `martlet chat` at a terminal: a Python script has the pseudo-terminal, presses the keys and reads the screen.
@Suite struct TerminalTests {
  @Test func `a chat at a terminal edits, pastes, interrupts, suspends, and gives the terminal back`() async throws {
    let model = try await RealModelFile.path("smollm2-135m")
    let script = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("../../Scripts/check-chat-pty.py").path
    let process = Process()
    let output = Pipe()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = ["python3", script, try CommandLine.executable(), model]
    process.standardInput = FileHandle.nullDevice
    process.standardOutput = output
    process.standardError = output
    try process.run()
    let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    process.waitUntilExit()
    #expect(process.terminationStatus == 0 && text.hasSuffix(", 0 failed\n"), "\(text)")
  }

  /// Runs `martlet` with its standard output at a pseudo-terminal.
  private func atTerminal(_ arguments: [String]) throws -> String {
    let process = Process()
    let output = Pipe()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments =
      ["python3", "-c", "import pty, sys; pty.spawn(sys.argv[1:])", "/bin/sh", "-c", #"exec "$@" 2> /dev/null"#, "sh"]
      + [try CommandLine.executable()] + arguments
    process.standardInput = FileHandle.nullDevice
    process.standardOutput = output
    try process.run()
    let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    process.waitUntilExit()
    return text
  }

  @Test func `control characters of a model are shown at a terminal, and written as they are elsewhere`() async throws {
    struct Tokens: Decodable { var token_ids: [Int] }
    let model = try await RealModelFile.path("smollm2-135m")
    let escape = try CommandLine.run(["tokenize", "--model", model, "\u{1B}", "--json"]).json(Tokens.self).token_ids
    try #require(escape.count == 1)
    // The model writes nothing else.
    let arguments = ["generate", "Hello", "--model", model, "--max-tokens", "3", "--logit-bias", "\(escape[0])=100"]
    let raw = String(repeating: "\u{1B}", count: 3)
    #expect(try CommandLine.run(arguments).output == raw + "\n")
    // The terminal puts a carriage return before a line feed.
    #expect(try atTerminal(arguments) == "^[^[^[\r\n")
    let folder = try TemporaryFolder()
    let messages = try folder.write(##"[{"role": "user", "content": "a\u001b[2Jb"}]"##, to: "messages.json")
    let render = ["render", "--messages", messages, "--model", model]
    #expect(try atTerminal(render).contains("a^[[2Jb") && CommandLine.run(render).output.contains("a\u{1B}[2Jb"))
  }
}
