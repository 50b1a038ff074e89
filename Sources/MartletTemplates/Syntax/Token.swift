// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// A place in a program, from 1.
struct Position: Sendable, Hashable {
  var line: Int32
  var column: Int32
}

struct Token: Sendable {
  enum Kind: Sendable, Hashable {
    /// Text outside of tags.
    case data(String)
    /// `{{`, `}}`
    case expressionBegin, expressionEnd
    /// `{%`, `%}`
    case statementBegin, statementEnd
    case name(String)
    case string(String)
    case integer(Int)
    /// Beyond 64 bits.
    case largeInteger(LargeInteger)
    case float(Double)
    case symbol(String)
    case end
  }

  var kind: Kind
  var position: Position

  func isSymbol(_ symbol: String) -> Bool { if case .symbol(symbol) = kind { true } else { false } }
  func isName(_ name: String) -> Bool { if case .name(name) = kind { true } else { false } }

  /// For messages.
  var description: String {
    switch kind {
    case .data: "template text"
    case .expressionBegin: "begin of print statement"
    case .expressionEnd: "end of print statement"
    case .statementBegin: "begin of statement block"
    case .statementEnd: "end of statement block"
    case .name(let name): name
    case .string(let string): string
    case .integer(let value): "\(value)"
    case .largeInteger(let value): value.digits()
    case .float(let value): "\(value)"
    case .symbol(let symbol): symbol
    case .end: "end of template"
    }
  }
}
