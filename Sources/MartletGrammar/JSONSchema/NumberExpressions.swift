// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Sets of numbers as expressions over the ways to write them.
///
/// A set has two expressions. `exact` has the numbers without exponents, and without a minus before 0: every number of the set in all such ways, and no other,
/// so that sets can be intersected and complemented. `written` has the ways that an answer may use, which may have exponents.
struct NumberSet: Hashable, Sendable {
  var exact: ExpressionTable.ID
  var written: ExpressionTable.ID
}

struct NumberExpressions {
  let digit: ExpressionTable.ID
  let digits: ExpressionTable.ID
  /// `0|[1-9][0-9]*`
  let whole: ExpressionTable.ID
  /// `(\.[0-9]+)?`
  let anyFraction: ExpressionTable.ID
  /// `(\.0+)?`
  let zeroFraction: ExpressionTable.ID
  let minus: ExpressionTable.ID
  let point: ExpressionTable.ID
  let all: NumberSet
  let integers: NumberSet

  init(_ table: inout ExpressionTable, zeroFractions: Bool) {
    digit = table.bytes(ByteSet(0x30...0x39))
    digits = table.repeat(digit)
    let nonZero = table.bytes(ByteSet(0x31...0x39))
    let zero = table.byte(0x30)
    whole = table.choice(zero, table.sequence(nonZero, digits))
    minus = table.byte(UInt8(ascii: "-"))
    point = table.byte(UInt8(ascii: "."))
    anyFraction = table.optional(table.sequence(point, table.repeat(digit, 1)))
    zeroFraction = table.optional(table.sequence(point, table.repeat(zero, 1)))
    let positive = Self.magnitude(
      atLeast: [], [], strictly: true, digit: digit, digits: digits, point: point, whole: whole, anyFraction: anyFraction, &table)
    let plain = table.choice(table.sequence(whole, anyFraction), table.sequence(minus, positive))
    let exponent = Self.exponent(&table, digit, maximum: nil)
    all = NumberSet(
      exact: plain, written: table.sequence([table.optional(minus), whole, anyFraction, table.optional(exponent)]))
    let integer = table.choice(whole, table.sequence([minus, nonZero, digits]))
    let exact = table.sequence(integer, zeroFraction)
    integers = NumberSet(exact: exact, written: zeroFractions ? exact : integer)
  }

  private static func exponent(_ table: inout ExpressionTable, _ digit: ExpressionTable.ID, maximum: Int?) -> ExpressionTable.ID {
    let e = table.bytes(ByteSet(UInt8(ascii: "e")).union(ByteSet(UInt8(ascii: "E"))))
    let sign = table.optional(table.bytes(ByteSet(UInt8(ascii: "+")).union(ByteSet(UInt8(ascii: "-")))))
    return table.sequence([e, sign, table.repeat(digit, 1, maximum)])
  }

  // MARK: Bounds

  enum Bound { case atLeast, above, atMost, below }

  func numbers(_ bound: Bound, _ value: Decimal, _ table: inout ExpressionTable) -> NumberSet {
    let isLower = bound == .atLeast || bound == .above
    let isStrict = bound == .above || bound == .below
    let positive = magnitude(atLeast: [], [], strictly: true, &table)
    let notNegative = table.sequence(whole, anyFraction)
    let negative = table.sequence(minus, positive)
    let exact: ExpressionTable.ID
    if value.isZero {
      exact =
        isLower
        ? (isStrict ? positive : notNegative) : isStrict ? negative : table.choice(negative, table.sequence(table.byte(0x30), zeroFraction))
    } else if isLower {
      exact =
        value.isNegative
        ? table.choice(
          notNegative,
          table.sequence(minus, table.all([positive, magnitude(atMost: value.whole, value.fraction, strictly: isStrict, &table)])))
        : magnitude(atLeast: value.whole, value.fraction, strictly: isStrict, &table)
    } else {
      exact =
        value.isNegative
        ? table.sequence(minus, magnitude(atLeast: value.whole, value.fraction, strictly: isStrict, &table))
        : table.choice(negative, magnitude(atMost: value.whole, value.fraction, strictly: isStrict, &table))
    }
    guard value.isZero else { return NumberSet(exact: exact, written: exact) }
    // With an exponent a number other than 0 keeps its sign. Two digits keep it above 0 for readers that round.
    let exponent = Self.exponent(&table, digit, maximum: 2)
    let scaled = table.sequence(positive, exponent)
    return NumberSet(exact: exact, written: table.choice(exact, isLower ? scaled : table.sequence(minus, scaled)))
  }

  func magnitude(atLeast whole: [UInt8], _ fraction: [UInt8], strictly: Bool, _ table: inout ExpressionTable) -> ExpressionTable.ID {
    Self.magnitude(
      atLeast: whole, fraction, strictly: strictly, digit: digit, digits: digits, point: point, whole: self.whole, anyFraction: anyFraction,
      &table)
  }

  /// Numbers without a sign that are at least `wholeDigits.fractionDigits`, or above it.
  private static func magnitude(
    atLeast wholeDigits: [UInt8], _ fractionDigits: [UInt8], strictly: Bool, digit: ExpressionTable.ID, digits: ExpressionTable.ID,
    point: ExpressionTable.ID, whole: ExpressionTable.ID, anyFraction: ExpressionTable.ID, _ table: inout ExpressionTable
  ) -> ExpressionTable.ID {
    let bound = wholeDigits.isEmpty ? [0] : wholeDigits
    let nonZero = table.bytes(ByteSet(0x31...0x39))
    // More digits before the point.
    var choices = [table.sequence([nonZero, table.repeat(digit, bound.count), anyFraction])]
    // As many, and at the first that differs a larger one.
    for (index, value) in bound.enumerated() where value < 9 {
      let larger = table.bytes(ByteSet(0x30 + value + 1...0x39))
      choices.append(
        table.literal(
          bound[..<index].map { $0 + 0x30 },
          then: table.sequence([larger, table.repeat(digit, bound.count - index - 1, bound.count - index - 1), anyFraction])))
    }
    // The same before the point.
    var behind: [ExpressionTable.ID] = []
    let positiveTail = table.sequence([digits, nonZero, digits])
    if fractionDigits.isEmpty {
      behind.append(strictly ? table.sequence(point, positiveTail) : anyFraction)
    } else {
      for (index, value) in fractionDigits.enumerated() where value < 9 {
        let larger = table.bytes(ByteSet(0x30 + value + 1...0x39))
        behind.append(table.sequence([point, table.literal(fractionDigits[..<index].map { $0 + 0x30 }), larger, digits]))
      }
      behind.append(table.sequence([point, table.literal(fractionDigits.map { $0 + 0x30 }), strictly ? positiveTail : digits]))
    }
    choices.append(table.literal(bound.map { $0 + 0x30 }, then: table.choice(behind)))
    return table.choice(choices)
  }

  /// Numbers without a sign that are at most `wholeDigits.fractionDigits`, or below it.
  private func magnitude(
    atMost wholeDigits: [UInt8], _ fractionDigits: [UInt8], strictly: Bool, _ table: inout ExpressionTable
  ) -> ExpressionTable.ID {
    let bound = wholeDigits.isEmpty ? [0] : wholeDigits
    let zero = table.byte(0x30)
    let zeros = table.repeat(zero)
    var choices: [ExpressionTable.ID] = []
    // Fewer digits before the point.
    if bound.count > 1 {
      let nonZero = table.bytes(ByteSet(0x31...0x39))
      choices.append(table.sequence(table.choice(zero, table.sequence(nonZero, table.repeat(digit, 0, bound.count - 2))), anyFraction))
    }
    for (index, value) in bound.enumerated() {
      let lowest: UInt8 = index == 0 && bound.count > 1 ? 1 : 0
      guard value > lowest else { continue }
      let smaller = table.bytes(ByteSet(0x30 + lowest...0x30 + value - 1))
      choices.append(
        table.literal(
          bound[..<index].map { $0 + 0x30 },
          then: table.sequence([smaller, table.repeat(digit, bound.count - index - 1, bound.count - index - 1), anyFraction])))
    }
    var behind: [ExpressionTable.ID] = []
    if fractionDigits.isEmpty {
      if !strictly { behind.append(zeroFraction) }
    } else {
      behind.append(ExpressionTable.empty)
      for (index, value) in fractionDigits.enumerated() {
        let prefix = table.literal(fractionDigits[..<index].map { $0 + 0x30 })
        if index > 0 { behind.append(table.sequence(point, prefix)) }
        if value > 0 { behind.append(table.sequence([point, prefix, table.bytes(ByteSet(0x30...0x30 + value - 1)), digits])) }
      }
      if !strictly { behind.append(table.sequence([point, table.literal(fractionDigits.map { $0 + 0x30 }), zeros])) }
    }
    choices.append(table.literal(bound.map { $0 + 0x30 }, then: table.choice(behind)))
    return table.choice(choices)
  }

  // MARK: Multiples and single values

  /// nil if multiples of the value cannot be told by an automaton of reasonable size.
  func multiples(of value: Decimal, _ table: inout ExpressionTable) -> NumberSet? {
    guard let coefficient = value.coefficient, coefficient > 0 else { return nil }
    let places = value.fraction.count
    let exact: ExpressionTable.ID
    if places == 0 {
      guard coefficient <= 100_000_000 else { return nil }
      let multiple = table.all([whole, table.multiple(of: Int32(coefficient))])
      exact = table.sequence(multiple, zeroFraction)
    } else {
      // Where the value divides 1, only the digits behind the point matter.
      let one = (0..<places).reduce(1) { product, _ in product * 10 }
      guard places <= 9, one % coefficient == 0 else { return nil }
      let zeros = table.repeat(table.byte(0x30))
      let fraction: ExpressionTable.ID
      if coefficient == 1 {
        fraction = table.sequence([digit, table.repeat(digit, 0, places - 1), zeros])
      } else {
        guard one / coefficient <= 2000 else { return nil }
        fraction = table.choice(
          stride(from: 0, to: one, by: coefficient).map { value in
            var digits = Array(String(value + one).utf8.dropFirst())
            while digits.count > 1 && digits.last == 0x30 { digits.removeLast() }
            return table.literal(digits, then: zeros)
          })
      }
      exact = table.sequence(whole, table.optional(table.sequence(point, fraction)))
    }
    let positive = magnitude(atLeast: [], [], strictly: true, &table)
    let both = table.choice(exact, table.sequence(minus, table.all([exact, positive])))
    return NumberSet(exact: both, written: both)
  }

  /// One number, written as it is in the schema or in the shortest way.
  func number(_ value: Decimal, _ text: String, _ table: inout ExpressionTable) -> NumberSet {
    let zeros = table.repeat(table.byte(0x30))
    let tail = value.fraction.isEmpty ? zeroFraction : zeros
    return NumberSet(
      exact: table.literal(value.text, then: tail), written: table.choice(table.literal(value.text), table.literal(Array(text.utf8))))
  }

  func complement(_ set: NumberSet, _ table: inout ExpressionTable) -> NumberSet {
    let exact = table.all([all.exact, table.not(set.exact)])
    return NumberSet(exact: exact, written: exact)
  }
}
