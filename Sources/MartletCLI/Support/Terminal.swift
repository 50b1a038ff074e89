// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import ArgumentParser
import Foundation

/// Standard output is for results, standard error for everything that a person wants to know meanwhile. Neither is buffered.
enum Terminal {
  /// As it is, byte for byte. Where nobody reads it any more (`martlet generate … | head -1`), the command ends as a signal would have ended it,
  /// also where that signal is ignored: without a word.
  static func write(_ text: String) throws {
    do {
      try FileHandle.standardOutput.write(contentsOf: Data(text.utf8))
    } catch {
      let code = ((error as NSError).userInfo[NSUnderlyingErrorKey] as? NSError ?? error as NSError).code
      if code == EPIPE { throw ExitCode(128 + SIGPIPE) }
      throw CommandError("standard output cannot be written: \(CommandError.reason(error))")
    }
  }

  /// Text of a model or of a file: at a terminal its control characters are shown and not sent, else it is written as it is.
  static func show(_ text: String) throws {
    var shown = AnswerText(columns: nil)
    try write(isatty(1) == 1 ? shown.add(text) : text)
  }

  /// A line on standard error; at a terminal it is broken between words.
  static func note(_ line: String) {
    var line = line
    if let columns = TerminalModes.size(of: 2)?.columns {
      var text = AnswerText(columns: columns)
      line = text.add(line)
    }
    try? FileHandle.standardError.write(contentsOf: Data((line + "\n").utf8))
  }

  /// What stands before a person's line, on standard error.
  static func prompt(_ text: String) {
    try? FileHandle.standardError.write(contentsOf: Data(text.utf8))
  }

  /// One JSON object on one line of standard output.
  static func writeJSON(_ value: some Encodable) throws {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    try write(String(decoding: try encoder.encode(value), as: UTF8.self) + "\n")
  }
}

/// What goes on, on standard error, once it takes longer than a second: one line that is written over on a terminal, and elsewhere a line
/// every few seconds.
final class ProgressLine {
  private let isTerminal: Bool
  private let write: (String) -> Void
  private let start = ContinuousClock.now
  private var nextLine: ContinuousClock.Instant
  private var isShown = false

  /// - Parameter isTerminal: whether standard error is one, or is passed on to one.
  convenience init(isTerminal: Bool = isatty(2) == 1) {
    self.init(isTerminal: isTerminal) { try? FileHandle.standardError.write(contentsOf: Data($0.utf8)) }
  }

  /// Lines for a log, which others write to as well.
  convenience init(log: @escaping (String) -> Void) { self.init(isTerminal: false) { log(String($0.dropLast())) } }

  private init(isTerminal: Bool, write: @escaping (String) -> Void) {
    self.isTerminal = isTerminal
    self.write = write
    nextLine = start + .seconds(1)
  }

  func show(_ text: @autoclosure () -> String) {
    let now = ContinuousClock.now
    guard now >= nextLine else { return }
    nextLine = now + (isTerminal ? .milliseconds(100) : .seconds(5))
    isShown = true
    let line = text()
    write(isTerminal ? "\r\u{1B}[K\(line)" : "\(line)\n")
  }

  /// Takes the line away before something else is written.
  func clear() {
    guard isShown, isTerminal else { return }
    isShown = false
    write("\r\u{1B}[K")
  }
}

extension Duration {
  var seconds: Double { Double(components.seconds) + Double(components.attoseconds) * 1e-18 }
}
