// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Reads grammars in GBNF, the form in which llama.cpp documents its grammars.
///
/// ```
/// # a comment
/// root  ::= "[" item ("," " "? item)* "]"
/// item  ::= [a-z]+ | "\"" [^"\n]{0,20} "\"" | root
/// ```
///
/// A rule ends with its line, except within parentheses and behind `|` or `::=`. References to single tokens of a vocabulary (`<…>`) are refused, for a
/// compiled form knows no vocabulary.
struct GBNFParser {
  indirect enum Expression {
    case characters(CodePointSet)
    case sequence([Expression])
    case choice([Expression])
    case rule(String)
    case `repeat`(Expression, minimum: Int, maximum: Int?)
  }

  private let scalars: [Unicode.Scalar]
  private var index = 0
  private var depth = 0
  private(set) var rules: [(name: String, expression: Expression)] = []
  /// Where each rule is first used, for messages.
  private(set) var uses: [String: String] = [:]

  init(_ text: String) throws(GrammarError) {
    scalars = Array(text.unicodeScalars)
    var names: Set<String> = []
    skipSpace(overLines: true)
    while index < scalars.count {
      let place = place
      let name = try self.name()
      skipSpace(overLines: false)
      guard take("::=") else { throw syntax("\"::=\" should stand behind the name of a rule") }
      skipSpace(overLines: true)
      guard names.insert(name).inserted else { throw GrammarError(.syntax, "the rule \"\(name)\" is there twice", at: place) }
      rules.append((name, try choice(isNested: false)))
      skipSpace(overLines: false)
      guard index == scalars.count || isLineEnd else { throw syntax("the rule should end here") }
      skipSpace(overLines: true)
    }
    for (name, place) in uses.sorted(by: { $0.key < $1.key }) where !names.contains(name) {
      throw GrammarError(.syntax, "there is no rule \"\(name)\"", at: place)
    }
  }

  private var peek: Unicode.Scalar? { index < scalars.count ? scalars[index] : nil }
  private var isLineEnd: Bool { peek == "\n" || peek == "\r" }

  private var place: String {
    let before = scalars[..<index]
    let line = before.count { $0 == "\n" } + 1
    let column = index - (before.lastIndex(of: "\n").map { $0 + 1 } ?? 0) + 1
    return "line \(line), column \(column)"
  }

  private func syntax(_ problem: String) -> GrammarError { GrammarError(.syntax, "grammar: \(problem)", at: place) }

  private mutating func take(_ text: String) -> Bool {
    let wanted = Array(text.unicodeScalars)
    guard scalars[index...].starts(with: wanted) else { return false }
    index += wanted.count
    return true
  }

  private mutating func skipSpace(overLines: Bool) {
    while let next = peek {
      if next == "#" {
        while index < scalars.count && !isLineEnd { index += 1 }
      } else if next == " " || next == "\t" || overLines && isLineEnd {
        index += 1
      } else {
        return
      }
    }
  }

  private mutating func name() throws(GrammarError) -> String {
    let start = index
    while let next = peek, next.isASCII, next == "-" || next == "_" || next.properties.isAlphabetic || next.properties.numericType != nil {
      index += 1
    }
    guard index > start else { throw syntax("a rule's name should stand here") }
    return String(String.UnicodeScalarView(scalars[start..<index]))
  }

  private mutating func choice(isNested: Bool) throws(GrammarError) -> Expression {
    depth += 1
    defer { depth -= 1 }
    guard depth <= 100 else { throw .limit("grammar: groups nest more than 100 deep") }
    var choices = [try sequence(isNested: isNested)]
    while take("|") {
      skipSpace(overLines: true)
      choices.append(try sequence(isNested: isNested))
    }
    return choices.count == 1 ? choices[0] : .choice(choices)
  }

  private mutating func sequence(isNested: Bool) throws(GrammarError) -> Expression {
    var list: [Expression] = []
    while let next = peek, next != "|", next != ")", !isLineEnd {
      var item = try self.item(next)
      skipSpace(overLines: isNested)
      while let (minimum, maximum) = try quantifier() {
        item = .repeat(item, minimum: minimum, maximum: maximum)
        skipSpace(overLines: isNested)
      }
      list.append(item)
    }
    return list.count == 1 ? list[0] : .sequence(list)
  }

  private mutating func item(_ next: Unicode.Scalar) throws(GrammarError) -> Expression {
    switch next {
    case "\"":
      index += 1
      var list: [Expression] = []
      while !take("\"") { list.append(.characters(CodePointSet(try character()))) }
      return .sequence(list)
    case "[":
      index += 1
      let isNegative = take("^")
      var ranges: [ClosedRange<UInt32>] = []
      while !take("]") {
        let low = try character()
        guard peek == "-", index + 1 < scalars.count, scalars[index + 1] != "]" else {
          ranges.append(low...low)
          continue
        }
        index += 1
        let high = try character()
        guard low <= high else { throw syntax("a range's ends are in the wrong order") }
        ranges.append(low...high)
      }
      let set = CodePointSet(ranges)
      return .characters(isNegative ? set.complement : set)
    case ".":
      index += 1
      return .characters(.all)
    case "(":
      index += 1
      skipSpace(overLines: true)
      let inner = try choice(isNested: true)
      guard take(")") else { throw syntax("a group has no end") }
      return inner
    case "<", "!": throw .unsupported("grammar: a reference to a token is not supported: write the token's text", at: place)
    default:
      let place = place
      let name = try name()
      if uses[name] == nil { uses[name] = place }
      return .rule(name)
    }
  }

  private mutating func quantifier() throws(GrammarError) -> (Int, Int?)? {
    if take("*") { return (0, nil) }
    if take("+") { return (1, nil) }
    if take("?") { return (0, 1) }
    guard take("{") else { return nil }
    skipSpace(overLines: false)
    let minimum = number()
    skipSpace(overLines: false)
    var maximum = minimum
    if take(",") {
      skipSpace(overLines: false)
      maximum = number()
      skipSpace(overLines: false)
    }
    guard take("}"), minimum != nil || maximum != nil else { throw syntax("a repeat is {m}, {m,}, {,n} or {m,n}") }
    if let maximum, maximum < minimum ?? 0 { throw syntax("the repeat's bounds are in the wrong order") }
    guard maximum ?? minimum ?? 0 <= 100_000_000 else { throw .limit("grammar: a repeat of \(maximum ?? 0) times is too long") }
    return (minimum ?? 0, maximum)
  }

  private mutating func number() -> Int? {
    let start = index
    var value = 0
    while let digit = peek, digit.value >= 0x30, digit.value <= 0x39 {
      value = min(value * 10 + Int(digit.value - 0x30), 1 << 40)
      index += 1
    }
    return index > start ? value : nil
  }

  /// One character of a literal or a class.
  private mutating func character() throws(GrammarError) -> UInt32 {
    guard let scalar = peek else { throw syntax("a literal or a class has no end") }
    index += 1
    guard scalar == "\\" else { return scalar.value }
    guard let escape = peek else { throw syntax("nothing follows the backslash") }
    index += 1
    switch escape {
    case "n": return 0x0A
    case "r": return 0x0D
    case "t": return 0x09
    case "x": return try hex(2)
    case "u": return try hex(4)
    case "U": return try hex(8)
    case "\\", "\"", "[", "]", "-", "^": return escape.value
    default:
      index -= 1
      throw syntax("there is no escape \"\\\(escape)\"")
    }
  }

  private mutating func hex(_ count: Int) throws(GrammarError) -> UInt32 {
    guard index + count <= scalars.count, let value = UInt32(String(String.UnicodeScalarView(scalars[index..<index + count])), radix: 16),
      Unicode.Scalar(value) != nil
    else { throw syntax("the escape needs \(count) hexadecimal digits of a character's number") }
    index += count
    return value
  }
}
