// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletLibc

/// Floating-point numbers as Python writes them.
enum FloatText {
  /// The shortest digits that give the number back; an exponent below 1e-4 and from 1e16 on.
  static func repr(_ value: Double) -> String {
    if value.isNaN { return "nan" }
    if value.isInfinite { return value < 0 ? "-inf" : "inf" }
    // Swift finds the same digits, and puts the point elsewhere.
    var text = "\(value.magnitude)"[...]
    var exponent = 0
    if let mark = text.firstIndex(of: "e") {
      exponent = Int(text[text.index(after: mark)...])!
      text = text[..<mark]
    }
    let point = text.firstIndex(of: ".") ?? text.endIndex
    let whole = text[..<point]
    var digits = Array((whole + text[point...].dropFirst()).utf8)
    var scale = whole.utf8.count + exponent  // the value is 0.digits · 10^scale
    while digits.count > 1, digits.first == UInt8(ascii: "0") {
      digits.removeFirst()
      scale -= 1
    }
    while digits.count > 1, digits.last == UInt8(ascii: "0") { digits.removeLast() }
    let sign = value.sign == .minus ? "-" : ""
    if digits == [UInt8(ascii: "0")] { return sign + "0.0" }
    let figures = String(decoding: digits, as: UTF8.self)
    if scale > 16 || scale <= -4 {
      let power = scale - 1
      let fraction = figures.dropFirst()
      let size = power.magnitude < 10 ? "0\(power.magnitude)" : "\(power.magnitude)"
      return "\(sign)\(figures.prefix(1))\(fraction.isEmpty ? "" : ".\(fraction)")e\(power < 0 ? "-" : "+")\(size)"
    }
    if scale <= 0 { return sign + "0." + String(repeating: "0", count: -scale) + figures }
    if scale >= digits.count { return sign + figures + String(repeating: "0", count: scale - digits.count) + ".0" }
    return sign + figures.prefix(scale) + "." + figures.dropFirst(scale)
  }

  /// C's `printf` of one number: `conversion` is one of e, E, f, F, g, G.
  static let maximumPrecision = 1000

  static func formatted(_ value: Double, precision: Int, conversion: Character, alternate: Bool = false) -> String {
    let format = "%\(alternate ? "#" : "").\(min(max(precision, 0), maximumPrecision))\(conversion)"
    return withVaList([value]) { arguments in
      var buffer = [CChar](repeating: 0, count: 1500)
      let count = vsnprintf(&buffer, buffer.count, format, arguments)
      return String(decoding: buffer.prefix(max(0, Int(count))).map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
  }

  /// Rounded to decimals, halves to the even digit of the exact value, as Python's `round`.
  static func rounded(_ value: Double, decimals: Int) -> Double {
    guard value.isFinite, decimals < 330 else { return value }
    if decimals < 0 {
      guard decimals > -330 else { return value.sign == .minus ? -0.0 : 0 }
      let scale = Power.of(10, Double(-decimals))
      return (value / scale).rounded(.toNearestOrEven) * scale
    }
    return Double(formatted(value, precision: decimals, conversion: "f")) ?? value
  }
}

enum Power {
  static func of(_ base: Double, _ exponent: Double) -> Double { pow(base, exponent) }
}
