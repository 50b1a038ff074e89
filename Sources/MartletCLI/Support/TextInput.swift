// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import ArgumentParser
import Foundation
import Martlet

/// A text that a command works on: from a file, or from standard input, which is written `-`.
enum TextInput {
  static let standard = "-"

  /// Whether what comes on standard input is meant, where nothing else is named: at a terminal nothing comes by itself.
  static var comesByItself: Bool { isatty(0) == 0 }

  /// - Parameter what: what the text is, for errors.
  static func text(of path: String, what: String) throws -> String {
    let name = path == standard ? "standard input" : "the \(what) \"\(path)\""
    let data: Data
    do {
      data =
        path == standard
        ? try FileHandle.standardInput.read(upToCount: LLM.mostTextBytes + 1) ?? Data()
        : try FileHandle(forReadingFrom: URL(fileURLWithPath: path)).read(upToCount: LLM.mostTextBytes + 1) ?? Data()
    } catch {
      throw CommandError("\(name) cannot be read: \(CommandError.reason(error))")
    }
    guard data.count <= LLM.mostTextBytes else {
      throw CommandError("\(name) has more than \(LLM.mostTextBytes) bytes; give a part of it")
    }
    guard let text = String(validating: data, as: UTF8.self) else { throw CommandError("\(name) is not UTF-8") }
    return text
  }

  /// Without the line feed that an editor or `echo` puts at the end of a text, which is hardly meant as its last letter.
  static func withoutFinalNewline(_ text: String) -> String {
    var text = text
    if let last = text.last, last == "\n" || last == "\r\n" { text.removeLast() }
    return text
  }
}
