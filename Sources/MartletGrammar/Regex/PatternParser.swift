// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Reads regular expressions as ECMA-262 writes them, which is what JSON Schema's `pattern` is made of.
///
/// `\d`, `\w` and `\s` are ECMA-262's, `.` is any character but a line's end, and whether a repeat is greedy changes nothing about what matches. Refused are
/// backreferences, lookbehind, word boundaries and flags: what they say cannot be held by an automaton of this kind, or not everywhere alike.
struct PatternParser {
  private let scalars: [Unicode.Scalar]
  private var index = 0
  private var depth = 0
  private var properties: [String: CodePointSet] = [:]

  /// - Parameter properties: sets of Unicode's categories that were found before; finding one looks at every character.
  static func parse(_ text: String, properties: inout [String: CodePointSet]) throws(GrammarError) -> Pattern {
    var parser = PatternParser(text)
    parser.properties = properties
    defer { properties = parser.properties }
    let pattern = try parser.choice()
    guard parser.index == parser.scalars.count else { throw parser.syntax("\")\" closes nothing") }
    return pattern
  }

  private init(_ text: String) { scalars = Array(text.unicodeScalars) }

  private var peek: Unicode.Scalar? { index < scalars.count ? scalars[index] : nil }

  private func syntax(_ problem: String) -> GrammarError {
    GrammarError(.syntax, "regular expression: \(problem)", at: "character \(index + 1)")
  }

  private func unsupported(_ what: String) -> GrammarError {
    .unsupported("regular expression: \(what) not supported: say it another way", at: "character \(index + 1)")
  }

  private mutating func take(_ text: String) -> Bool {
    let wanted = Array(text.unicodeScalars)
    guard scalars[index...].starts(with: wanted) else { return false }
    index += wanted.count
    return true
  }

  private mutating func choice() throws(GrammarError) -> Pattern {
    depth += 1
    defer { depth -= 1 }
    guard depth <= 100 else { throw .limit("regular expression: groups nest more than 100 deep") }
    var choices = [try sequence()]
    while take("|") { choices.append(try sequence()) }
    return choices.count == 1 ? choices[0] : .choice(choices)
  }

  private mutating func sequence() throws(GrammarError) -> Pattern {
    var list: [Pattern] = []
    while let next = peek, next != "|", next != ")" { list.append(try quantified()) }
    return list.count == 1 ? list[0] : .sequence(list)
  }

  private mutating func quantified() throws(GrammarError) -> Pattern {
    var pattern = try atom()
    var numQuantifiers = 0
    while let (minimum, maximum) = try quantifier() {
      numQuantifiers += 1
      guard numQuantifiers == 1 else { throw syntax("nothing stands before the repeat") }
      pattern = .repeat(pattern, minimum: minimum, maximum: maximum)
      if !take("?") && peek == "+" { throw unsupported("a possessive repeat is") }
    }
    return pattern
  }

  private mutating func quantifier() throws(GrammarError) -> (Int, Int?)? {
    switch peek {
    case "*":
      index += 1
      return (0, nil)
    case "+":
      index += 1
      return (1, nil)
    case "?":
      index += 1
      return (0, 1)
    case "{":
      // A brace that begins no repeat stands for itself.
      let start = index
      index += 1
      let minimum = number()
      var maximum = minimum
      if take(",") { maximum = number() }
      guard let minimum, take("}") else {
        index = start
        return nil
      }
      if let maximum, maximum < minimum { throw syntax("the repeat's bounds are in the wrong order") }
      guard minimum <= 1_000_000, maximum ?? 0 <= 100_000_000 else {
        throw .limit("regular expression: a repeat of \(maximum ?? minimum) times is too long")
      }
      return (minimum, maximum)
    default: return nil
    }
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

  private mutating func atom() throws(GrammarError) -> Pattern {
    guard let scalar = peek else { throw syntax("the expression ends too early") }
    index += 1
    switch scalar {
    case "^": return .start
    case "$": return .end
    case ".": return .characters(Self.lineEnds.complement)
    case "(": return try group()
    case "[": return .characters(try characterClass())
    case "\\": return try escape()
    case "*", "+", "?":
      index -= 1
      throw syntax("nothing stands before the repeat")
    default: return .characters(CodePointSet(scalar.value))
    }
  }

  private mutating func group() throws(GrammarError) -> Pattern {
    var kind = 0
    if take("?:") {
    } else if take("?=") {
      kind = 1
    } else if take("?!") {
      kind = 2
    } else if take("?<=") || take("?<!") {
      throw unsupported("lookbehind is")
    } else if take("?<") || take("?P<") {
      while let next = peek, next != ">", next != ")" { index += 1 }
      guard take(">") else { throw syntax("the group's name has no end") }
    } else if peek == "?" {
      throw unsupported("a group with flags is")
    }
    let inner = try choice()
    guard take(")") else { throw syntax("a group has no end") }
    return kind == 0 ? inner : .ahead(inner, isNegative: kind == 2)
  }

  // MARK: Classes

  private mutating func escape() throws(GrammarError) -> Pattern {
    switch peek {
    case "b", "B": throw unsupported("a word boundary is")
    case "k": throw unsupported("a backreference is")
    case let digit? where digit.value >= 0x31 && digit.value <= 0x39: throw unsupported("a backreference is")
    default: return .characters(try escapedSet())
    }
  }

  /// After the backslash.
  private mutating func escapedSet() throws(GrammarError) -> CodePointSet {
    guard let scalar = peek else { throw syntax("nothing follows the backslash") }
    index += 1
    switch scalar {
    case "d": return Self.digits
    case "D": return Self.digits.complement
    case "w": return Self.wordCharacters
    case "W": return Self.wordCharacters.complement
    case "s": return Self.spaces
    case "S": return Self.spaces.complement
    case "t": return CodePointSet(0x09)
    case "n": return CodePointSet(0x0A)
    case "v": return CodePointSet(0x0B)
    case "f": return CodePointSet(0x0C)
    case "r": return CodePointSet(0x0D)
    case "0": return CodePointSet(0)
    case "c":
      guard let letter = peek, letter.isASCII, letter.properties.isAlphabetic else { throw syntax("\"\\c\" needs a letter") }
      index += 1
      return CodePointSet(letter.value & 31)
    case "x": return CodePointSet(try hex(2))
    case "u":
      if take("{") {
        let start = index
        while let digit = peek, digit != "}", index - start < 6 { _ = digit; index += 1 }
        guard let value = UInt32(String(String.UnicodeScalarView(scalars[start..<index])), radix: 16), take("}"),
          Unicode.Scalar(value) != nil
        else {
          throw syntax("\"\\u{\" needs a character's number and \"}\"")
        }
        return CodePointSet(value)
      }
      let value = try hex(4)
      if value >= 0xD800 && value < 0xDC00 && take("\\u") {
        let low = try hex(4)
        guard low >= 0xDC00 && low < 0xE000 else { throw syntax("half a surrogate pair") }
        return CodePointSet(0x10000 + (value - 0xD800) << 10 + (low - 0xDC00))
      }
      return CodePointSet(value)
    case "p", "P":
      let set = try property()
      return scalar == "P" ? set.complement : set
    default:
      if scalar.isASCII && scalar.properties.isAlphabetic { throw unsupported("\"\\\(scalar)\" is") }
      return CodePointSet(scalar.value)
    }
  }

  private mutating func hex(_ count: Int) throws(GrammarError) -> UInt32 {
    guard index + count <= scalars.count, let value = UInt32(String(String.UnicodeScalarView(scalars[index..<index + count])), radix: 16)
    else {
      throw syntax("an escape needs \(count) hexadecimal digits")
    }
    index += count
    return value
  }

  private mutating func characterClass() throws(GrammarError) -> CodePointSet {
    let isNegative = take("^")
    var ranges: [ClosedRange<UInt32>] = []
    while !take("]") {
      let (set, single) = try classAtom()
      guard let low = single, peek == "-", index + 1 < scalars.count, scalars[index + 1] != "]" else {
        ranges.append(contentsOf: set.ranges)
        continue
      }
      index += 1
      let (other, upper) = try classAtom()
      if let upper {
        guard low <= upper else { throw syntax("a range's ends are in the wrong order") }
        ranges.append(low...upper)
      } else {
        // A class such as \w is no end of a range: the hyphen stands for itself.
        ranges.append(contentsOf: [low...low, 0x2D...0x2D] + other.ranges)
      }
    }
    let set = CodePointSet(ranges)
    return isNegative ? set.complement : set
  }

  private mutating func classAtom() throws(GrammarError) -> (CodePointSet, single: UInt32?) {
    guard let scalar = peek else { throw syntax("a class has no end") }
    index += 1
    guard scalar == "\\" else { return (CodePointSet(scalar.value), scalar.value) }
    if take("b") { return (CodePointSet(0x08), 0x08) }
    let set = try escapedSet()
    return (set, set.ranges.count == 1 && set.ranges[0].count == 1 ? set.ranges[0].lowerBound : nil)
  }

  /// `{L}`, `{Lu}`, `{Letter}`: a general category of Unicode.
  private mutating func property() throws(GrammarError) -> CodePointSet {
    guard take("{") else { throw syntax("\"\\p\" needs a property in braces") }
    let start = index
    while let next = peek, next != "}" { _ = next; index += 1 }
    let name = String(String.UnicodeScalarView(scalars[start..<index]))
    guard take("}") else { throw syntax("a property has no end") }
    let short =
      ["Letter": "L", "Number": "N", "Punctuation": "P", "Symbol": "S", "Mark": "M", "Separator": "Z", "digit": "Nd"][name] ?? name
    guard ["L", "N", "P", "S", "M", "Z", "C"].contains(short.prefix(1)), short.count <= 2 else {
      throw unsupported("the property \"\(name)\" is")
    }
    if let known = properties[short] { return known }
    var ranges: [ClosedRange<UInt32>] = []
    for value in CodePointSet.all.ranges.joined() {
      guard Self.abbreviation(Unicode.Scalar(value)!.properties.generalCategory).hasPrefix(short) else { continue }
      if let last = ranges.last, last.upperBound + 1 == value {
        ranges[ranges.count - 1] = last.lowerBound...value
      } else {
        ranges.append(value...value)
      }
    }
    guard !ranges.isEmpty else { throw unsupported("the property \"\(name)\" is") }
    properties[short] = CodePointSet(ranges)
    return CodePointSet(ranges)
  }

  private static func abbreviation(_ category: Unicode.GeneralCategory) -> String {
    switch category {
    case .uppercaseLetter: "Lu"
    case .lowercaseLetter: "Ll"
    case .titlecaseLetter: "Lt"
    case .modifierLetter: "Lm"
    case .otherLetter: "Lo"
    case .nonspacingMark: "Mn"
    case .spacingMark: "Mc"
    case .enclosingMark: "Me"
    case .decimalNumber: "Nd"
    case .letterNumber: "Nl"
    case .otherNumber: "No"
    case .connectorPunctuation: "Pc"
    case .dashPunctuation: "Pd"
    case .openPunctuation: "Ps"
    case .closePunctuation: "Pe"
    case .initialPunctuation: "Pi"
    case .finalPunctuation: "Pf"
    case .otherPunctuation: "Po"
    case .mathSymbol: "Sm"
    case .currencySymbol: "Sc"
    case .modifierSymbol: "Sk"
    case .otherSymbol: "So"
    case .spaceSeparator: "Zs"
    case .lineSeparator: "Zl"
    case .paragraphSeparator: "Zp"
    case .control: "Cc"
    case .format: "Cf"
    case .surrogate: "Cs"
    case .privateUse: "Co"
    case .unassigned: "Cn"
    @unknown default: "Cn"
    }
  }

  // ECMA-262, "Runtime Semantics: CompileToCharSet".
  private static var digits: CodePointSet { CodePointSet([0x30...0x39]) }
  private static var wordCharacters: CodePointSet { CodePointSet([0x30...0x39, 0x41...0x5A, 0x5F...0x5F, 0x61...0x7A]) }
  private static var lineEnds: CodePointSet { CodePointSet([0x0A...0x0A, 0x0D...0x0D, 0x2028...0x2029]) }
  private static var spaces: CodePointSet {
    CodePointSet([
      0x09...0x0D, 0x20...0x20, 0xA0...0xA0, 0x1680...0x1680, 0x2000...0x200A, 0x2028...0x2029, 0x202F...0x202F, 0x205F...0x205F,
      0x3000...0x3000,
      0xFEFF...0xFEFF,
    ])
  }
}
