// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Cuts a program into tokens as Jinja does with `trim_blocks` and `lstrip_blocks`, which transformers sets.
///
/// White space around tags is decided here and nowhere else: a newline right after `%}` or `#}` goes; so does white space from the line's start up
/// to `{%` or `{#`; `-` takes all white space on its side, and `+` leaves it.
struct Lexer {
  private let source: [Unicode.Scalar]
  private var index = 0
  private var tokens: [Token] = []
  private var line: Int32 = 1
  private var lineStart = 0
  /// Up to where lines have been counted.
  private var counted = 0
  /// Names of characters (`\N{…}`) that were looked up, each a walk through Unicode.
  private var namedCharacters = 0

  static func tokens(of program: String) throws(TemplateError) -> [Token] {
    var lexer = Lexer(program)
    try lexer.run()
    return lexer.tokens
  }

  private init(_ program: String) {
    var scalars: [Unicode.Scalar] = []
    scalars.reserveCapacity(program.utf8.count)
    var isAfterReturn = false
    for scalar in program.unicodeScalars {
      if scalar == "\r" {
        scalars.append("\n")
      } else if scalar != "\n" || !isAfterReturn {
        scalars.append(scalar)
      }
      isAfterReturn = scalar == "\r"
    }
    if scalars.last == "\n" { scalars.removeLast() }
    source = scalars
  }

  // MARK: Places

  /// Of an index that is not before one asked for earlier.
  private mutating func position(_ index: Int) -> Position {
    while counted < index {
      if source[counted] == "\n" {
        line += 1
        lineStart = counted + 1
      }
      counted += 1
    }
    return Position(line: line, column: Int32(max(0, index - lineStart)) + 1)
  }

  private mutating func fail(_ message: String, at index: Int) -> TemplateError {
    let place = position(max(index, counted))
    return TemplateError(.syntax, message, line: Int(place.line), column: Int(place.column))
  }

  private func at(_ index: Int) -> Unicode.Scalar? { index < source.count ? source[index] : nil }

  private func has(_ text: StaticString, at index: Int) -> Bool {
    let count = text.utf8CodeUnitCount
    guard index + count <= source.count else { return false }
    for offset in 0..<count where source[index + offset].value != UInt32(text.utf8Start[offset]) { return false }
    return true
  }

  private func skippingSpace(from index: Int) -> Int {
    var index = index
    while let scalar = at(index), scalar.isPythonSpace { index += 1 }
    return index
  }

  // MARK: Outside of tags

  private enum Tag { case expression, statement, comment, raw(bodyStart: Int) }

  private mutating func run() throws(TemplateError) {
    // Whether the text so far ends a line, so that white space that follows stands at a line's start.
    var startsLine = true
    while index < source.count {
      let textStart = index
      guard let (tag, tagStart) = nextTag(from: index) else {
        emit(textStart..<source.count)
        index = source.count
        break
      }
      let sign = at(tagStart + 2)
      var isVariable = false
      if case .expression = tag { isVariable = true }
      emit(textStart..<textEnd(textStart, tagStart, sign: sign, stripsLine: !isVariable, startsLine: startsLine))
      index = tagStart + 2 + (sign == "-" || sign == "+" ? 1 : 0)
      switch tag {
      case .comment: try skipComment(from: tagStart)
      case .raw(let bodyStart): try readRaw(bodyStart, tagStart)
      case .expression: try readTag(isStatement: false, tagStart)
      case .statement: try readTag(isStatement: true, tagStart)
      }
      startsLine = index > 0 && source[index - 1] == "\n"
    }
    tokens.append(Token(kind: .end, position: position(source.count)))
  }

  private func nextTag(from start: Int) -> (Tag, Int)? {
    var index = start
    while index + 1 < source.count {
      if source[index] == "{" {
        switch source[index + 1] {
        case "{": return (.expression, index)
        case "#": return (.comment, index)
        case "%":
          if let bodyStart = rawBodyStart(at: index) { return (.raw(bodyStart: bodyStart), index) }
          return (.statement, index)
        default: break
        }
      }
      index += 1
    }
    return nil
  }

  /// Where the text begins that `{% raw %}` at `index` leaves alone; a newline after it stays.
  private func rawBodyStart(at index: Int) -> Int? {
    var index = index + 2
    if at(index) == "-" || at(index) == "+" { index += 1 }
    index = skippingSpace(from: index)
    guard has("raw", at: index) else { return nil }
    index = skippingSpace(from: index + 3)
    if has("-%}", at: index) { return skippingSpace(from: index + 3) }
    return has("%}", at: index) ? index + 2 : nil
  }

  /// Where the text before a tag ends, once the tag has taken its white space.
  private func textEnd(_ start: Int, _ end: Int, sign: Unicode.Scalar?, stripsLine: Bool, startsLine: Bool) -> Int {
    var position = end
    if sign == "-" {
      while position > start, source[position - 1].isPythonSpace { position -= 1 }
      return position
    }
    guard sign != "+", stripsLine else { return end }
    while position > start, source[position - 1] != "\n" {
      guard source[position - 1].isPythonSpace else { return end }
      position -= 1
    }
    return position > start || startsLine ? position : end
  }

  private mutating func emit(_ range: Range<Int>) {
    guard !range.isEmpty else { return }
    var text = String.UnicodeScalarView()
    text.append(contentsOf: source[range])
    tokens.append(Token(kind: .data(String(text)), position: position(range.lowerBound)))
  }

  private mutating func skipComment(from start: Int) throws(TemplateError) {
    var end = index
    while !has("#}", at: end) {
      guard end < source.count else { throw fail("Missing end of comment tag", at: start) }
      end += 1
    }
    index = after(end, isStripped: end > index && source[end - 1] == "-", isKept: end > index && source[end - 1] == "+")
  }

  /// After a tag whose two closing characters stand at `end`.
  private func after(_ end: Int, isStripped: Bool, isKept: Bool) -> Int {
    if isStripped { return skippingSpace(from: end + 2) }
    return end + 2 + (!isKept && at(end + 2) == "\n" ? 1 : 0)
  }

  private mutating func readRaw(_ bodyStart: Int, _ tagStart: Int) throws(TemplateError) {
    var position = bodyStart
    while position < source.count {
      if has("{%", at: position) {
        var name = position + 2
        let sign = at(name)
        if sign == "-" || sign == "+" { name += 1 }
        name = skippingSpace(from: name)
        if has("endraw", at: name) {
          let close = skippingSpace(from: name + 6)
          let hasSign = at(close) == "-" || at(close) == "+"
          let end = hasSign ? close + 1 : close
          if has("%}", at: end) {
            emit(bodyStart..<textEnd(bodyStart, position, sign: sign, stripsLine: true, startsLine: source[bodyStart - 1] == "\n"))
            index = after(end, isStripped: at(close) == "-", isKept: at(close) == "+")
            return
          }
        }
      }
      position += 1
    }
    throw fail("Missing end of raw directive", at: tagStart)
  }

  // MARK: Inside of tags

  private static let closing: [String: String] = [")": "(", "]": "[", "}": "{"]

  private mutating func readTag(isStatement: Bool, _ tagStart: Int) throws(TemplateError) {
    tokens.append(Token(kind: isStatement ? .statementBegin : .expressionBegin, position: position(tagStart)))
    var open: [String] = []
    while true {
      guard let scalar = at(index) else {
        throw fail("unexpected end of template, expected '\(isStatement ? "end of statement block" : "end of print statement")'", at: index)
      }
      if open.isEmpty, let end = tagEnd(isStatement) {
        tokens.append(Token(kind: isStatement ? .statementEnd : .expressionEnd, position: position(index)))
        index = end
        return
      }
      let start = index
      if scalar.isPythonSpace {
        index += 1
        continue
      }
      var kind = try number()
      if kind == nil { kind = name() }
      if kind == nil { kind = try string() }
      if let kind {
        tokens.append(Token(kind: kind, position: position(start)))
        continue
      }
      let symbol = try symbol()
      switch symbol {
      case "(", "[", "{": open.append(symbol)
      case ")", "]", "}":
        guard open.popLast() == Self.closing[symbol] else { throw fail("unexpected '\(symbol)'", at: start) }
      default: break
      }
      tokens.append(Token(kind: .symbol(symbol), position: position(start)))
    }
  }

  private func tagEnd(_ isStatement: Bool) -> Int? {
    if isStatement {
      if has("+%}", at: index) { return index + 3 }
      if has("-%}", at: index) { return skippingSpace(from: index + 3) }
      if has("%}", at: index) { return index + 2 + (at(index + 2) == "\n" ? 1 : 0) }
    } else {
      if has("-}}", at: index) { return skippingSpace(from: index + 3) }
      if has("}}", at: index) { return index + 2 }
    }
    return nil
  }

  private static let symbols = ["//", "**", "==", "!=", ">=", "<="]

  private mutating func symbol() throws(TemplateError) -> String {
    if let scalar = at(index), let next = at(index + 1) {
      let pair = String(scalar) + String(next)
      if Self.symbols.contains(pair) {
        index += 2
        return pair
      }
    }
    let scalar = source[index]
    guard "+-/*%~[](){}<>=.:|,;".unicodeScalars.contains(scalar) else {
      throw fail("unexpected char '\(String(scalar))'", at: index)
    }
    index += 1
    return String(scalar)
  }

  private mutating func name() -> Token.Kind? {
    func isNamePart(_ scalar: Unicode.Scalar) -> Bool {
      if scalar.value < 0x80 { return scalar == "_" || scalar.properties.isAlphabetic || ("0"..."9").contains(scalar) }
      switch scalar.properties.generalCategory {
      case .uppercaseLetter, .lowercaseLetter, .titlecaseLetter, .modifierLetter, .otherLetter, .decimalNumber, .letterNumber, .otherNumber:
        return true
      default: return false
      }
    }
    let start = index
    while let scalar = at(index), isNamePart(scalar) { index += 1 }
    guard index > start else { return nil }
    var text = String.UnicodeScalarView()
    text.append(contentsOf: source[start..<index])
    return .name(String(text))
  }

  // MARK: Numbers

  private mutating func number() throws(TemplateError) -> Token.Kind? {
    guard let first = at(index), ("0"..."9").contains(first) else { return nil }
    if let float = float() { return float }
    let start = index
    var radix = 10
    if first == "0", let mark = at(index + 1) {
      radix = mark == "x" || mark == "X" ? 16 : mark == "o" || mark == "O" ? 8 : mark == "b" || mark == "B" ? 2 : 10
    }
    var digits = ""
    var position = radix == 10 ? index : index + 2
    func isDigit(_ scalar: Unicode.Scalar?) -> Bool {
      guard let scalar, scalar.value < 0x80, let value = Int(String(scalar), radix: 16), scalar != "+", scalar != "-" else { return false }
      // A decimal number that begins with 0 is nothing but zeros.
      return value < radix && (radix != 10 || first != "0" || value == 0)
    }
    while true {
      if isDigit(at(position)) {
        digits.unicodeScalars.append(source[position])
        position += 1
      } else if at(position) == "_", isDigit(at(position + 1)) {
        position += 1
      } else {
        break
      }
    }
    if digits.isEmpty {  // "0x" without digits: 0, and a name
      index = start + 1
      return .integer(0)
    }
    index = position
    if let value = Int(digits, radix: radix) { return .integer(value) }
    guard let value = LargeInteger(digits, radix: radix) else { throw fail(LargeInteger.tooLarge.message, at: start) }
    return .largeInteger(value)
  }

  /// Digits with a fraction, an exponent or both; never right after a dot.
  private mutating func float() -> Token.Kind? {
    if index > 0, source[index - 1] == "." { return nil }
    var text = ""
    var position = index
    func digits() -> Bool {
      let start = position
      while let scalar = at(position) {
        if ("0"..."9").contains(scalar) {
          text.unicodeScalars.append(scalar)
        } else if scalar != "_" || position == start || !(at(position + 1).map { ("0"..."9").contains($0) } ?? false) {
          break
        }
        position += 1
      }
      return position > start
    }
    guard digits() else { return nil }
    var isFloat = false
    if at(position) == ".", let next = at(position + 1), ("0"..."9").contains(next) {
      text += "."
      position += 1
      _ = digits()
      isFloat = true
    }
    if let mark = at(position), mark == "e" || mark == "E" {
      let (kept, keptText) = (position, text)
      text += "e"
      position += 1
      if let sign = at(position), sign == "+" || sign == "-" {
        text.unicodeScalars.append(sign)
        position += 1
      }
      if digits() { isFloat = true } else { (position, text) = (kept, keptText) }
    }
    guard isFloat, let value = Double(text) else { return nil }
    index = position
    return .float(value)
  }

  // MARK: Strings

  private mutating func string() throws(TemplateError) -> Token.Kind? {
    guard let quote = at(index), quote == "'" || quote == "\"" else { return nil }
    let start = index
    index += 1
    var text = String.UnicodeScalarView()
    while let scalar = at(index) {
      index += 1
      if scalar == quote { return .string(String(text)) }
      if scalar == "\\" { try readEscape(into: &text, start) } else { text.append(scalar) }
    }
    throw fail("unexpected char '\(String(quote))'", at: start)
  }

  /// Python's `unicode-escape`. An escape that it does not know keeps its backslash.
  private mutating func readEscape(into text: inout String.UnicodeScalarView, _ start: Int) throws(TemplateError) {
    guard let escaped = at(index) else { return }
    index += 1
    switch escaped {
    case "\n": break
    case "\\", "'", "\"": text.append(escaped)
    case "a": text.append("\u{7}")
    case "b": text.append("\u{8}")
    case "f": text.append("\u{C}")
    case "n": text.append("\n")
    case "r": text.append("\r")
    case "t": text.append("\t")
    case "v": text.append("\u{B}")
    case "x": text.append(try hex(2, "\\xXX", start))
    case "u": text.append(try hex(4, "\\uXXXX", start))
    case "U": text.append(try hex(8, "\\UXXXXXXXX", start))
    case "0"..."7":
      var value = escaped.value - 0x30
      var count = 1
      while count < 3, let digit = at(index), ("0"..."7").contains(digit) {
        value = value << 3 | (digit.value - 0x30)
        index += 1
        count += 1
      }
      text.append(Unicode.Scalar(value)!)  // at most 0x1FF
    case "N": text.append(try namedCharacter(start))
    default:
      text.append("\\")
      // Python escapes what is not ASCII before it resolves escapes, so that the backslash guards the one of that.
      if escaped.value < 0x80 {
        text.append(escaped)
      } else {
        let (mark, width) = escaped.value < 0x100 ? ("x", 2) : escaped.value < 0x10000 ? ("u", 4) : ("U", 8)
        text.append(contentsOf: (mark + Hex.padded(escaped.value, width)).unicodeScalars)
      }
    }
  }

  private mutating func hex(_ count: Int, _ form: String, _ start: Int) throws(TemplateError) -> Unicode.Scalar {
    var value: UInt32 = 0
    for _ in 0..<count {
      guard let scalar = at(index), scalar.value < 0x80, scalar.properties.isASCIIHexDigit, let digit = UInt32(String(scalar), radix: 16)
      else {
        throw fail("a string has a truncated \(form) escape", at: start)
      }
      value = value << 4 | digit
      index += 1
    }
    guard let scalar = Unicode.Scalar(value) else {
      throw fail("a string has an escape that is no character: \(form) with \(String(value, radix: 16))", at: start)
    }
    return scalar
  }

  private mutating func namedCharacter(_ start: Int) throws(TemplateError) -> Unicode.Scalar {
    var name = ""
    if at(index) == "{" {
      index += 1
      while let scalar = at(index), scalar != "}", name.utf8.count < 100 {
        name.unicodeScalars.append(scalar)
        index += 1
      }
      index += 1
    }
    namedCharacters += 1
    guard namedCharacters <= 4 else { throw fail("more than 4 characters by their names (\\N{…})", at: start) }
    let wanted = name.uppercased()
    // No name has other letters, and only these planes have names: to search them all would take a second.
    let isName = wanted.utf8.allSatisfy { (0x41...0x5A).contains($0) || "0123456789 -".utf8.contains($0) }
    // Two thirds of them are ideographs and syllables, whose names say that they are.
    let isOfMany = wanted.hasPrefix("CJK ") || wanted.hasPrefix("HANGUL ") || wanted.hasPrefix("TANGUT ")
    let many = [UInt32(0x3400)..<0x4DC0, 0x4E00..<0xA000, 0xAC00..<0xD7A4, 0x1_7000..<0x1_8B00, 0x2_0000..<0x4_0000]
    let few = [UInt32(0)..<0x3400, 0x4DC0..<0x4E00, 0xA000..<0xAC00, 0xD7A4..<0x1_7000, 0x1_8B00..<0x2_0000, 0xE_0000..<0xE_1000]
    for value in (isOfMany ? few + many : few).joined() where isName && !wanted.isEmpty {
      guard let scalar = Unicode.Scalar(value) else { continue }
      let properties = scalar.properties
      if properties.name == wanted || properties.nameAlias == wanted { return scalar }
    }
    throw fail("a string names an unknown character: \\N{\(name)}", at: start)
  }
}
