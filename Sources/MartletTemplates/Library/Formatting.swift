// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Python's `'…' % values`.
enum PercentFormat {
  static func apply(_ format: Text, _ operand: Value, _ evaluator: Evaluator) throws(TemplateError) -> Text {
    var values: [Value]
    if case .tuple(let elements) = operand { values = elements.values } else { values = [operand] }
    var used = 0
    var usesNames = false
    var result = Text().asMarkup(format.isMarkup)
    func next() throws(TemplateError) -> Value {
      guard used < values.count else { throw .type("not enough arguments for format string") }
      used += 1
      return values[used - 1]
    }
    var (index, plain) = (0, 0)
    let bytes = format.bytes
    func at(_ index: Int) -> UInt8? { index < bytes.count ? bytes[index] : nil }
    while index < bytes.count {
      guard bytes[index] == UInt8(ascii: "%") else {
        index += 1
        continue
      }
      result.append(format[plain..<index])
      index += 1
      var spec = FormatSpec()
      var named: Value?
      if at(index) == UInt8(ascii: "(") {
        guard let end = format.firstIndex(of: ")", from: index) else { throw .value("incomplete format key") }
        guard case .dict(let dictionary) = operand else { throw .type("format requires a mapping") }
        let key = format[(index + 1)..<end]
        guard let value = dictionary[key] else { throw TemplateError(.runtime, "'\(key.string)'") }
        named = value
        usesNames = true
        index = end + 1
      }
      while let flag = at(index), "-+ #0".utf8.contains(flag) {
        switch flag {
        case UInt8(ascii: "-"): spec.align = "<"
        case UInt8(ascii: "+"): spec.sign = "+"
        case UInt8(ascii: " "): if spec.sign != "+" { spec.sign = " " }
        case UInt8(ascii: "#"): spec.isAlternate = true
        default: spec.isZeroPadded = true
        }
        index += 1
      }
      func number() throws(TemplateError) -> Int {
        if at(index) == UInt8(ascii: "*") {
          index += 1
          guard let value = try next().integer else { throw .type("* wants int") }
          return value
        }
        var number = 0
        while let digit = at(index), (0x30...0x39).contains(digit) {
          number = min(number * 10 + Int(digit - 0x30), FormatSpec.maximumWidth + 1)
          index += 1
        }
        return number
      }
      spec.width = try number()
      if spec.width < 0 {
        spec.align = "<"
        spec.width = -max(spec.width, -FormatSpec.maximumWidth - 1)
      }
      if at(index) == UInt8(ascii: ".") {
        index += 1
        let precision = try number()
        guard Int32(exactly: precision) != nil else { throw .runtime("Python int too large to convert to C int") }
        spec.precision = max(0, precision)
      }
      while let modifier = at(index), "hlL".utf8.contains(modifier) { index += 1 }
      guard let conversion = at(index) else { throw .value("incomplete format") }
      index += 1
      plain = index
      if conversion == UInt8(ascii: "%") {
        result.append("%")
        continue
      }
      try spec.check(evaluator)
      let value: Value
      if let named { value = named } else { value = try next() }
      let kind = Character(Unicode.Scalar(conversion))
      switch kind {
      case "s", "r", "a":
        var text: Text
        if kind == "s" {
          text = try value.written(evaluator)
          if format.isMarkup && !text.isMarkup { text = HTML.escaped(text) }
        } else {
          text = Text()
          try value.appendRepr(to: &text, evaluator)
        }
        text.isMarkup = false
        if let precision = spec.precision { text = text.prefix(scalars: precision) }
        if spec.align == nil { spec.align = ">" }
        try evaluator.spend(bytes: text.count + spec.width)
        result.append(spec.padded(text))
      case "d", "i", "u", "x", "X", "o":
        if case .undefined(let missing) = value { throw missing.error }
        let number: LargeInteger
        switch value {
        case .float(let float) where kind == "d" || kind == "i" || kind == "u":
          guard let whole = LargeInteger(float) else { throw .runtime("cannot convert float \(FloatText.repr(float)) to integer") }
          number = whole
        default:
          guard let integer = value.whole else {
            throw .type(
              "%\(kind) format: a\(kind == "d" || kind == "i" || kind == "u" ? " real number" : "n integer") is required, not \(value.typeName)"
            )
          }
          number = integer
        }
        spec.type = kind == "i" || kind == "u" ? "d" : kind
        let minimum = spec.precision ?? 0
        spec.precision = nil
        result.append(Text(spec.integer(number, minimumDigits: minimum)))
      case "f", "F", "e", "E", "g", "G":
        if case .undefined(let missing) = value { throw missing.error }
        guard let number = value.double else { throw .type("must be real number, not \(value.typeName)") }
        spec.type = kind
        try spec.checkFloat()
        result.append(Text(spec.float(number)))
      case "c":
        if case .string(let text) = value, text.scalarCount == 1 {
          result.append(spec.padded(text))
        } else if let code = value.integer, let scalar = UInt32(exactly: code).flatMap(Unicode.Scalar.init) {
          result.append(spec.padded(Text(String(scalar))))
        } else {
          throw .type("%c requires int or char")
        }
      default: throw .value("unsupported format character '\(kind)' (0x\(String(conversion, radix: 16))) at index \(index - 1)")
      }
    }
    result.append(format[plain..<bytes.count])
    if used < values.count, !usesNames {
      // A single mapping may be left unread.
      if case .dict = operand { return result }
      throw .type("not all arguments converted during string formatting")
    }
    return result
  }
}

/// Python's `'…'.format(…)`.
enum BraceFormat {
  static func apply(_ format: Text, _ arguments: Arguments, _ evaluator: Evaluator) throws(TemplateError) -> Text {
    var automatic = 0
    return try apply(format, arguments, &automatic, level: 0, evaluator)
  }

  private static func apply(
    _ format: Text, _ arguments: Arguments, _ automatic: inout Int, level: Int, _ evaluator: Evaluator
  ) throws(TemplateError) -> Text {
    guard level < 2 else { throw .value("Max string recursion exceeded") }
    var result = Text().asMarkup(format.isMarkup)
    let bytes = format.bytes
    var index = 0
    let (open, close) = (UInt8(ascii: "{"), UInt8(ascii: "}"))
    while index < bytes.count {
      let byte = bytes[index]
      guard byte == open || byte == close else {
        let start = index
        while index < bytes.count, bytes[index] != open, bytes[index] != close { index += 1 }
        result.append(format[start..<index])
        continue
      }
      if index + 1 < bytes.count, bytes[index + 1] == byte {
        result.append(format[index..<(index + 1)])
        index += 2
        continue
      }
      guard byte == open else { throw .value("Single '}' encountered in format string") }
      var (end, depth) = (index + 1, 1)
      while end < bytes.count {
        if bytes[end] == open { depth += 1 }
        if bytes[end] == close { depth -= 1 }
        if depth == 0 { break }
        end += 1
      }
      guard depth == 0 else { throw .value("expected '}' before end of string") }
      let field = format[(index + 1)..<end]
      index = end + 1
      result.append(try self.field(field, format.isMarkup, arguments, &automatic, level, evaluator))
    }
    return result
  }

  private static func field(
    _ field: Text, _ isMarkup: Bool, _ arguments: Arguments, _ automatic: inout Int, _ level: Int, _ evaluator: Evaluator
  ) throws(TemplateError) -> Text {
    // name, then !conversion, then :specification; a bracket of the name may hold either sign
    var (end, isInBracket) = (0, false)
    while end < field.count {
      let byte = field.bytes[end]
      if byte == UInt8(ascii: "[") { isInBracket = true }
      if byte == UInt8(ascii: "]") { isInBracket = false }
      if !isInBracket, byte == UInt8(ascii: "!") || byte == UInt8(ascii: ":") { break }
      end += 1
    }
    let name = field[0..<end]
    var conversion: UInt8?
    if end < field.count, field.bytes[end] == UInt8(ascii: "!") {
      guard end + 1 < field.count else { throw .value("end of string while looking for conversion specifier") }
      conversion = field.bytes[end + 1]
      end += 2
      guard end == field.count || field.bytes[end] == UInt8(ascii: ":") else { throw .value("expected ':' after conversion specifier") }
    }
    var value = try look(name, arguments, &automatic, evaluator)
    let specification =
      end < field.count ? try apply(field[(end + 1)..<field.count], arguments, &automatic, level: level + 1, evaluator) : Text()
    switch conversion {
    case nil: break
    case UInt8(ascii: "s"): value = .string(try value.written(evaluator))
    case UInt8(ascii: "r"), UInt8(ascii: "a"):
      var text = Text()
      try value.appendRepr(to: &text, evaluator)
      value = .string(text)
    case let other?: throw .value("Unknown conversion specifier '\(Character(Unicode.Scalar(other)))'")
    }
    var text = try formatted(value, specification, evaluator)
    if isMarkup && !(value.text?.isMarkup ?? false) { text = HTML.escaped(text) }
    return text.asMarkup(false)
  }

  private static func look(
    _ name: Text, _ arguments: Arguments, _ automatic: inout Int, _ evaluator: Evaluator
  ) throws(TemplateError) -> Value {
    var end = 0
    while end < name.count, name.bytes[end] != UInt8(ascii: "."), name.bytes[end] != UInt8(ascii: "[") { end += 1 }
    let first = name[0..<end].string
    var value: Value
    if first.isEmpty || first.utf8.allSatisfy({ (0x30...0x39).contains($0) }) {
      let place: Int
      if first.isEmpty {
        guard automatic >= 0 else { throw .value("cannot switch from manual field specification to automatic field numbering") }
        place = automatic
        automatic += 1
      } else {
        guard automatic <= 0 else { throw .value("cannot switch from automatic field numbering to manual field specification") }
        automatic = -1
        place = Int(first) ?? Int.max
      }
      guard place < arguments.positional.count else {
        throw .runtime("Replacement index \(place) out of range for positional args tuple")
      }
      value = arguments.positional[place]
    } else {
      guard let named = arguments[first] else { throw .runtime("'\(first)'") }
      value = named
    }
    while end < name.count {
      if name.bytes[end] == UInt8(ascii: ".") {
        let start = end + 1
        end = start
        while end < name.count, name.bytes[end] != UInt8(ascii: "."), name.bytes[end] != UInt8(ascii: "[") { end += 1 }
        guard end > start else { throw .value("Empty attribute in format string") }
        value = try value.attribute(name[start..<end], evaluator)
      } else {
        guard name.bytes[end] == UInt8(ascii: "[") else { throw .value("Only '.' or '[' may follow ']' in format field specifier") }
        guard let close = name.firstIndex(of: "]", from: end) else { throw .value("Missing ']' in format string") }
        let key = name[(end + 1)..<close]
        guard !key.isEmpty else { throw .value("Empty attribute in format string") }
        let number = !key.isEmpty && key.bytes.allSatisfy { (0x30...0x39).contains($0) } ? Int(key.string) : nil
        value = try value.item(number.map { .int($0) } ?? .string(key), evaluator)
        end = close + 1
      }
    }
    return value
  }

  private static func formatted(_ value: Value, _ specification: Text, _ evaluator: Evaluator) throws(TemplateError) -> Text {
    if specification.isEmpty { return try value.written(evaluator) }
    if case .undefined = value { throw .type("unsupported format string passed to Undefined.__format__") }
    var spec = try FormatSpec(specification.string)
    try spec.check(evaluator)
    switch value {
    case .string(let text):
      guard spec.type == nil || spec.type == "s" else {
        throw .value("Unknown format code '\(spec.type!)' for object of type 'str'")
      }
      if spec.align == nil { spec.align = "<" }
      return spec.padded(spec.precision.map { text.prefix(scalars: $0) } ?? text)
    case .int, .bool, .largeInt:
      if let type = spec.type, "eEfFgG%".contains(type) {
        try spec.checkFloat()
        return Text(spec.float(value.double ?? 0))
      }
      guard spec.type == nil || "dxXobcn".contains(spec.type!) else {
        throw .value("Unknown format code '\(spec.type!)' for object of type 'int'")
      }
      guard spec.precision == nil else { throw .value("Precision not allowed in integer format specifier") }
      return Text(spec.integer(value.whole ?? LargeInteger(0), minimumDigits: 0))
    case .float(let number):
      guard spec.type == nil || "eEfFgGn%".contains(spec.type!) else {
        throw .value("Unknown format code '\(spec.type!)' for object of type 'float'")
      }
      try spec.checkFloat()
      return Text(spec.float(number))
    default: throw .type("unsupported format string passed to \(value.typeName).__format__")
    }
  }
}

/// How one value is laid out.
struct FormatSpec {
  static let maximumWidth = 1 << 20

  var fill: Unicode.Scalar = " "
  var align: Character?
  var sign: Character = "-"
  var isAlternate = false
  var isZeroPadded = false
  var width = 0
  var grouping: Character?
  var precision: Int?
  var type: Character?

  init() {}

  /// `[[fill]align][sign][#][0][width][,][.precision][type]`
  init(_ text: String) throws(TemplateError) {
    var rest = Array(text.unicodeScalars)[...]
    let aligns: Set<Unicode.Scalar> = ["<", ">", "^", "="]
    if rest.count > 1, aligns.contains(rest[1]) {
      fill = rest[0]
      align = Character(rest[1])
      rest = rest.dropFirst(2)
    } else if let first = rest.first, aligns.contains(first) {
      align = Character(first)
      rest = rest.dropFirst()
    }
    if let first = rest.first, first == "+" || first == "-" || first == " " {
      sign = Character(first)
      rest = rest.dropFirst()
    }
    if rest.first == "#" {
      isAlternate = true
      rest = rest.dropFirst()
    }
    if rest.first == "0" {
      isZeroPadded = true
      rest = rest.dropFirst()
    }
    func number() -> Int? {
      var number: Int?
      while let digit = rest.first, ("0"..."9").contains(digit) {
        number = min((number ?? 0) * 10 + Int(digit.value - 0x30), Self.maximumWidth + 1)
        rest = rest.dropFirst()
      }
      return number
    }
    width = number() ?? 0
    if let first = rest.first, first == "," || first == "_" {
      grouping = Character(first)
      rest = rest.dropFirst()
    }
    if rest.first == "." {
      rest = rest.dropFirst()
      guard let digits = number() else { throw .value("Format specifier missing precision") }
      precision = digits
    }
    if let first = rest.first {
      type = Character(first)
      rest = rest.dropFirst()
    }
    guard rest.isEmpty else { throw .value("Invalid format specifier '\(text)'") }
    if isZeroPadded, align == nil {
      fill = "0"
      align = "="
    }
  }

  func check(_ evaluator: Evaluator) throws(TemplateError) {
    guard width <= Self.maximumWidth, precision ?? 0 <= Self.maximumWidth else {
      throw TemplateError(.limit, "a width or precision beyond \(Self.maximumWidth)")
    }
    try evaluator.spend(bytes: width + (precision ?? 0))
  }

  /// What C is asked for must fit its buffer.
  func checkFloat() throws(TemplateError) {
    guard precision ?? 0 <= FloatText.maximumPrecision else {
      throw TemplateError(.limit, "a number with more than \(FloatText.maximumPrecision) decimals")
    }
  }

  func padded(_ text: Text) -> Text {
    let fill = Text(String(fill))
    switch align {
    case "<": return text.padded(to: width, left: false, right: true, with: fill)
    case "^":
      let missing = width - text.scalarCount
      guard missing > 0 else { return text }
      let half = text.padded(to: width - (missing - missing / 2), left: true, right: false, with: fill)
      return half.padded(to: width, left: false, right: true, with: fill)
    default: return text.padded(to: width, left: true, right: false, with: fill)
    }
  }

  private func laid(out digits: String, isNegative: Bool, prefix: String = "") -> String {
    let sign = isNegative ? "-" : self.sign == "-" ? "" : String(self.sign)
    let fillsInside = align == "=" || isZeroPadded && align == nil
    if fillsInside {
      let missing = width - sign.utf8.count - prefix.utf8.count - digits.utf8.count
      return sign + prefix + String(repeating: isZeroPadded ? "0" : String(fill), count: max(0, missing)) + digits
    }
    return padded(Text(sign + prefix + digits)).string
  }

  private func grouped(_ digits: String) -> String {
    guard let grouping else { return digits }
    var result = ""
    for (index, digit) in digits.enumerated() {
      if index > 0, (digits.utf8.count - index) % 3 == 0 { result.append(grouping) }
      result.append(digit)
    }
    return result
  }

  func integer(_ value: LargeInteger, minimumDigits: Int) -> String {
    let magnitude = value.magnitude
    var digits: String
    var prefix = ""
    switch type {
    case "x", "X":
      digits = magnitude.digits(radix: 16, uppercase: type == "X")
      if isAlternate { prefix = type == "X" ? "0X" : "0x" }
    case "o":
      digits = magnitude.digits(radix: 8)
      if isAlternate { prefix = "0o" }
    case "b":
      digits = magnitude.digits(radix: 2)
      if isAlternate { prefix = "0b" }
    case "c":
      return padded(Text(value.int.flatMap { UInt32(exactly: $0) }.flatMap(Unicode.Scalar.init).map { String($0) } ?? "")).string
    default: digits = grouped(magnitude.digits())
    }
    digits = String(repeating: "0", count: max(0, min(minimumDigits, Self.maximumWidth) - digits.utf8.count)) + digits
    return laid(out: digits, isNegative: value.isNegative, prefix: prefix)
  }

  func float(_ value: Double) -> String {
    var digits: String
    let magnitude = value.magnitude
    if !value.isFinite {
      digits = value.isNaN ? "nan" : "inf"
      if let type, type.isUppercase { digits = digits.uppercased() }
    } else if type == "%" {
      digits = FloatText.formatted(magnitude * 100, precision: precision ?? 6, conversion: "f") + "%"
    } else if let type, type != "n" {
      digits = FloatText.formatted(magnitude, precision: precision ?? 6, conversion: type, alternate: isAlternate)
    } else if let precision {
      digits = FloatText.formatted(magnitude, precision: max(1, precision), conversion: "g")
      if !digits.contains("e"), !digits.contains(".") { digits += ".0" }
    } else {
      digits = FloatText.repr(magnitude)
    }
    if grouping != nil, value.isFinite {
      let whole = digits.prefix { ("0"..."9").contains($0) }
      digits = grouped(String(whole)) + digits.dropFirst(whole.count)
    }
    return laid(out: digits, isNegative: value.sign == .minus && !value.isNaN)
  }
}

extension Text {
  fileprivate func prefix(scalars count: Int) -> Text {
    let starts = scalarStarts
    return count < starts.count - 1 ? self[0..<starts[count]] : self
  }
}
