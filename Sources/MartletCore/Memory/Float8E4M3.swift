// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// The bits of an 8-bit float with 4 bits of exponent and 3 of fraction (OCP E4M3: no infinities, ±448 the greatest, one NaN of each sign).
///
/// Every value is a bfloat16 too, so that kernels widen it exactly.
public struct Float8E4M3: Sendable, Hashable, BitwiseCopyable {
  public var bitPattern: UInt8

  /// The greatest value.
  public static let greatest: Float = 448

  public init(bitPattern: UInt8) { self.bitPattern = bitPattern }

  /// Rounds to nearest, ties to even; beyond ±448, infinities too, to ±448. Only a NaN becomes a NaN.
  public init(saturating value: Float) {
    let sign: UInt8 = value.sign == .minus ? 0x80 : 0
    if value.isNaN {
      bitPattern = sign | 0x7F
    } else if value.magnitude >= Self.greatest {
      bitPattern = sign | 0x7E
    } else if value.magnitude < 0x1p-6 {
      // The subnormal step is 2⁻⁹; a result of 8 steps is the smallest normal number, whose bits are the same.
      bitPattern = sign | UInt8((value.magnitude * 0x1p9).rounded(.toNearestOrEven))
    } else {
      // A carry out of the fraction moves on into the exponent, as it should. 464 and more would round to a NaN; 448 is the limit above.
      let bits = value.magnitude.bitPattern
      let rounded = bits &+ 0x7FFFF &+ ((bits >> 20) & 1)
      bitPattern = sign | UInt8(truncatingIfNeeded: (rounded >> 20) &- (120 << 3))
    }
  }
}

extension Float {
  /// Exact.
  public init(_ value: Float8E4M3) {
    let sign = UInt32(value.bitPattern & 0x80) << 24
    let magnitude = UInt32(value.bitPattern & 0x7F)
    switch magnitude {
    case 0x7F: self.init(bitPattern: sign | 0x7FC0_0000)
    case 0..<8:  // zero or subnormal: fraction · 2⁻⁹
      let magnitude = Float(magnitude) * 0x1p-9
      self = sign == 0 ? magnitude : -magnitude
    default: self.init(bitPattern: sign | ((magnitude + (120 << 3)) << 20))
    }
  }
}
