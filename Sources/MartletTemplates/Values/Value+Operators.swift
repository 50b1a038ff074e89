// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Python's operators. An undefined operand is an error everywhere but in `==`, `in` and `~`.

enum BinaryOperator: String, Sendable {
  case add = "+"
  case subtract = "-"
  case multiply = "*"
  case divide = "/"
  case floorDivide = "//"
  case remainder = "%"
  case power = "**"
}

enum Comparison: String, Sendable {
  case equal = "=="
  case notEqual = "!="
  case less = "<"
  case lessOrEqual = "<="
  case greater = ">"
  case greaterOrEqual = ">="
  case isIn = "in"
  case isNotIn = "not in"
}

extension BinaryOperator {
  func apply(_ left: Value, _ right: Value, _ evaluator: Evaluator) throws(TemplateError) -> Value {
    if case .undefined(let missing) = left { throw missing.error }
    // Python formats with whatever stands right of `%`, an undefined value included.
    if case .undefined(let missing) = right, !(self == .remainder && left.text != nil) { throw missing.error }
    switch self {
    case .add:
      if let sum = try added(left, right, evaluator) { return sum }
    case .remainder:
      if case .string(let format) = left { return .string(try PercentFormat.apply(format, right, evaluator)) }
    case .multiply:
      if let repeated = try repetition(left, right, evaluator) { return repeated }
    default: break
    }
    if let result = try integers(left, right, evaluator) { return result }
    guard let a = left.double, let b = right.double else { throw unsupported(left, right) }
    for value in [left, right] {
      if case .largeInt = value, value.double?.isInfinite ?? false { throw TemplateError(.runtime, "int too large to convert to float") }
    }
    return .float(try floats(a, b))
  }

  private func unsupported(_ left: Value, _ right: Value) -> TemplateError {
    let name = self == .power ? "** or pow()" : rawValue
    return .type("unsupported operand type(s) for \(name): '\(left.typeName)' and '\(right.typeName)'")
  }

  /// Of what is no number; nil of numbers.
  private func added(_ left: Value, _ right: Value, _ evaluator: Evaluator) throws(TemplateError) -> Value? {
    switch (left, right) {
    case (.string(let a), .string(let b)):
      try evaluator.spend(bytes: a.count + b.count)
      var joined = a.isMarkup || !b.isMarkup ? a : HTML.escaped(a).asMarkup()
      joined.append(a.isMarkup && !b.isMarkup ? HTML.escaped(b) : b)
      joined.isMarkup = a.isMarkup || b.isMarkup
      return .string(joined)
    case (.list(let a), .list(let b)): return .list(try Elements(a.values + b.values, evaluator))
    case (.tuple(let a), .tuple(let b)): return .tuple(try Elements(a.values + b.values, evaluator))
    case (.string, _): throw .type("can only concatenate str (not \"\(right.typeName)\") to str")
    case (.list, _): throw .type("can only concatenate list (not \"\(right.typeName)\") to list")
    case (.tuple, _): throw .type("can only concatenate tuple (not \"\(right.typeName)\") to tuple")
    default: return nil
    }
  }

  private func repetition(_ left: Value, _ right: Value, _ evaluator: Evaluator) throws(TemplateError) -> Value? {
    let (sequence, times): (Value, Int)
    switch (left, right) {
    case (.string, _), (.list, _), (.tuple, _):
      guard let count = right.integer else {
        throw .type("can't multiply sequence by non-int of type '\(right.typeName)'")
      }
      (sequence, times) = (left, max(count, 0))
    case (_, .string), (_, .list), (_, .tuple):
      guard let count = left.integer else { throw .type("can't multiply sequence by non-int of type '\(left.typeName)'") }
      (sequence, times) = (right, max(count, 0))
    default: return nil
    }
    switch sequence {
    case .string(let text):
      let (size, overflow) = text.count.multipliedReportingOverflow(by: times)
      try evaluator.spend(bytes: overflow ? Int.max : size)
      return .string(text.repeated(times))
    case .list(let elements), .tuple(let elements):
      let (size, overflow) = elements.values.count.multipliedReportingOverflow(by: times)
      try evaluator.spend(elements: overflow ? Int.max : size)
      var values: [Value] = []
      if !elements.values.isEmpty { for _ in 0..<times { values += elements.values } }
      let result = try Elements(values, evaluator)
      if case .tuple = sequence { return .tuple(result) }
      return .list(result)
    default: return nil
    }
  }

  private static func division(_ what: String) -> TemplateError { TemplateError(.runtime, what) }

  /// nil where one of them is no whole number.
  private func integers(_ left: Value, _ right: Value, _ evaluator: Evaluator) throws(TemplateError) -> Value? {
    if let left = left.integer, let right = right.integer, let result = try small(left, right) { return result }
    guard let left = left.whole, let right = right.whole else { return nil }
    if right.limbs.isEmpty, self != .power { _ = try small(0, 0) }
    try evaluator.spend(left.limbs.count * right.limbs.count)
    switch self {
    case .add: return try Value(left + right)
    case .subtract: return try Value(left - right)
    case .multiply: return try Value(left * right)
    case .floorDivide: return try Value(left.divided(by: right).quotient)
    case .remainder: return try Value(left.divided(by: right).remainder)
    case .divide:
      let ratio = left.ratio(to: right)
      if ratio.isInfinite { throw Self.division("integer division result too large for a float") }
      return .float(ratio)
    case .power:
      if right.isNegative { return .float(try floats(left.double, right.double)) }
      return try Value(power(left, right, evaluator))
    }
  }

  private func power(_ base: LargeInteger, _ exponent: LargeInteger, _ evaluator: Evaluator) throws(TemplateError) -> LargeInteger {
    // The result has at least as many bits as the exponent times one less than the base's.
    guard let count = exponent.int, base.bitWidth <= 1 || count <= 32 * LargeInteger.maximumLimbCount / (base.bitWidth - 1) else {
      if base.bitWidth > 1 { throw LargeInteger.tooLarge }
      return exponent.limbs[0] & 1 == 0 ? base.magnitude : base
    }
    if base.bitWidth <= 1 { return count == 0 ? LargeInteger(1) : count & 1 == 0 ? base.magnitude : base }
    var (result, square, rest) = (LargeInteger(1), base, count)
    while rest > 0 {
      try evaluator.spend(square.limbs.count * square.limbs.count)
      if rest & 1 == 1 { result = result * square }
      rest >>= 1
      if rest > 0 { square = square * square }
    }
    return result
  }

  /// In 64 bits; nil where those do not suffice.
  private func small(_ left: Int, _ right: Int) throws(TemplateError) -> Value? {
    func checked(_ result: (partialValue: Int, overflow: Bool)) -> Value? { result.overflow ? nil : .int(result.partialValue) }
    switch self {
    case .add: return checked(left.addingReportingOverflow(right))
    case .subtract: return checked(left.subtractingReportingOverflow(right))
    case .multiply: return checked(left.multipliedReportingOverflow(by: right))
    case .divide:
      if right == 0 { throw Self.division("division by zero") }
      guard max(left.magnitude, right.magnitude) <= 1 << 53 else { return nil }
      return .float(Double(left) / Double(right))
    case .floorDivide:
      if right == 0 { throw Self.division("integer division or modulo by zero") }
      let result = left.dividedReportingOverflow(by: right)
      if result.overflow { return nil }
      let rest = left - result.partialValue * right
      return .int(rest != 0 && (rest < 0) != (right < 0) ? result.partialValue - 1 : result.partialValue)
    case .remainder:
      if right == 0 { throw Self.division("integer modulo by zero") }
      if right == -1 { return .int(0) }
      let rest = left % right
      return .int(rest != 0 && (rest < 0) != (right < 0) ? rest + right : rest)
    case .power: return nil
    }
  }

  private func floats(_ left: Double, _ right: Double) throws(TemplateError) -> Double {
    switch self {
    case .add: return left + right
    case .subtract: return left - right
    case .multiply: return left * right
    case .divide:
      if right == 0 { throw Self.division("float division by zero") }
      return left / right
    case .floorDivide:
      if right == 0 { throw Self.division("float floor division by zero") }
      // From the remainder, as Python: the quotient is rounded, and may have reached a whole number that it is below.
      let rest = left.truncatingRemainder(dividingBy: right)
      var quotient = (left - rest) / right
      if rest != 0, (right < 0) != (rest < 0) { quotient -= 1 }
      if quotient == 0 { return (left / right).sign == .minus ? -0.0 : 0 }
      let whole = quotient.rounded(.down)
      return quotient - whole > 0.5 ? whole + 1 : whole
    case .remainder:
      if right == 0 { throw Self.division("float modulo") }
      let rest = left.truncatingRemainder(dividingBy: right)
      if rest == 0 { return right.sign == .minus ? -0.0 : 0 }
      return (rest < 0) != (right < 0) ? rest + right : rest
    case .power:
      if left == 0 && right < 0 { throw Self.division("0.0 cannot be raised to a negative power") }
      if left < 0 && right != right.rounded() { throw Self.division("a root of a negative number is no real number") }
      let result = Power.of(left, right)
      if result.isInfinite && left.isFinite && right.isFinite { throw Self.division("(34, 'Numerical result out of range')") }
      return result
    }
  }
}

extension Comparison {
  func apply(_ left: Value, _ right: Value, _ evaluator: Evaluator) throws(TemplateError) -> Bool {
    try evaluator.spend(comparing: left, right)
    switch self {
    case .equal: return left == right
    case .notEqual: return left != right
    case .isIn: return try right.contains(left, evaluator)
    case .isNotIn: return try !right.contains(left, evaluator)
    case .less, .lessOrEqual, .greater, .greaterOrEqual:
      return try order(left, right, evaluator)
    }
  }

  private func order(_ left: Value, _ right: Value, _ evaluator: Evaluator) throws(TemplateError) -> Bool {
    func holds<T: Comparable>(_ left: T, _ right: T) -> Bool {
      switch self {
      case .less: left < right
      case .lessOrEqual: left <= right
      case .greater: left > right
      default: left >= right
      }
    }
    switch (left, right) {
    case (.undefined(let missing), _), (_, .undefined(let missing)): throw missing.error
    case (.string(let left), .string(let right)): return holds(left, right)
    case (.list(let left), .list(let right)), (.tuple(let left), .tuple(let right)):
      for (left, right) in zip(left.values, right.values) where try !evaluator.areEqual(left, right) {
        return try order(left, right, evaluator)
      }
      return holds(left.values.count, right.values.count)
    default:
      if let left = left.integer, let right = right.integer { return holds(left, right) }
      if let difference = left.sign(against: right) { return holds(difference, 0) }
      guard let a = left.double, let b = right.double else {
        throw .type("'\(rawValue)' not supported between instances of '\(left.typeName)' and '\(right.typeName)'")
      }
      return holds(a, b)
    }
  }
}

extension Value {
  /// Below, equal to or above zero as the value is to the other; nil where one of them is no number, or both have no order.
  fileprivate func sign(against other: Value) -> Int? {
    switch (self, other) {
    case (.largeInt, .float(let right)), (.float(let right), .largeInt):
      // So far out a floating-point number is whole, or infinite.
      guard !right.isNaN, let large = whole ?? other.whole else { return nil }
      let sign = LargeInteger(right).map { large < $0 ? -1 : large == $0 ? 0 : 1 } ?? (right < 0 ? 1 : -1)
      if case .float = self { return -sign }
      return sign
    case (.largeInt, _), (_, .largeInt):
      guard let left = whole, let right = other.whole else { return nil }
      return left < right ? -1 : left == right ? 0 : 1
    case (.float(let left), _):
      guard let right = other.integer, !left.isNaN else { return nil }
      return Self.sign(left, against: right)
    case (_, .float(let right)):
      guard let left = integer, !right.isNaN else { return nil }
      return -Self.sign(right, against: left)
    default: return nil
    }
  }

  /// Exact: an integer of more than 53 bits is not rounded to be compared.
  private static func sign(_ left: Double, against right: Int) -> Int {
    if left >= 0x1p63 { return 1 }
    if left < -0x1p63 { return -1 }
    let whole = Int(left.rounded(.towardZero))
    if whole != right { return whole < right ? -1 : 1 }
    let fraction = left - left.rounded(.towardZero)
    return fraction == 0 ? 0 : fraction < 0 ? -1 : 1
  }

  /// Python's `in`.
  func contains(_ element: Value, _ evaluator: Evaluator) throws(TemplateError) -> Bool {
    switch self {
    case .undefined: return false
    case .string(let text):
      guard case .string(let part) = element else {
        throw .type("'in <string>' requires string as left operand, not \(element.typeName)")
      }
      try evaluator.spend(bytes: text.count)
      return text.firstIndex(of: part) != nil
    case .list(let elements), .tuple(let elements):
      try evaluator.spend(elements: elements.values.count)
      for value in elements.values where try evaluator.areEqual(value, element) { return true }
      return false
    case .dict(let dictionary): return dictionary.place(of: try evaluator.key(element)) != nil
    case .range(let range):
      guard let wanted = element.double.flatMap({ Int(exactly: $0) }), range.count > 0 else { return false }
      // Within its ends first, so that no distance overflows.
      let (first, last) = (range[0], range[range.count - 1])
      guard min(first, last)...max(first, last) ~= wanted else { return false }
      return (wanted - first).isMultiple(of: range.step)
    case .view, .generator, .loop:
      var found = false
      try forEach(evaluator) { (value) throws(TemplateError) in
        found = try evaluator.areEqual(value, element)
        return !found
      }
      return found
    default: throw .type("argument of type '\(typeName)' is not iterable")
    }
  }

  /// `-x` and `+x`.
  func negated(_ isNegative: Bool) throws(TemplateError) -> Value {
    switch self {
    case .undefined(let missing): throw missing.error
    case .float(let value): return .float(isNegative ? -value : value)
    default:
      guard let value = whole else { throw .type("bad operand type for unary \(isNegative ? "-" : "+"): '\(typeName)'") }
      return try Value(isNegative ? -value : value)
    }
  }

  /// Calls `body` with every element until it returns false.
  func forEach(_ evaluator: Evaluator, _ body: (Value) throws(TemplateError) -> Bool) throws(TemplateError) {
    let next = try iterator(evaluator)
    while let value = try next() {
      try evaluator.spend()
      if try !body(value) { return }
    }
  }

  /// The elements one by one. Nothing of an undefined value.
  func iterator(_ evaluator: Evaluator) throws(TemplateError) -> () throws(TemplateError) -> Value? {
    switch self {
    case .undefined: return { () throws(TemplateError) -> Value? in nil }
    case .list(let elements), .tuple(let elements): return Self.iterate(elements.values)
    case .dict(let dictionary): return Self.iterate(dictionary.keys)
    case .view(let view): return Self.iterate(try view.elements(evaluator))
    case .string(let text):
      var index = 0
      return { () throws(TemplateError) -> Value? in
        guard index < text.count else { return nil }
        let start = index
        index = text.scalar(at: index).end
        return .string(text[start..<index].asMarkup(false))
      }
    case .range(let range):
      var index = 0
      return { () throws(TemplateError) -> Value? in
        guard index < range.count else { return nil }
        index += 1
        return .int(range[index - 1])
      }
    case .generator(let generator): return { () throws(TemplateError) -> Value? in try generator.next() }
    case .loop(let loop):
      return { () throws(TemplateError) -> Value? in
        try loop.advance() ? .tuple(try Elements([loop.current, .loop(loop)], evaluator)) : nil
      }
    default: throw .type("'\(typeName)' object is not iterable")
    }
  }

  private static func iterate(_ values: [Value]) -> () throws(TemplateError) -> Value? {
    var index = 0
    return { () throws(TemplateError) -> Value? in
      guard index < values.count else { return nil }
      index += 1
      return values[index - 1]
    }
  }

  /// All elements.
  func elements(_ evaluator: Evaluator) throws(TemplateError) -> [Value] {
    switch self {
    case .list(let elements), .tuple(let elements): return elements.values
    case .dict(let dictionary): return dictionary.keys
    default:
      var values: [Value] = []
      try forEach(evaluator) { (value) throws(TemplateError) in
        try evaluator.spend(elements: 1)
        values.append(value)
        return true
      }
      return values
    }
  }

  /// Python's `len`.
  func length() throws(TemplateError) -> Int {
    switch self {
    case .undefined: return 0
    case .string(let text): return text.scalarCount
    case .list(let elements), .tuple(let elements): return elements.values.count
    case .dict(let dictionary): return dictionary.count
    case .range(let range): return range.count
    case .view(let view): return view.dictionary.count
    case .loop(let loop): return try loop.length()
    default: throw .type("object of type '\(typeName)' has no len()")
    }
  }
}
