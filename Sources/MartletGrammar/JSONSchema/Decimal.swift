// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// A number of JSON, exactly: ±0.d₁d₂… without zeros at either end, shifted.
struct Decimal: Hashable, Sendable {
  var isNegative: Bool
  /// Digits before the point, without zeros in front; empty for 0.
  var whole: [UInt8]
  /// Digits behind the point, without zeros at the end.
  var fraction: [UInt8]

  var isZero: Bool { whole.isEmpty && fraction.isEmpty }

  /// Reads a number as JSON writes it; nil if its exponent is beyond ±400.
  init?(_ text: String) {
    var digits: [UInt8] = []
    var point: Int?
    var exponent = 0
    isNegative = false
    var bytes = Array(text.utf8)[...]
    if bytes.first == UInt8(ascii: "-") {
      isNegative = true
      bytes = bytes.dropFirst()
    }
    while let byte = bytes.popFirst() {
      if byte == UInt8(ascii: ".") {
        point = digits.count
      } else if byte | 0x20 == UInt8(ascii: "e") {
        guard let value = Int(String(decoding: bytes, as: UTF8.self)), abs(value) <= 400 else { return nil }
        exponent = value
        break
      } else {
        digits.append(byte - UInt8(ascii: "0"))
      }
    }
    var position = (point ?? digits.count) + exponent
    if position < 0 {
      digits = [UInt8](repeating: 0, count: -position) + digits
      position = 0
    } else if position > digits.count {
      digits += [UInt8](repeating: 0, count: position - digits.count)
    }
    whole = Array(digits[..<position].drop { $0 == 0 })
    fraction = Array(digits[position...])
    while fraction.last == 0 { fraction.removeLast() }
    if isZero { isNegative = false }
  }

  /// In the shortest way without an exponent.
  var text: [UInt8] {
    var text: [UInt8] = isNegative ? [UInt8(ascii: "-")] : []
    text += whole.isEmpty ? [UInt8(ascii: "0")] : whole.map { $0 + UInt8(ascii: "0") }
    if !fraction.isEmpty { text += [UInt8(ascii: ".")] + fraction.map { $0 + UInt8(ascii: "0") } }
    return text
  }

  /// The value times 10 to the number of digits behind the point; nil if that does not fit.
  var coefficient: Int? { Int(String(decoding: (whole + fraction).map { $0 + UInt8(ascii: "0") }, as: UTF8.self)) }
}
