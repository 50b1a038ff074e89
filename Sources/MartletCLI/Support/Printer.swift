// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation

/// Prints answers that are written at the same time, in the order of their prompts: the first unfinished one streams, those after it wait.
struct Printer {
  private let prompts: [String]
  private let isSilent: Bool
  private var pending: [String]
  private var isDone: [Bool]
  private var current = 0
  /// Whether the last line that was printed goes on.
  private var isInLine = false
  /// Of standard output at a terminal, which no answer shall command; nil elsewhere, where it is written as it is.
  private var shown: AnswerText?

  init(prompts: [String], isSilent: Bool) {
    self.prompts = prompts
    self.isSilent = isSilent
    pending = prompts.map { prompts.count > 1 ? "[\($0)]\n" : "" }
    isDone = prompts.map { _ in false }
    shown = isatty(1) == 1 ? AnswerText(columns: nil) : nil
  }

  mutating func add(_ text: String, to index: Int, isLast: Bool) throws {
    guard !isSilent else { return }
    pending[index] += isLast ? text + (prompts.count > 1 ? "\n\n" : "\n") : text
    isDone[index] = isDone[index] || isLast
    while current < prompts.count {
      if !pending[current].isEmpty {
        try Terminal.write(shown?.add(pending[current]) ?? pending[current])
        isInLine = pending[current].last?.isNewline == false
      }
      pending[current] = ""
      guard isDone[current] else { return }
      current += 1
    }
  }

  /// Ends the line that was begun, where the answers are not written to their ends.
  /// - Returns: whether there was one.
  mutating func stop() throws -> Bool {
    defer { isInLine = false }
    if isInLine { try Terminal.write("\n") }
    return isInLine
  }
}
