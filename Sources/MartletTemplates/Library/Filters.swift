// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// What stands after `|`: texts and numbers here, lists in `Filters+Lists.swift`.
enum Filters {
  typealias Function = @Sendable (Evaluator, Value, Arguments) throws(TemplateError) -> Value

  static let all: [String: Function] = texts.merging(lists) { first, _ in first }.merging(missing) { first, _ in first }

  /// Filters that Jinja has and that no prompt needs: refused when they run.
  private static let missing: [String: Function] = [
    "filesizeformat": refusal("filesizeformat"), "pprint": refusal("pprint"), "random": refusal("random"), "urlize": refusal("urlize"),
    "wordwrap": refusal("wordwrap"), "xmlattr": refusal("xmlattr"),
  ]

  private static func refusal(_ name: String) -> Function {
    { (evaluator: Evaluator, value: Value, arguments: Arguments) throws(TemplateError) -> Value in
      throw .runtime("the filter '\(name)' is not supported")
    }
  }

  /// A filter of the text that a value is written as.
  private static func text(_ body: @escaping @Sendable (Text) -> Text) -> Function {
    { (evaluator, value, arguments) throws(TemplateError) in
      _ = try arguments.bound(to: "filter", [])
      let text = try softText(value, evaluator)
      return .string(body(text))
    }
  }

  /// The value as text.
  static func softText(_ value: Value, _ evaluator: Evaluator) throws(TemplateError) -> Text {
    try value.written(evaluator)
  }

  static func integer(_ value: Value?, _ fallback: Int) throws(TemplateError) -> Int {
    guard let value else { return fallback }
    if case .undefined(let missing) = value { throw missing.error }
    guard let number = value.integer else { throw .type("'\(value.typeName)' object cannot be interpreted as an integer") }
    return number
  }

  static func replace(_ text: Text, _ old: Text, _ new: Text, _ limit: Int, _ evaluator: Evaluator) throws(TemplateError) -> Text {
    let places = old.isEmpty ? text.count + 1 : text.count / old.count
    // What it may become at the most, before it is made.
    let (grown, overflow) = places.multipliedReportingOverflow(by: new.count)
    if overflow || grown > 1 << 16 {
      let count = old.isEmpty ? places : text.split(old, limit: -1).count - 1
      let (exact, overflow) = (limit < 0 ? count : min(count, limit)).multipliedReportingOverflow(by: new.count)
      try evaluator.spend(bytes: overflow ? Int.max : exact)
    } else {
      try evaluator.spend(bytes: grown)
    }
    return text.replacing(old, with: new, limit: limit)
  }

  private static let texts: [String: Function] = [
    "upper": text { $0.uppercased }, "lower": text { $0.lowercased }, "capitalize": text { $0.capitalized },
    "title": text(titled), "string": text { $0 }, "safe": text { $0.asMarkup() },
    "escape": escape, "e": escape,
    "forceescape": text { HTML.escaped($0.asMarkup(false)).asMarkup() },
    "striptags": striptags,
    "trim": { (evaluator, value, arguments) throws(TemplateError) in
      let characters = try arguments.bound(to: "trim", ["chars"])[0]
      let text = try softText(value, evaluator)
      switch characters {
      case nil, .some(.none): return .string(text.stripped(nil))
      case .some(.string(let set)): return .string(text.stripped(set))
      case .some(.undefined(let missing)): throw missing.error
      case .some(let value): throw .type("strip arg must be None or str, not \(value.typeName)")
      }
    },
    "replace": { (evaluator, value, arguments) throws(TemplateError) in
      let values = try arguments.bound(to: "replace", ["old", "new", "count"], required: 2)
      let text = try softText(value, evaluator).asMarkup(false)
      let old = try (values[0] ?? .none).written(evaluator)
      let new = try (values[1] ?? .none).written(evaluator).asMarkup(false)
      var limit = -1
      if let count = values[2], count != .none { limit = try integer(count, -1) }
      return .string(try replace(text, old, new, limit, evaluator))
    },
    "format": { (evaluator, value, arguments) throws(TemplateError) in
      guard arguments.positional.isEmpty || arguments.named.isEmpty else {
        throw .type("can't handle positional and keyword arguments at the same time")
      }
      let operand: Value =
        arguments.named.isEmpty
        ? .tuple(try Elements(arguments.positional, evaluator))
        : .dict(try ValueDictionary(arguments.named.map { (.text($0.name), $0.value) }, evaluator))
      return .string(try PercentFormat.apply(try softText(value, evaluator), operand, evaluator))
    },
    "indent": indent,
    "center": { (evaluator, value, arguments) throws(TemplateError) in
      let width = try integer(try arguments.bound(to: "center", ["width"])[0], 80)
      try evaluator.spend(bytes: max(0, width))
      return .string(try softText(value, evaluator).padded(to: width, left: true, right: true))
    },
    "truncate": truncate,
    "wordcount": { (evaluator, value, _) throws(TemplateError) in
      let text = try softText(value, evaluator)
      let isWordPart: (Unicode.Scalar) -> Bool = { scalar in
        if scalar == "_" || scalar.properties.numericType != nil { return true }
        switch scalar.properties.generalCategory {
        case .uppercaseLetter, .lowercaseLetter, .titlecaseLetter, .modifierLetter, .otherLetter: return true
        default: return false
        }
      }
      var (count, isInWord) = (0, false)
      for scalar in text.scalars {
        let isPart = isWordPart(scalar)
        if isPart && !isInWord { count += 1 }
        isInWord = isPart
      }
      return .int(count)
    },
    "urlencode": urlencode,
    "abs": { (_, value, _) throws(TemplateError) in
      switch value {
      case .undefined(let missing): throw missing.error
      case .float(let number): return .float(number.magnitude)
      default:
        guard let number = value.whole else { throw .type("bad operand type for abs(): '\(value.typeName)'") }
        return try Value(number.magnitude)
      }
    },
    "int": int,
    "float": { (evaluator, value, arguments) throws(TemplateError) in
      let fallback = try arguments.bound(to: "float", ["default"])[0] ?? .float(0)
      switch value {
      case .undefined(let missing): throw missing.error
      case .string(let text): return text.number.map { .float($0) } ?? fallback
      default: return value.double.map { .float($0) } ?? fallback
      }
    },
    "round": { (evaluator, value, arguments) throws(TemplateError) in
      let values = try arguments.bound(to: "round", ["precision", "method"])
      let precision = try integer(values[0], 0)
      let method = try values[1].map { (value) throws(TemplateError) in try value.written(evaluator).string } ?? "common"
      guard ["common", "ceil", "floor"].contains(method) else { throw .runtime("method must be common, ceil or floor") }
      if case .undefined(let missing) = value { throw missing.error }
      if method == "common" {
        if let number = value.whole {
          if precision >= 0 { return try Value(number) }
          // Less than half of such a power of 10.
          if precision < -LargeInteger.maximumDigitCount { return .int(0) }
          return try rounded(number, to: try BinaryOperator.power.apply(.int(10), .int(-precision), evaluator).whole ?? LargeInteger(1))
        }
        guard let number = value.double else { throw .type("type \(value.typeName) doesn't define __round__ method") }
        return .float(FloatText.rounded(number, decimals: precision))
      }
      guard let number = value.double else { throw .type("must be real number, not \(value.typeName)") }
      let scale = Power.of(10, Double(precision))
      let scaled = number * scale
      guard scale != 0 else { throw .runtime("float division by zero") }
      guard scaled.isFinite else { throw .value("cannot convert float \(FloatText.repr(scaled)) to integer") }
      // Python's floor and ceil are integers, among which there is no -0.
      return .float(((method == "ceil" ? scaled.rounded(.up) : scaled.rounded(.down)) + 0.0) / scale)
    },
    "default": defaultValue, "d": defaultValue,
    "tojson": tojson,
    "attr": { (evaluator, value, arguments) throws(TemplateError) in
      guard let name = try arguments.bound(to: "attr", ["name"], required: 1)[0]?.text else { throw .type("attr needs a name") }
      if case .undefined(let missing) = value { throw missing.error }
      if case .dict = value {
        // The attribute alone, never the item.
        let plain = try Value.dict(ValueDictionary([], evaluator)).attribute(name, evaluator)
        if plain.isUndefined { return .undefined(Missing(value, lacks: .string(name))) }
      }
      return try value.attribute(name, evaluator)
    },
  ]

  /// The nearest multiple, halves to the even one.
  private static func rounded(_ number: LargeInteger, to unit: LargeInteger) throws(TemplateError) -> Value {
    let (quotient, rest) = number.divided(by: unit)
    let twice = rest + rest
    let isUp = twice > unit || twice == unit && quotient.divided(by: LargeInteger(2)).remainder == LargeInteger(1)
    return try Value(number - rest + (isUp ? unit : LargeInteger(0)))
  }

  private static let escape: Function = { (evaluator, value, _) throws(TemplateError) in
    let text = try softText(value, evaluator)
    return .string(text.isMarkup ? text : HTML.escaped(text).asMarkup())
  }

  private static let defaultValue: Function = { (evaluator, value, arguments) throws(TemplateError) in
    let values = try arguments.bound(to: "default", ["default_value", "boolean"])
    let fallback = values[0] ?? .text("")
    let isBoolean = values[1]?.isTrue ?? false
    return value.isUndefined || isBoolean && !value.isTrue ? fallback : value
  }

  private static let tojson: Function = { (evaluator, value, arguments) throws(TemplateError) in
    let values = try arguments.bound(to: "tojson", ["ensure_ascii", "indent", "separators", "sort_keys"])
    var writer = JSONWriter()
    writer.ensuresASCII = values[0]?.isTrue ?? false
    writer.sortsKeys = values[3]?.isTrue ?? false
    switch values[1] {
    case nil, .some(.none): break
    case .some(.string(let text)): writer.indent = text
    case .some(let value):
      let count = try integer(value, 0)
      guard count <= 1000 else { throw TemplateError(.limit, "tojson indents by \(count), and 1000 is the most") }
      writer.indent = Text(Array(repeating: UInt8(ascii: " "), count: max(0, count)))
    }
    if writer.indent != nil { writer.itemSeparator = "," }
    if let separators = values[2], separators != .none {
      let pair = try separators.elements(evaluator)
      guard pair.count == 2, let item = pair[0].text, let key = pair[1].text else {
        throw .value("separators must be two strings")
      }
      (writer.itemSeparator, writer.keySeparator) = (item, key)
    }
    return .string(try writer.write(value, evaluator))
  }

  /// Words begin after white space, dashes and opening brackets, not after apostrophes as with Python's own.
  @Sendable private static func titled(_ text: Text) -> Text {
    var isStart = true
    let breaks: Set<Unicode.Scalar> = ["-", "(", "{", "[", "<"]
    // Lower-cased as one text first, so that a sigma at a word's end is right.
    return text.lowercased.mapScalars { scalar, _ in
      defer { isStart = scalar.isPythonSpace || breaks.contains(scalar) }
      return isStart ? scalar.properties.uppercaseMapping : nil
    }
  }

  private static let striptags: Function = { (evaluator, value, _) throws(TemplateError) in
    var result = try softText(value, evaluator)
    func cut(_ opening: Text, _ closing: Text) throws(TemplateError) {
      while let start = result.firstIndex(of: opening), let end = result.firstIndex(of: closing, from: start + opening.count) {
        var rest = result[0..<start]
        rest.append(result[(end + closing.count)..<result.count])
        // One at a time, as what is left may be a tag again.
        try evaluator.spend(bytes: result.count)
        result = rest
      }
    }
    try cut("<!--", "-->")
    try cut("<", ">")
    return .string(Text.joined(result.splitAtSpace(limit: -1), separator: " ").asMarkup(false))
  }

  private static let indent: Function = { (evaluator, value, arguments) throws(TemplateError) in
    let values = try arguments.bound(to: "indent", ["width", "first", "blank"])
    if case .undefined(let missing) = value { throw missing.error }
    guard case .string(let text) = value else { throw .type("unsupported operand type(s) for +=: '\(value.typeName)' and 'str'") }
    let indention: Text
    switch values[0] {
    case .some(.string(let prefix)): indention = prefix
    case let width:
      let count = try integer(width, 4)
      try evaluator.spend(bytes: max(0, count))
      indention = Text(Array(repeating: UInt8(ascii: " "), count: max(0, count)))
    }
    let (first, blank) = (values[1]?.isTrue ?? false, values[2]?.isTrue ?? false)
    // A newline at the end counts as an empty line.
    var padded = text
    padded.append("\n")
    let lines = padded.lines(keepsEnds: false)
    try evaluator.spend(bytes: text.count + lines.count * indention.count)
    var result = Text()
    for (index, line) in lines.enumerated() {
      if index > 0 { result.append("\n") }
      let isIndented = index == 0 ? first : blank || !line.isEmpty
      if isIndented { result.append(indention) }
      result.append(line)
    }
    return .string(result.asMarkup(text.isMarkup))
  }

  private static let truncate: Function = { (evaluator, value, arguments) throws(TemplateError) in
    let values = try arguments.bound(to: "truncate", ["length", "killwords", "end", "leeway"])
    let text = try softText(value, evaluator)
    let length = try integer(values[0], 255)
    let end = try values[2].map { (value) throws(TemplateError) in try value.written(evaluator) } ?? "..."
    var leeway = 5
    if let given = values[3], given != .none { leeway = try integer(given, 5) }
    guard length >= end.scalarCount else { throw .runtime("expected length >= \(end.scalarCount), got \(length)") }
    guard leeway >= 0 else { throw .runtime("expected leeway >= 0, got \(leeway)") }
    let starts = text.scalarStarts
    if starts.count - 1 - length <= leeway { return .string(text) }
    var kept = text[0..<starts[length - end.scalarCount]]
    if !(values[1]?.isTrue ?? false), let space = kept.lastIndex(of: " ") { kept = kept[0..<space] }
    kept.append(end)
    return .string(kept)
  }

  private static let urlencode: Function = { (evaluator, value, _) throws(TemplateError) in
    func quoted(_ text: Text, _ isForm: Bool) -> Text {
      text.mapScalars { scalar, _ in
        if scalar.value < 0x80,
          scalar.properties.isAlphabetic || ("0"..."9").contains(scalar) || "_.-~".unicodeScalars.contains(scalar)
            || !isForm && scalar == "/"
        {
          return nil
        }
        if isForm && scalar == " " { return "+" }
        return String(scalar).utf8.map { "%" + Hex.padded(UInt32($0), 2).uppercased() }.joined()
      }
    }
    guard case .dict(let dictionary) = value else {
      let text = try softText(value, evaluator)
      try evaluator.spend(bytes: 3 * text.count)
      return .string(quoted(text, false))
    }
    var parts: [Text] = []
    for (key, value) in dictionary.pairs {
      var part = quoted(try key.written(evaluator), true)
      part.append("=")
      part.append(quoted(try value.written(evaluator), true))
      try evaluator.spend(bytes: part.count)
      parts.append(part)
    }
    return .string(Text.joined(parts, separator: "&"))
  }

  private static let int: Function = { (evaluator, value, arguments) throws(TemplateError) in
    let values = try arguments.bound(to: "int", ["default", "base"])
    let fallback = values[0] ?? .int(0)
    let base = try integer(values[1], 10)
    switch value {
    case .undefined(let missing): throw missing.error
    case .int, .largeInt: return value
    case .bool(let value): return .int(value ? 1 : 0)
    case .float(let number):
      if number.isNaN { return fallback }
      guard let whole = LargeInteger(number) else { throw .runtime("cannot convert float infinity to integer") }
      return try Value(whole)
    case .string(let text):
      if let number = try text.integer(base: base) { return number }
      guard let number = text.number, let whole = LargeInteger(number) else { return fallback }
      return try Value(whole)
    default: return fallback
    }
  }
}

extension Text {
  /// With the decimal digits of all scripts as those of ASCII.
  private var withASCIIDigits: Text {
    isASCII
      ? self
      : mapScalars { scalar, _ in
        guard scalar.properties.numericType == .decimal, let value = scalar.properties.numericValue else { return nil }
        return "\(Int(value))"
      }
  }

  /// As Python's `float` reads a text.
  fileprivate var number: Double? {
    let text = withASCIIDigits.stripped(nil).string.lowercased()
    let sign = text.hasPrefix("-") || text.hasPrefix("+") ? text.prefix(1) : ""
    switch text.dropFirst(sign.count) {
    case "inf", "infinity": return sign == "-" ? -Double.infinity : Double.infinity
    case "nan": return Double.nan
    default: break
    }
    var bytes = Array(text.utf8)
    guard bytes.allSatisfy({ (0x30...0x39).contains($0) || [0x2B, 0x2D, 0x2E, 0x5F, 0x65].contains($0) }) else { return nil }
    // An underscore stands between digits.
    for (index, byte) in bytes.enumerated() where byte == 0x5F {
      guard index > 0, index + 1 < bytes.count, (0x30...0x39).contains(bytes[index - 1]), (0x30...0x39).contains(bytes[index + 1]) else {
        return nil
      }
    }
    bytes.removeAll { $0 == 0x5F }
    let plain = String(decoding: bytes, as: UTF8.self)
    // Swift asks for digits on both sides of a point.
    let completed =
      plain.hasSuffix(".") ? plain + "0" : plain.split(separator: ".e", omittingEmptySubsequences: false).joined(separator: ".0e")
    return Double(completed.hasPrefix(".") ? "0" + completed : completed.hasPrefix("-.") ? "-0" + completed.dropFirst() : completed)
  }

  /// As Python's `int` reads a text.
  fileprivate func integer(base: Int) throws(TemplateError) -> Value? {
    var text = withASCIIDigits.stripped(nil).string.lowercased()
    let isNegative = text.hasPrefix("-")
    if isNegative || text.hasPrefix("+") { text.removeFirst() }
    guard let first = text.utf8.first, first != 0x2B, first != 0x2D else { return nil }
    var base = base
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] where text.hasPrefix(prefix) && (base == radix || base == 0) {
      text.removeFirst(2)
      base = radix
      if text.hasPrefix("_") { text.removeFirst() }
    }
    if base == 0 { base = 10 }
    guard (2...36).contains(base), !text.hasPrefix("_"), !text.hasSuffix("_"), !text.contains("__") else { return nil }
    text.removeAll { $0 == "_" }
    if let value = Int((isNegative ? "-" : "") + text, radix: base) { return .int(value) }
    guard text.utf8.count <= LargeInteger.maximumDigitCount else { throw LargeInteger.tooLarge }
    return try LargeInteger((isNegative ? "-" : "") + text, radix: base).map { (value) throws(TemplateError) in try Value(value) }
  }
}
