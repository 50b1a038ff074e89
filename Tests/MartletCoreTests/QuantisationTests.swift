// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore
import Testing

@Suite struct `e4m3` {
  /// The value of a pattern: (−1)ˢ · 2^(e − 7) · (1 + f / 8), with e = 0 for subnormals; the last pattern of each sign is NaN.
  private func value(_ bits: UInt8) -> Double {
    let exponent = Int(bits >> 3) & 15, fraction = Double(bits & 7)
    if bits & 0x7F == 0x7F { return .nan }
    let magnitude = exponent == 0 ? fraction * 0x1p-9 : Double(sign: .plus, exponent: exponent - 7, significand: 1 + fraction / 8)
    return bits & 0x80 == 0 ? magnitude : -magnitude
  }

  @Test func `widens every pattern exactly and back`() {
    for bits in UInt8.min...UInt8.max {
      let widened = Float(Float8E4M3(bitPattern: bits)), expected = value(bits)
      if expected.isNaN {
        #expect(widened.isNaN && Float8E4M3(saturating: widened).bitPattern & 0x7F == 0x7F)
      } else {
        #expect(Double(widened) == expected && widened.sign == expected.sign)
        #expect(Float8E4M3(saturating: widened).bitPattern == bits)
      }
    }
  }

  @Test func `rounds to the nearest, ties to even`() {
    for bits in UInt8(0)..<0x7E {
      let lower = Float(value(bits)), upper = Float(value(bits + 1))
      let middle = lower + (upper - lower) / 2  // exact: e4m3 has 4 bits, a float 24
      let even = bits % 2 == 0 ? bits : bits + 1
      for (input, expected) in [(lower.nextUp, bits), (middle.nextDown, bits), (middle, even), (middle.nextUp, bits + 1)] {
        #expect(Float8E4M3(saturating: input).bitPattern == expected, "\(input)")
        #expect(Float8E4M3(saturating: -input).bitPattern == expected | 0x80, "\(-input)")
      }
    }
  }

  @Test(arguments: [448.1, 464, 480, 1e4, .greatestFiniteMagnitude, .infinity] as [Float])
  func `saturates and never becomes NaN by itself`(value: Float) {
    #expect(Float(Float8E4M3(saturating: value)) == 448)
    #expect(Float(Float8E4M3(saturating: -value)) == -448)
  }
}

@Suite struct `int8 codes` {
  @Test func `keep the greatest value and are off by at most half a step`() {
    let values: [Float] = [0.5, -3.75, 0, 1e-9, 3.7499, 2.25]
    let block = values.withUnsafeBufferPointer { Int8Block($0.baseAddress!, count: $0.count) }
    #expect(block.scale == 3.75 / 127)
    #expect(values.map(block.code)[1] == -127)
    for value in values { #expect(abs(Float(block.code(value)) * block.scale - value) <= block.scale * 0.5001) }
  }

  @Test(arguments: [Float.nan, .infinity, -.infinity]) func `of what is not finite read back as NaN`(value: Float) {
    let values: [Float] = [1, value, 3]
    let block = values.withUnsafeBufferPointer { Int8Block($0.baseAddress!, count: $0.count) }
    #expect(block.scale.isNaN && values.map(block.code) == [0, 0, 0])
  }

  @Test func `of the smallest numbers are zeros`() {
    let values: [Float] = [1e-38, -1e-37]
    let block = values.withUnsafeBufferPointer { Int8Block($0.baseAddress!, count: $0.count) }
    #expect(block.scale == 0 && values.map(block.code) == [0, 0])
  }

  @Test func `of zeros are zeros`() {
    let values: [Float] = [0, 0, 0]
    let block = values.withUnsafeBufferPointer { Int8Block($0.baseAddress!, count: $0.count) }
    #expect(block.scale == 0 && block.code(0) == 0)
  }
}
