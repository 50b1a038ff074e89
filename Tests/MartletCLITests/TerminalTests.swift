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
}
