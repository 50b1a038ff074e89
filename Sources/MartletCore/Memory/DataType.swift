// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// The type of one element of a tensor or of a key/value cache.
///
/// Weights have a ``WeightFormat`` instead, because a quantised weight has no element type: its unit is a block.
public enum DataType: String, Sendable, Hashable, Codable, CaseIterable {
  case f32, f16, bf16, f8e4m3, i8, i32

  /// Bytes of one element.
  public var byteCount: Int {
    switch self {
    case .f32, .i32: 4
    case .f16, .bf16: 2
    case .f8e4m3, .i8: 1
    }
  }
}

/// The bits of a bfloat16: the upper half of a float32.
public struct BFloat16: Sendable, Hashable, BitwiseCopyable {
  public var bitPattern: UInt16

  public init(bitPattern: UInt16) { self.bitPattern = bitPattern }

  /// Rounds to nearest, ties to even; a NaN stays a (quiet) NaN.
  public init(_ value: Float) {
    let bits = value.bitPattern
    if value.isNaN {
      bitPattern = UInt16(truncatingIfNeeded: bits >> 16) | 0x40
    } else {
      bitPattern = UInt16(truncatingIfNeeded: (bits &+ 0x7FFF &+ ((bits >> 16) & 1)) >> 16)
    }
  }
}

extension Float {
  /// Exact.
  public init(_ value: BFloat16) { self.init(bitPattern: UInt32(value.bitPattern) << 16) }

  /// Exact: the float32 value of an IEEE half with these bits. Spelled with integers, because `Float16` does not exist on every platform.
  public init(halfBits bits: UInt16) {
    let sign = UInt32(bits & 0x8000) << 16
    let exponent = UInt32(bits >> 10) & 0x1F
    let fraction = UInt32(bits & 0x3FF)
    switch exponent {
    case 0:  // zero or subnormal: fraction · 2⁻²⁴
      let magnitude = Float(fraction) * 0x1p-24
      self = sign == 0 ? magnitude : -magnitude
    case 31: self.init(bitPattern: sign | 0x7F80_0000 | (fraction << 13))
    default: self.init(bitPattern: sign | ((exponent + 112) << 23) | (fraction << 13))
    }
  }

  /// The bits of the nearest IEEE half, ties to even; beyond 65504 infinity, a NaN stays a NaN.
  public var halfBits: UInt16 {
    let sign = UInt16(truncatingIfNeeded: bitPattern >> 16) & 0x8000
    if isNaN { return sign | 0x7E00 }
    let size = magnitude
    if size >= 65520 { return sign | 0x7C00 }
    if size < 0x1p-14 {
      // The subnormal step is 2⁻²⁴; a result of 1024 steps is the smallest normal number, whose bits are the same.
      return sign | UInt16((size * 0x1p24).rounded(.toNearestOrEven))
    }
    let bits = size.bitPattern
    let rounded = bits &+ 0xFFF &+ ((bits >> 13) & 1)
    return sign | UInt16(truncatingIfNeeded: (rounded >> 13) &- (112 << 10))
  }
}
