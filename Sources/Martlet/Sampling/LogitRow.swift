// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletLibc

/// Passes over a row of logits: the largest, the sum of exponentials, the best few.
///
/// Rows are long (a vocabulary of 262144 is a megabyte), so each pass reads sixteen values at a time. The order of every sum is fixed: the
/// same row gives the same bits.
package enum LogitRow {
  typealias Lanes = SIMD16<Float>

  /// The largest value; −∞ where no value is a number above it.
  package static func maximum(_ row: Span<Float>) -> Float {
    let bytes = row.bytes
    var best = Lanes(repeating: -.infinity)
    let whole = row.count / 16 * 16
    var index = 0
    while index < whole {
      let values = bytes.unsafeLoadUnaligned(fromByteOffset: index * 4, as: Lanes.self)
      best.replace(with: values, where: values .> best)  // a NaN is above nothing
      index += 16
    }
    var largest = -Float.infinity
    for lane in 0..<16 where best[lane] > largest { largest = best[lane] }
    while index < row.count {
      if row[index] > largest { largest = row[index] }
      index += 1
    }
    return largest
  }

  /// The lowest index of `value`; nil without one.
  package static func firstIndex(of value: Float, in row: Span<Float>) -> Int? {
    let bytes = row.bytes
    let wanted = Lanes(repeating: value)
    let whole = row.count / 16 * 16
    var index = 0
    while index < whole {
      if any(bytes.unsafeLoadUnaligned(fromByteOffset: index * 4, as: Lanes.self) .== wanted) { break }
      index += 16
    }
    while index < row.count {
      if row[index] == value { return index }
      index += 1
    }
    return nil
  }

  /// The lowest index of the largest value; nil where no value is finite.
  package static func argmax(_ row: Span<Float>) -> Int? {
    let largest = maximum(row)
    return largest.isFinite ? firstIndex(of: largest, in: row) : nil
  }

  /// Σ exp((row[i] − maximum) · scale), `scale` > 0: within 3·10⁻⁷ of the exact sum, relatively.
  ///
  /// Blocks of 512 values are summed in float32 lanes, blocks in double.
  package static func sumOfExponentials(_ row: Span<Float>, maximum: Float, scale: Float = 1) -> Double {
    let bytes = row.bytes
    var total = 0.0
    var index = 0
    let whole = row.count / 16 * 16
    while index < whole {
      let end = min(index + 512, whole)
      var lanes = Lanes.zero
      while index < end {
        let values = bytes.unsafeLoadUnaligned(fromByteOffset: index * 4, as: Lanes.self)
        lanes += exponential((values - maximum) * scale)
        index += 16
      }
      for lane in 0..<16 { total += Double(lanes[lane]) }
    }
    while index < row.count {
      total += exp(Double((row[index] - maximum) * scale))
      index += 1
    }
    return total
  }

  /// ln Σ exp(row[i]).
  package static func logSumExp(_ row: Span<Float>) -> Double {
    let maximum = maximum(row)
    return Double(maximum) + log(sumOfExponentials(row, maximum: maximum))
  }

  /// eˣ for x ≤ 0; what lies below e⁻⁸⁷ is taken as that, which no sum of probabilities can see.
  ///
  /// x = n·ln 2 + f with |f| ≤ ln 2 / 2, eˣ = 2ⁿ·eᶠ; the Taylor series to f⁷ leaves 0.3466⁸ / 8! = 5·10⁻⁹. ln 2 comes in two parts (Cody
  /// and Waite), the first with few enough bits that n times it is exact.
  @inline(__always)
  static func exponential(_ x: Lanes) -> Lanes {
    let magic: Float = 12_582_912  // 1.5·2²³: adding it rounds to an integer and leaves that in the low bits
    let x = x.replacing(with: -87, where: x .< -87)
    let shifted = x * 1.442_695_04 + magic
    let n = shifted - magic
    let f = (x - n * 0.693_359_375) - n * -2.121_944_4e-4
    var series = f * (1.0 / 5040) + (1.0 / 720)
    series = series * f + (1.0 / 120)
    series = series * f + (1.0 / 24)
    series = series * f + (1.0 / 6)
    series = series * f + 0.5
    series = series * f + 1
    series = series * f + 1
    let exponent = unsafeBitCast(shifted, to: SIMD16<UInt32>.self) &- SIMD16(repeating: magic.bitPattern)
    return series * unsafeBitCast((exponent &+ SIMD16(repeating: 127)) &<< SIMD16(repeating: 23), to: Lanes.self)
  }
}
