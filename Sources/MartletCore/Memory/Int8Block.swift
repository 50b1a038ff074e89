// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// How the values of one head become int8: code = rint(x · 127 / max|x|), ties to even; x ≈ code · `scale`.
///
/// Codes lie within ±127. A head of zeros has scale 0; a NaN has code 0.
public struct Int8Block: Sendable {
  /// max|x| / 127: what a code is multiplied by.
  public let scale: Float
  private let inverse: Float

  public init(_ values: UnsafePointer<Float>, count: Int) {
    var greatest: Float = 0
    for index in 0..<count { greatest = values[index].magnitude > greatest ? values[index].magnitude : greatest }
    scale = greatest / 127
    inverse = greatest > 0 ? 127 / greatest : 0
  }

  /// The code of one of the values.
  public func code(_ value: Float) -> Int8 {
    let code = (value * inverse).rounded(.toNearestOrEven)
    return code.isNaN ? 0 : Int8(max(-127, min(127, code)))
  }
}
