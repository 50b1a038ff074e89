// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Rounding, written from the formats' definitions in float64 and without the library's conversions.

/// A binary floating-point format: so many bits of fraction, a least normal exponent, a greatest value.
struct FloatFormat: Sendable {
  let fractionBits: Int
  /// The exponent of the least normal number; below it the step stays the same.
  let leastExponent: Int
  let greatest: Double
  /// Whether what is beyond `greatest` becomes it; else it becomes infinite.
  let saturates: Bool

  static let float32 = FloatFormat(fractionBits: 23, leastExponent: -126, greatest: 0x1.fffffep127, saturates: false)
  static let half = FloatFormat(fractionBits: 10, leastExponent: -14, greatest: 65504, saturates: false)
  static let bfloat16 = FloatFormat(fractionBits: 7, leastExponent: -126, greatest: 0x1.fep127, saturates: false)
  static let e4m3 = FloatFormat(fractionBits: 3, leastExponent: -6, greatest: 448, saturates: true)

  /// The distance between neighbours at the size of `value`.
  func step(at value: Double) -> Double {
    let exponent = value == 0 ? leastExponent : max(Int(value.exponent), leastExponent)
    return Double(sign: .plus, exponent: exponent - fractionBits, significand: 1)
  }

  /// The nearest number of the format, ties to even.
  func round(_ value: Double) -> Double {
    if value.isNaN || value.isInfinite && !saturates { return value }
    if value.magnitude >= greatest && saturates { return value < 0 ? -greatest : greatest }
    let step = step(at: value)
    let rounded = (value / step).rounded(.toNearestOrEven) * step
    if rounded.magnitude <= greatest { return rounded }
    return value < 0 ? -Double.infinity : Double.infinity
  }

  /// How far `value` is from the nearest point where rounding turns from one neighbour to the other, relative to the step.
  func distanceFromTie(_ value: Double) -> Double {
    let steps = value.magnitude / step(at: value)
    return (steps - steps.rounded(.down) - 0.5).magnitude
  }
}
