// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Weights for the tests of products: recorded ones, and random ones in every format.

import Foundation
import MartletCPU
import MartletCore
import Testing

/// A weight with its own memory.
struct TestWeight {
  let format: WeightFormat
  let rows: Int
  let columns: Int
  let bytes: [UInt8]

  /// Random codes; scales and minimums of both signs, so that no format's weights dwarf another's.
  static func random(_ format: WeightFormat, rows: Int, columns: Int, using random: inout SeededGenerator) -> TestWeight {
    let scale: Float = 0.05
    let blocks = rows * columns / format.blockSize, blockBytes = format.blockByteCount
    var bytes = (0..<blocks * blockBytes).map { _ in UInt8.random(in: .min ... .max, using: &random) }
    func put(_ value: UInt16, at offset: Int) {
      bytes[offset] = UInt8(truncatingIfNeeded: value)
      bytes[offset + 1] = UInt8(truncatingIfNeeded: value >> 8)
    }
    for block in 0..<blocks {
      let start = block * blockBytes
      func half(_ range: Float) -> UInt16 { (range * Float.random(in: -1...1, using: &random)).halfBits }
      switch format {
      case .f32:
        let value = (10 * scale * Float.random(in: -1...1, using: &random)).bitPattern
        put(UInt16(truncatingIfNeeded: value), at: start)
        put(UInt16(truncatingIfNeeded: value >> 16), at: start + 2)
      case .f16: put(half(10 * scale), at: start)
      case .bf16: put(BFloat16(10 * scale * Float.random(in: -1...1, using: &random)).bitPattern, at: start)
      case .q4_0, .q5_0: put(half(scale), at: start)
      case .q8_0, .iq4_NL: put(half(scale / 16), at: start)
      case .q4_1, .q5_1:
        put(half(scale), at: start)
        put(half(8 * scale), at: start + 2)
      case .q2_K:
        put(half(scale / 4), at: start + 80)
        put(half(scale / 2), at: start + 82)
      case .q3_K: put(half(scale / 8), at: start + 108)
      case .q4_K, .q5_K:
        put(half(scale / 32), at: start)
        put(half(scale / 4), at: start + 2)
      case .q6_K: put(half(scale / 64), at: start + 208)
      case .nvfp4: for scale in 0..<4 { bytes[start + scale] = UInt8.random(in: 0x08...0x1F, using: &random) }
      case .mxfp4: bytes[start] = UInt8.random(in: 119...123, using: &random)
      case .e4m3: bytes[start] = Float8E4M3(saturating: 10 * scale * Float.random(in: -1...1, using: &random)).bitPattern
      }
    }
    return TestWeight(format: format, rows: rows, columns: columns, bytes: bytes)
  }

  func withWeight<R>(named name: String = "test", _ body: (Weight) throws -> R) rethrows -> R {
    try bytes.withUnsafeBytes { try body(Weight(name: name, format: format, rows: rows, columns: columns, bytes: $0, owner: nil)) }
  }

  func prepared(on device: CPUDevice, activations: Activations = .exact) throws -> any PreparedWeight {
    try withWeight { try device.prepare([$0], activations: activations) }
  }
}

extension CPUDevice {
  /// All rows of a weight, `[rows, columns]`.
  func dequantised(_ weight: any PreparedWeight) throws -> [Float] {
    let tokens = try tensor((0..<Int32(weight.rows)).map { $0 }, Shape(weight.rows), .i32)
    let output = try makeTensor(Shape(weight.rows, weight.columns), .f32)
    tensorKernels.embed(tokens: tokens, weight: weight, scale: 1, output: output, on: makeQueue())
    return output.floats
  }

  /// `[tokens, rows]`
  func product(_ input: [Float], _ weight: any PreparedWeight) throws -> [Float] {
    let tokens = input.count / weight.columns
    let output = try makeTensor(Shape(tokens, weight.rows), .f32)
    tensorKernels.product(try tensor(input, Shape(tokens, weight.columns)), weight, output: output, on: makeQueue())
    return output.floats
  }
}

extension SeededGenerator {
  /// Activations: bell-shaped, some of them 20 times as large, as models have them.
  mutating func activations(_ count: Int) -> [Float] {
    floats(count).map { $0 * (UInt8.random(in: .min ... .max, using: &self) < 3 ? 20 : 1) }
  }
}

/// What `Fixtures/make_weight_fixtures.py` recorded of the `gguf` package.
struct WeightFixture {
  let weight: TestWeight
  let values: [Float]

  static func load(_ format: WeightFormat) throws -> WeightFixture {
    let url = try #require(Bundle.module.url(forResource: "weights", withExtension: "json", subdirectory: "Fixtures"))
    let file = try JSONDecoder().decode(File.self, from: Data(contentsOf: url))
    let entry = try #require(file.weights[format.rawValue], "weights.json has no \(format.rawValue)")
    let values = entry.values.withUnsafeBytes { bytes in
      (0..<bytes.count / 4).map {
        Float(bitPattern: UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: $0 * 4, as: UInt32.self)))
      }
    }
    return WeightFixture(
      weight: TestWeight(format: format, rows: entry.rows, columns: entry.columns, bytes: [UInt8](entry.bytes)), values: values)
  }

  private struct File: Decodable {
    let weights: [String: Entry]
  }

  private struct Entry: Decodable {
    let rows: Int, columns: Int
    let bytes: Data, values: Data
  }
}
