// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// A text of several lines between `"""` and `"""`.
package enum TextBlock: Sendable, Hashable {
  /// It begins a block that does not end yet.
  case open
  /// It is one, and this is inside.
  case closed(String)
  /// It is none: text like any other, also where a block ends and more follows.
  case none

  private static let mark = "\"\"\""

  /// Whether a block that is open may be something else with one more line: where not, the whole need not be looked at again.
  package static func mayEnd(with line: String) -> Bool { line.contains(mark) }

  package init(_ text: String) {
    let start = text.drop { $0.isWhitespace }
    guard start.hasPrefix(Self.mark) else {
      self = .none
      return
    }
    let inside = start.dropFirst(Self.mark.count)
    let end = inside.reversed().drop { $0.isWhitespace }
    if end.starts(with: Self.mark.reversed()) {
      var text = inside.prefix(end.count - Self.mark.count)
      // The marks may stand on lines of their own.
      if let first = text.firstIndex(of: "\n"), text[..<first].allSatisfy(\.isWhitespace) { text = text[text.index(after: first)...] }
      if text.last == "\n" { text = text.dropLast() }
      self = .closed(String(text))
    } else {
      self = inside.contains(Self.mark) ? .none : .open
    }
  }
}
