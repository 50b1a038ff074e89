// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// A Jinja program cut into its pieces: the text outside its tags, and the strings and names inside them. It is read, never run.
///
/// Enough to see which marks a chat template writes and what stands beside them; comments are left out.
struct JinjaSource {
  enum Token: Equatable {
    /// A string literal, its escapes resolved.
    case string(String)
    /// A variable, attribute, filter or keyword.
    case name(String)
    case symbol(Unicode.Scalar)
  }

  enum Piece: Equatable {
    /// Text outside tags.
    case text(String)
    /// `{{ … }}`
    case expression([Token])
    /// `{% … %}`
    case statement([Token])
  }

  let pieces: [Piece]

  init(_ source: String) {
    var pieces: [Piece] = []
    var plain = String.UnicodeScalarView()
    var rest = Array(source.unicodeScalars)[...]
    while let scalar = rest.popFirst() {
      guard scalar == "{", let next = rest.first, next == "{" || next == "%" || next == "#" else {
        plain.append(scalar)
        continue
      }
      if !plain.isEmpty { pieces.append(.text(String(plain))) }
      plain = String.UnicodeScalarView()
      rest.removeFirst()
      switch next {
      case "{": pieces.append(.expression(Self.popTag(&rest, close: "}")))
      case "%": pieces.append(.statement(Self.popTag(&rest, close: "%")))
      default:
        while let scalar = rest.popFirst(), !(scalar == "#" && rest.first == "}") {}
        rest = rest.dropFirst()
      }
    }
    if !plain.isEmpty { pieces.append(.text(String(plain))) }
    self.pieces = pieces
  }

  /// The tokens up to the tag's end; the dashes that strip the space around a tag are no tokens.
  private static func popTag(_ rest: inout ArraySlice<Unicode.Scalar>, close: Unicode.Scalar) -> [Token] {
    var tokens: [Token] = []
    if rest.first == "-" || rest.first == "+" { rest.removeFirst() }
    while let scalar = rest.popFirst() {
      if scalar == close, rest.first == "}" {
        rest.removeFirst()
        break
      }
      if scalar == "-", rest.first == close, rest.dropFirst().first == "}" { continue }
      if scalar == "'" || scalar == "\"" {
        tokens.append(.string(popString(&rest, quote: scalar)))
      } else if isNamePart(scalar) {
        var name = String.UnicodeScalarView([scalar])
        while let next = rest.first, isNamePart(next) {
          name.append(next)
          rest.removeFirst()
        }
        tokens.append(.name(String(name)))
      } else if !scalar.properties.isWhitespace {
        tokens.append(.symbol(scalar))
      }
    }
    return tokens
  }

  private static func isNamePart(_ scalar: Unicode.Scalar) -> Bool {
    scalar == "_" || ("0"..."9").contains(scalar) || ("A"..."Z").contains(scalar) || ("a"..."z").contains(scalar)
  }

  private static func popString(_ rest: inout ArraySlice<Unicode.Scalar>, quote: Unicode.Scalar) -> String {
    var string = String.UnicodeScalarView()
    while let scalar = rest.popFirst(), scalar != quote {
      guard scalar == "\\", let escaped = rest.popFirst() else {
        string.append(scalar)
        continue
      }
      switch escaped {
      case "n": string.append("\n")
      case "t": string.append("\t")
      case "r": string.append("\r")
      default: string.append(escaped)
      }
    }
    return String(string)
  }
}

extension JinjaSource {
  /// The string literals and the plain texts, in the program's order.
  var strings: [String] {
    pieces.flatMap { piece -> [String] in
      switch piece {
      case .text(let text): [text]
      case .expression(let tokens), .statement(let tokens): tokens.compactMap(\.string)
      }
    }
  }

  /// The tags that write something.
  var expressions: [[Token]] { pieces.compactMap { if case .expression(let tokens) = $0 { tokens } else { nil } } }

  /// Whether a string or a plain text holds `part`.
  func writes(_ part: String) -> Bool { strings.contains { $0.contains(part) } }

  /// Whether a tag speaks of the variable `name`.
  func mentions(_ name: String) -> Bool {
    pieces.contains { piece in
      switch piece {
      case .text: false
      case .expression(let tokens), .statement(let tokens): tokens.contains(.name(name))
      }
    }
  }

  /// The string that `{% set name = '…' %}` gives a variable; what a condition that is never true guards does not count.
  func string(assignedTo name: String) -> String? {
    var previous: [Token] = []
    for piece in pieces {
      guard case .statement(let tokens) = piece else { continue }
      // Llama 2's template keeps its default behind `false == true`; a `set` may stand between.
      if tokens.first == .name("if") || tokens.first == .name("elif") || tokens.first == .name("else") { previous = tokens }
      if tokens.count == 4, tokens[0] == .name("set"), tokens[1] == .name(name), tokens[2] == .symbol("="),
        let string = tokens[3].string, !string.isEmpty, !previous.contains(.name("false"))
      {
        return string
      }
    }
    return nil
  }
}

extension JinjaSource.Token {
  var string: String? { if case .string(let string) = self { string } else { nil } }
}
