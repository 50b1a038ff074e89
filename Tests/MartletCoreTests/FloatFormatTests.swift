// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore
import Testing

// The conversions are checked for all 65536 patterns against the definitions of the formats, written with Double: exact, and in no way
// like the integer arithmetic they check.

@Suite struct `bfloat16` {
  /// The value of a pattern: (−1)ˢ · 2^(e − 127) · (1 + f / 128), with e = 0 for subnormals.
  private func value(_ bits: UInt16) -> Double {
    let exponent = Int(bits >> 7) & 0xFF, fraction = Double(bits & 0x7F)
    let magnitude: Double =
      switch exponent {
      case 0: fraction * 0x1p-133
      case 255: fraction == 0 ? .infinity : .nan
      default: Double(sign: .plus, exponent: exponent - 127, significand: 1 + fraction / 128)
      }
    return bits & 0x8000 == 0 ? magnitude : -magnitude
  }

  @Test func `widens every pattern exactly and back`() {
    var wrong: [UInt16] = []
    for bits in UInt16.min...UInt16.max {
      let widened = Float(BFloat16(bitPattern: bits))
      let expected = value(bits)
      let back = BFloat16(widened)
      if expected.isNaN {
        if !widened.isNaN || !Float(back).isNaN { wrong.append(bits) }
      } else if Double(widened) != expected || widened.sign != expected.sign || back.bitPattern != bits {
        wrong.append(bits)
      }
    }
    #expect(wrong == [])
  }

  @Test func `rounds to the nearest, ties to even`() {
    var wrong: [UInt16] = []
    // Every positive finite pattern and its upper neighbour (the neighbour of the greatest is infinity): at, beside and at the middle.
    for bits in UInt16(0)..<0x7F80 {
      let lower = Float(BFloat16(bitPattern: bits))
      let middle = Float(bitPattern: lower.bitPattern + 0x8000)
      let even = bits % 2 == 0 ? bits : bits + 1
      for (input, expected) in [(lower.nextUp, bits), (middle.nextDown, bits), (middle, even), (middle.nextUp, bits + 1)] {
        if BFloat16(input).bitPattern != expected || BFloat16(-input).bitPattern != expected | 0x8000 { wrong.append(bits) }
      }
    }
    #expect(wrong == [])
  }
}

@Suite struct `IEEE half` {
  /// The value of a pattern: (−1)ˢ · 2^(e − 15) · (1 + f / 1024), with e = 0 for subnormals.
  private func value(_ bits: UInt16) -> Double {
    let exponent = Int(bits >> 10) & 0x1F, fraction = Double(bits & 0x3FF)
    let magnitude: Double =
      switch exponent {
      case 0: fraction * 0x1p-24
      case 31: fraction == 0 ? .infinity : .nan
      default: Double(sign: .plus, exponent: exponent - 15, significand: 1 + fraction / 1024)
      }
    return bits & 0x8000 == 0 ? magnitude : -magnitude
  }

  @Test func `widens every pattern exactly and back`() {
    var wrong: [UInt16] = []
    for bits in UInt16.min...UInt16.max {
      let widened = Float(halfBits: bits)
      let expected = value(bits)
      if expected.isNaN {
        if !widened.isNaN || !Float(halfBits: widened.halfBits).isNaN { wrong.append(bits) }
      } else if Double(widened) != expected || widened.sign != expected.sign || widened.halfBits != bits {
        wrong.append(bits)
      }
    }
    #expect(wrong == [])
  }

  @Test func `rounds to the nearest, ties to even`() {
    var wrong: [UInt16] = []
    for bits in UInt16(0)..<0x7C00 {
      let lower = Float(halfBits: bits)
      // The neighbour of the greatest half, 65504, would be 65536: what rounds there is infinity.
      let upper = bits == 0x7BFF ? 65536 : Float(halfBits: bits + 1)
      let middle = lower + (upper - lower) / 2  // exact: a half has 11 bits, a float 24
      let even = bits % 2 == 0 ? bits : bits + 1
      for (input, expected) in [(lower.nextUp, bits), (middle.nextDown, bits), (middle, even), (middle.nextUp, bits + 1)] {
        if input.halfBits != expected || (-input).halfBits != expected | 0x8000 { wrong.append(bits) }
      }
    }
    #expect(wrong == [])
    #expect(Float.greatestFiniteMagnitude.halfBits == 0x7C00)
    #expect((-Float.infinity).halfBits == 0xFC00)
    #expect(Float.leastNonzeroMagnitude.halfBits == 0)
  }
}
