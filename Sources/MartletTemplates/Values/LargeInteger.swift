// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Python's whole number without bounds: a sign, and the magnitude in limbs of 32 bits, the least first, without zeros at the end.
///
/// Values hold one only where 64 bits do not suffice, so its operations may be plain: school arithmetic, and bounded, as Python bounds the
/// digits that it reads and writes.
struct LargeInteger: Sendable, Hashable {
  /// Room for as many digits as Python reads or writes.
  static let maximumLimbCount = 447
  static let maximumDigitCount = 4300
  static let tooLarge = TemplateError(.limit, "an integer of more than \(maximumDigitCount) digits")

  private(set) var isNegative: Bool
  private(set) var limbs: [UInt32]

  private init(_ limbs: [UInt32], isNegative: Bool) {
    self.limbs = limbs
    while self.limbs.last == 0 { self.limbs.removeLast() }
    self.isNegative = isNegative && !self.limbs.isEmpty
  }

  init(_ value: Int) {
    self.init([UInt32(truncatingIfNeeded: value.magnitude), UInt32(truncatingIfNeeded: value.magnitude >> 32)], isNegative: value < 0)
  }

  /// The whole part; nil where there is none.
  init?(_ value: Double) {
    guard value.isFinite else { return nil }
    let whole = value.magnitude.rounded(.towardZero)
    guard whole >= 1 else {
      self.init(0)
      return
    }
    let shift = max(0, Int(whole.exponent) - 63)
    let top = UInt64(whole / Double(sign: .plus, exponent: shift, significand: 1))
    self.init(
      LargeInteger([UInt32(truncatingIfNeeded: top), UInt32(top >> 32)], isNegative: false).shifted(left: shift).limbs,
      isNegative: value < 0)
  }

  /// Digits of a radix up to 36, with a sign or without; nil where they are none or too many.
  init?(_ digits: some StringProtocol, radix: Int = 10) {
    let sign = digits.utf8.first == UInt8(ascii: "-") ? 1 : 0
    guard digits.utf8.count - sign <= Self.maximumDigitCount, digits.utf8.count > sign else { return nil }
    var limbs: [UInt32] = []
    for byte in digits.utf8.dropFirst(sign) {
      guard let digit = Character(Unicode.Scalar(byte)).hexDigitValue ?? Self.letter(byte), digit < radix else { return nil }
      var carry = UInt64(digit)
      for place in limbs.indices {
        carry += UInt64(limbs[place]) * UInt64(radix)
        limbs[place] = UInt32(truncatingIfNeeded: carry)
        carry >>= 32
      }
      if carry > 0 { limbs.append(UInt32(carry)) }
    }
    self.init(limbs, isNegative: sign == 1)
  }

  private static func letter(_ byte: UInt8) -> Int? {
    let small = byte | 0x20
    return (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(small) ? Int(small - UInt8(ascii: "a")) + 10 : nil
  }

  // MARK: As something else

  /// nil beyond 64 bits.
  var int: Int? {
    guard limbs.count <= 2 else { return nil }
    let magnitude = UInt64(limbs.first ?? 0) | UInt64(limbs.count == 2 ? limbs[1] : 0) << 32
    return isNegative ? (magnitude <= 1 << 63 ? Int(truncatingIfNeeded: 0 &- magnitude) : nil) : Int(exactly: magnitude)
  }

  var bitWidth: Int { (limbs.last.map { 32 - $0.leadingZeroBitCount } ?? 0) + 32 * max(0, limbs.count - 1) }

  /// The nearest, half to even; infinite where there is none.
  var double: Double {
    let shift = max(0, bitWidth - 64)
    let top = shifted(right: shift)
    var bits = UInt64(top.limbs.first ?? 0) | UInt64(top.limbs.count > 1 ? top.limbs[1] : 0) << 32
    // What was cut off counts where it decides between two neighbours.
    if shift > 0, top.shifted(left: shift).limbs != limbs { bits |= 1 }
    let magnitude = shift > 1023 ? Double.infinity : Double(bits) * Double(sign: .plus, exponent: shift, significand: 1)
    return isNegative ? -magnitude : magnitude
  }

  func digits(radix: Int = 10, uppercase: Bool = false) -> String {
    var (rest, groups) = (limbs, [String]())
    // As many digits at a time as a limb holds.
    var (scale, width) = (UInt64(radix), 1)
    while scale * UInt64(radix) <= UInt64(UInt32.max) { (scale, width) = (scale * UInt64(radix), width + 1) }
    while !rest.isEmpty {
      var remainder: UInt64 = 0
      for place in rest.indices.reversed() {
        remainder = remainder << 32 | UInt64(rest[place])
        rest[place] = UInt32(remainder / scale)
        remainder %= scale
      }
      while rest.last == 0 { rest.removeLast() }
      let group = String(remainder, radix: radix, uppercase: uppercase)
      groups.append(rest.isEmpty ? group : String(repeating: "0", count: width - group.utf8.count) + group)
    }
    return (isNegative ? "-" : "") + (groups.isEmpty ? "0" : groups.reversed().joined())
  }

  // MARK: Arithmetic

  static prefix func - (value: LargeInteger) -> LargeInteger { LargeInteger(value.limbs, isNegative: !value.isNegative) }
  var magnitude: LargeInteger { LargeInteger(limbs, isNegative: false) }

  static func + (left: LargeInteger, right: LargeInteger) -> LargeInteger {
    guard left.isNegative == right.isNegative else {
      return isLess(left.limbs, right.limbs)
        ? LargeInteger(difference(right.limbs, left.limbs), isNegative: right.isNegative)
        : LargeInteger(difference(left.limbs, right.limbs), isNegative: left.isNegative)
    }
    var (sum, carry) = ([UInt32](), UInt64(0))
    for place in 0..<max(left.limbs.count, right.limbs.count) {
      carry += (place < left.limbs.count ? UInt64(left.limbs[place]) : 0) + (place < right.limbs.count ? UInt64(right.limbs[place]) : 0)
      sum.append(UInt32(truncatingIfNeeded: carry))
      carry >>= 32
    }
    return LargeInteger(sum + [UInt32(carry)], isNegative: left.isNegative)
  }

  static func - (left: LargeInteger, right: LargeInteger) -> LargeInteger { left + -right }

  static func * (left: LargeInteger, right: LargeInteger) -> LargeInteger {
    var product = [UInt32](repeating: 0, count: left.limbs.count + right.limbs.count)
    for (place, limb) in left.limbs.enumerated() {
      var carry: UInt64 = 0
      for (offset, other) in right.limbs.enumerated() {
        carry += UInt64(limb) * UInt64(other) + UInt64(product[place + offset])
        product[place + offset] = UInt32(truncatingIfNeeded: carry)
        carry >>= 32
      }
      product[place + right.limbs.count] = UInt32(carry)
    }
    return LargeInteger(product, isNegative: left.isNegative != right.isNegative)
  }

  /// Towards minus infinity, so that the remainder has the divisor's sign; bit by bit.
  func divided(by divisor: LargeInteger) -> (quotient: LargeInteger, remainder: LargeInteger) {
    var quotient = [UInt32](repeating: 0, count: limbs.count)
    var remainder: [UInt32] = []
    for bit in stride(from: bitWidth - 1, through: 0, by: -1) {
      var carry = limbs[bit / 32] >> UInt32(bit % 32) & 1
      for place in remainder.indices { (remainder[place], carry) = (remainder[place] << 1 | carry, remainder[place] >> 31) }
      if carry > 0 { remainder.append(carry) }
      if !Self.isLess(remainder, divisor.limbs) {
        remainder = LargeInteger(Self.difference(remainder, divisor.limbs), isNegative: false).limbs
        quotient[bit / 32] |= 1 << UInt32(bit % 32)
      }
    }
    let whole = LargeInteger(quotient, isNegative: isNegative != divisor.isNegative)
    let rest = LargeInteger(remainder, isNegative: isNegative)
    if rest.limbs.isEmpty || isNegative == divisor.isNegative { return (whole, rest) }
    return (LargeInteger(quotient, isNegative: true) - LargeInteger(1), rest + divisor)
  }

  /// The nearest floating-point number to the quotient.
  func ratio(to divisor: LargeInteger) -> Double {
    // Enough bits for a significand, and one that says whether something is left.
    let shift = max(0, 66 - bitWidth + divisor.bitWidth)
    var (quotient, rest) = magnitude.shifted(left: shift).divided(by: divisor.magnitude)
    if !rest.limbs.isEmpty, quotient.limbs[0] & 1 == 0 { quotient = quotient + LargeInteger(1) }
    let result =
      quotient.double / (shift > 1000 ? 0x1p1000 : 1) / Double(sign: .plus, exponent: shift > 1000 ? shift - 1000 : shift, significand: 1)
    return isNegative != divisor.isNegative ? -result : result
  }

  func shifted(left count: Int) -> LargeInteger {
    LargeInteger([UInt32](repeating: 0, count: count / 32) + limbs, isNegative: isNegative) * LargeInteger(1 << (count % 32))
  }

  func shifted(right count: Int) -> LargeInteger {
    let kept = Array(limbs.dropFirst(count / 32)) + [0]
    let bits = UInt64(count % 32)
    return LargeInteger(
      zip(kept, kept.dropFirst() + [0]).map { UInt32(truncatingIfNeeded: (UInt64($1) << 32 | UInt64($0)) >> bits) }, isNegative: isNegative)
  }

  private static func isLess(_ left: [UInt32], _ right: [UInt32]) -> Bool {
    left.count != right.count ? left.count < right.count : left.reversed().lexicographicallyPrecedes(right.reversed())
  }

  /// Of magnitudes, the greater first.
  private static func difference(_ left: [UInt32], _ right: [UInt32]) -> [UInt32] {
    var (result, borrow) = (left, Int64(0))
    for place in left.indices {
      borrow += Int64(left[place]) - (place < right.count ? Int64(right[place]) : 0)
      result[place] = UInt32(truncatingIfNeeded: borrow)
      borrow >>= 32
    }
    return result
  }
}

extension LargeInteger: Comparable {
  static func < (left: LargeInteger, right: LargeInteger) -> Bool {
    if left.isNegative != right.isNegative { return left.isNegative }
    return left.isNegative ? isLess(right.limbs, left.limbs) : isLess(left.limbs, right.limbs)
  }
}
