// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

extension WordPattern {
  /// Why an expression cannot be used: the alternative that has none of the shapes.
  struct Unsupported: Error {
    let alternative: String
  }

  /// A published expression is a few hundred characters long; what is far longer is refused, so that no file makes a look at a character slow.
  private static let longestExpression = 4096
  private static let mostAlternatives = 32

  /// The expression as files have it (Oniguruma's syntax).
  init(_ expression: String) throws(Unsupported) {
    guard expression.utf8.count <= Self.longestExpression else {
      throw Unsupported(alternative: expression.prefix(40) + "… (\(expression.utf8.count) bytes)")
    }
    var alternatives: [Alternative] = []
    var memories = 0
    for alternative in Self.alternatives(Array(expression.unicodeScalars)) {
      var parser = AlternativeParser(alternative)
      guard let parsed = parser.parse(&memories), memories <= Self.mostMemories else {
        throw Unsupported(alternative: String(String.UnicodeScalarView(alternative)))
      }
      alternatives.append(parsed)
    }
    guard alternatives.count <= Self.mostAlternatives else { throw Unsupported(alternative: "\(alternatives.count) alternatives") }
    self.alternatives = alternatives
  }

  /// The parts between the `|` that are in no class and no group.
  private static func alternatives(_ scalars: [Unicode.Scalar]) -> [[Unicode.Scalar]] {
    var parts: [[Unicode.Scalar]] = [[]]
    var (groups, isInClass, isEscaped) = (0, false, false)
    for scalar in scalars {
      if scalar == "|" && groups == 0 && !isInClass && !isEscaped {
        parts.append([])
        continue
      }
      parts[parts.count - 1].append(scalar)
      if isEscaped {
        isEscaped = false
      } else if scalar == "\\" {
        isEscaped = true
      } else if isInClass {
        isInClass = scalar != "]"
      } else if scalar == "[" {
        isInClass = true
      } else if scalar == "(" {
        groups += 1
      } else if scalar == ")" {
        groups -= 1
      }
    }
    return parts
  }
}

/// Reads one alternative; nil from any of its functions means that it is of no known shape.
private struct AlternativeParser {
  private var rest: ArraySlice<Unicode.Scalar>

  init(_ scalars: [Unicode.Scalar]) { rest = scalars[...] }

  private static let groups: [(String, WordPattern.Contraction)] = [
    ("(?i:'s|'t|'re|'ve|'m|'ll|'d)", .anyUnicodeCase), ("'(?i:[sdmt]|ll|ve|re)", .anyUnicodeCase),
    ("(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])", .anyCase),
    ("'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])", .anyCase), ("'(?:[sdmt]|ll|ve|re)", .asWritten),
  ]

  private mutating func skip(_ text: String) -> Bool {
    let scalars = Array(text.unicodeScalars)
    guard rest.starts(with: scalars) else { return false }
    rest.removeFirst(scalars.count)
    return true
  }

  private mutating func contraction() -> WordPattern.Contraction? {
    for (text, kind) in Self.groups where skip(text) { return kind }
    return nil
  }

  mutating func parse(_ memories: inout Int) -> WordPattern.Alternative? {
    if let kind = contraction() { return rest.isEmpty ? .contraction(kind) : nil }
    if let literal = literal() { return literal }
    if rest.elementsEqual("\\s+$".unicodeScalars) { return .spacesBeforeLineEnd }
    if let threes = digitsInThrees() { return threes }
    var items: [(run: WordPattern.Run, isPossessive: Bool)] = []
    while let first = rest.first, first != "(" {
      guard let characters = characterClass(), var item = quantified(characters) else { return nil }
      // `[0-9][0-9][0-9]` is `[0-9]{3}`.
      if let last = items.last?.run, last.characters == characters, last.minimum == last.maximum, item.run.minimum == item.run.maximum {
        items.removeLast()
        item.run.minimum += last.minimum
        item.run.maximum += last.maximum
      }
      items.append(item)
    }
    if skip("(?!\\S)") {
      guard rest.isEmpty, items.count == 1, !items[0].isPossessive, items[0].run.characters == .space, items[0].run.minimum > 0 else {
        return nil
      }
      return .spacesBeforeSpace(items[0].run)
    }
    if rest.elementsEqual(#"(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+"#.unicodeScalars) {
      guard let prefix = items.first?.run else { return .spacedLetters(prefix: nil) }
      return items.count == 1 && prefix.minimum == 0 && prefix.maximum == 1 && !items[0].isPossessive
        ? .spacedLetters(prefix: prefix.characters) : nil
    }
    var suffix: WordPattern.Contraction?
    if !rest.isEmpty {
      suffix = contraction()
      guard suffix != nil, skip("?"), rest.isEmpty else { return nil }
    }
    return runs(items, suffix, &memories)
  }

  private func digitsInThrees() -> WordPattern.Alternative? {
    for (digit, characters) in [("\\d", CharacterProperties.digit), ("\\p{Nd}", .digit), ("\\p{N}", .number)] {
      for group in ["(?:", "("] {
        let threes = "\(digit){1,3}(?=\(group)\(digit){3})*"
        if rest.elementsEqual("\(threes)\\b)".unicodeScalars) {
          return .digitsInThrees(CharacterClass(properties: characters), atWordEnd: true)
        }
        if rest.elementsEqual("\(threes)(?!\(digit)))".unicodeScalars) {
          return .digitsInThrees(CharacterClass(properties: characters), atWordEnd: false)
        }
      }
    }
    return nil
  }

  /// Letters, digits, apostrophes and spaces that stand for themselves.
  private mutating func literal() -> WordPattern.Alternative? {
    let isPlain = { (scalar: Unicode.Scalar) in
      scalar == "'" || scalar == " " || scalar.value >= 0x80 || scalar.isASCII && scalar.properties.isAlphabetic
        || ("0"..."9").contains(scalar)
    }
    guard !rest.isEmpty, rest.allSatisfy(isPlain) else { return nil }
    return .literal(Array(String(String.UnicodeScalarView(rest)).utf8))
  }

  /// The shape that the items have, if matching them front to back without going back is what the expression means.
  private func runs(
    _ items: [(run: WordPattern.Run, isPossessive: Bool)], _ suffix: WordPattern.Contraction?, _ memories: inout Int
  ) -> WordPattern.Alternative? {
    var items = items[...]
    var prefix: CharacterClass?
    if items.count > 1, items.first!.run.minimum == 0, items.first!.run.maximum == 1 { prefix = items.removeFirst().run.characters }
    guard let head = items.popFirst() else { return nil }
    let tail = items.popFirst()
    guard items.isEmpty else { return nil }
    guard let tail else { return head.run.minimum > 0 ? .runs(prefix: prefix, head.run, nil, suffix, memory: nil) : nil }
    var memory: Int?
    if tail.run.minimum == 0 {
      guard head.run.minimum > 0 else { return nil }
    } else {
      // Either the head is of one length, or it is a whole run that gives back what the tail needs.
      let isFixed = head.run.minimum == head.run.maximum
      guard tail.run.minimum == 1, isFixed || head.run.maximum == .max && !head.isPossessive else { return nil }
      if !isFixed { memory = memories }
    }
    memories += memory == nil ? 0 : 1
    return .runs(prefix: prefix, head.run, tail.run, suffix, memory: memory)
  }

  private mutating func quantified(_ characters: CharacterClass) -> (run: WordPattern.Run, isPossessive: Bool)? {
    var (minimum, maximum) = (1, 1)
    var isPossessive = false
    switch rest.first {
    case "?": (minimum, maximum) = (0, 1)
    case "*": (minimum, maximum) = (0, .max)
    case "+": (minimum, maximum) = (1, .max)
    case "{":
      guard let close = rest.firstIndex(of: "}") else { return nil }
      let bounds = String(String.UnicodeScalarView(rest[(rest.startIndex + 1)..<close])).split(
        separator: ",", omittingEmptySubsequences: false)
      guard let low = bounds.first.flatMap({ UInt16($0) }), bounds.count <= 2 else { return nil }
      minimum = Int(low)
      maximum = Int(low)
      if bounds.count == 2 {
        guard let high = bounds[1].isEmpty ? Int.max : UInt16(bounds[1]).map({ Int($0) }) else { return nil }
        maximum = high
      }
      rest = rest[(close + 1)...]
      // Long counts would cost as much at every place of a text.
      guard minimum <= 512, maximum <= 512 || maximum == .max else { return nil }
      guard minimum <= maximum, maximum > 0, rest.first != "?", rest.first != "*" else { return nil }
      // What follows a counted run in this syntax repeats it, and makes nothing possessive: `{1,3}+` is `+`.
      if rest.first == "+" {
        guard minimum == 1 || maximum == .max else { return nil }
        rest.removeFirst()
        maximum = .max
      }
      return (WordPattern.Run(characters: characters, minimum: minimum, maximum: maximum), false)
    default: return (WordPattern.Run(characters: characters, minimum: 1, maximum: 1), false)
    }
    rest.removeFirst()
    if rest.first == "+" {
      isPossessive = true
      rest.removeFirst()
    } else if rest.first == "?" {
      return nil
    }
    return (WordPattern.Run(characters: characters, minimum: minimum, maximum: maximum), isPossessive)
  }

  private mutating func characterClass() -> CharacterClass? {
    var result = CharacterClass()
    guard skip("[") else { return member(of: &result, isInClass: false) ? result : nil }
    result.isNegated = skip("^")
    while let next = rest.first, next != "]" {
      if !result.isNegated, skip("&&[^") {
        // What is left of the class without these.
        var excluded = CharacterClass()
        while let next = rest.first, next != "]" {
          guard member(of: &excluded, isInClass: true), excluded.properties.isEmpty else { return nil }
        }
        guard skip("]"), rest.first == "]" else { return nil }
        result.excluded = excluded.ranges
      } else {
        guard member(of: &result, isInClass: true) else { return nil }
      }
    }
    return skip("]") && (!result.ranges.isEmpty || !result.properties.isEmpty) ? result : nil
  }

  /// Adds a character, a range or an escape that stands for a class.
  private mutating func member(of characters: inout CharacterClass, isInClass: Bool) -> Bool {
    if skip("\\p{") {
      guard let close = rest.firstIndex(of: "}") else { return false }
      let name = String(String.UnicodeScalarView(rest[rest.startIndex..<close]))
      if let properties = CharacterProperties(category: name) {
        characters.properties.formUnion(properties)
      } else if let script = CharacterClass.script(name) {
        characters.ranges += script
      } else {
        return false
      }
      rest = rest[(close + 1)...]
      return true
    }
    if skip("\\s") {
      characters.properties.insert(.space)
      return true
    }
    if skip("\\d") {
      characters.properties.insert(.digit)
      return true
    }
    guard let low = character(isInClass: isInClass) else { return false }
    var high = low
    if isInClass, rest.first == "-", let after = rest.dropFirst().first, after != "]" {
      rest.removeFirst()
      guard let last = character(isInClass: true) else { return false }
      high = last
    }
    guard low <= high else { return false }
    characters.ranges.append(low...high)
    return true
  }

  /// One character that stands for itself, escaped or not.
  private mutating func character(isInClass: Bool) -> UInt32? {
    guard let scalar = rest.popFirst() else { return nil }
    guard scalar == "\\" else {
      let isOperator = isInClass ? scalar == "[" || scalar == "&" && rest.first == "&" : ".^$*+?{}[]()|".unicodeScalars.contains(scalar)
      return isOperator ? nil : scalar.value
    }
    guard let escaped = rest.popFirst() else { return nil }
    switch escaped {
    case "n": return 0x0A
    case "r": return 0x0D
    case "t": return 0x09
    default: return escaped.isASCII && (escaped.properties.isAlphabetic || ("0"..."9").contains(escaped)) ? nil : escaped.value
    }
  }
}
