// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// How the values of one head become int8: code = rint(x · 127 / max|x|), ties to even; x ≈ code · `scale`.
///
/// Codes lie within ±127. A head of zeros, or of numbers so small that 127 / max|x| overflows, has scale 0 and codes 0; one with a NaN or an
/// infinity has scale NaN and codes 0, so that it reads back as NaN.
public struct Int8Block: Sendable {
  /// max|x| / 127: what a code is multiplied by.
  public let scale: Float
  private let inverse: Float

  public init(_ values: UnsafePointer<Float>, count: Int) {
    var greatest: Float = 0
    var isFinite = true
    for index in 0..<count {
      greatest = max(greatest, values[index].magnitude)
      isFinite = isFinite && values[index].isFinite
    }
    let inverse = 127 / greatest
    if !isFinite {
      (scale, self.inverse) = (.nan, 0)
    } else if inverse.isFinite {
      (scale, self.inverse) = (greatest / 127, inverse)
    } else {
      (scale, self.inverse) = (0, 0)
    }
  }

  /// The code of one of the values.
  public func code(_ value: Float) -> Int8 {
    let code = (value * inverse).rounded(.toNearestOrEven)
    return code.isNaN ? 0 : Int8(max(-127, min(127, code)))
  }
}
