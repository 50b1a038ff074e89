// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCPU
import MartletCUDA
import MartletCore
import Testing

/// A weight with its own memory: random codes, scales of an ordinary size.
struct TestWeight {
  let format: WeightFormat
  let rows: Int
  let columns: Int
  let bytes: [UInt8]

  init(_ format: WeightFormat, rows: Int, columns: Int, using random: inout SeededGenerator) {
    let blockBytes = format.blockByteCount
    var bytes = (0..<rows * columns / format.blockSize * blockBytes).map { _ in UInt8.random(in: .min ... .max, using: &random) }
    for start in stride(from: 0, to: bytes.count, by: blockBytes) {
      func put(_ value: UInt16, at offset: Int) {
        bytes[start + offset] = UInt8(truncatingIfNeeded: value)
        bytes[start + offset + 1] = UInt8(truncatingIfNeeded: value >> 8)
      }
      func half(_ range: Float) -> UInt16 { (range * Float.random(in: -1...1, using: &random)).halfBits }
      switch format {
      case .f32:
        let value = Float.random(in: -1...1, using: &random).bitPattern
        put(UInt16(truncatingIfNeeded: value), at: 0)
        put(UInt16(truncatingIfNeeded: value >> 16), at: 2)
      case .f16: put(half(1), at: 0)
      case .bf16: put(BFloat16(Float.random(in: -1...1, using: &random)).bitPattern, at: 0)
      case .e4m3: bytes[start] = Float8E4M3(saturating: Float.random(in: -1...1, using: &random)).bitPattern
      case .q4_0, .q5_0, .q8_0, .iq4_NL: put(half(0.1), at: 0)
      case .q4_1, .q5_1, .q4_K, .q5_K:
        put(half(0.1), at: 0)
        put(half(0.1), at: 2)
      case .q2_K:
        put(half(0.1), at: 80)
        put(half(0.1), at: 82)
      case .q3_K: put(half(0.1), at: 108)
      case .q6_K: put(half(0.1), at: 208)
      case .nvfp4: for scale in 0..<4 { bytes[start + scale] = UInt8.random(in: 0x08...0x1F, using: &random) }
      case .mxfp4: bytes[start] = UInt8.random(in: 119...123, using: &random)
      }
    }
    self.format = format
    self.rows = rows
    self.columns = columns
    self.bytes = bytes
  }

  func withWeight<Result>(_ body: (Weight) throws -> Result) rethrows -> Result {
    try bytes.withUnsafeBytes {
      try body(Weight(name: format.rawValue, format: format, rows: rows, columns: columns, bytes: $0, owner: nil))
    }
  }

  /// Its values as the CPU reads them, `[rows, columns]`.
  func values() throws -> [Float] {
    let cpu = try CPUDevice(threads: 1)
    return try cpu.rows(of: try withWeight { try cpu.prepare([$0]) })
  }
}

extension Device {
  /// All rows of a weight.
  func rows(of weight: any PreparedWeight) throws -> [Float] {
    let output = try makeTensor(Shape(weight.rows, weight.columns), .f32), queue = makeQueue()
    tensorKernels.embed(
      tokens: try tensor((0..<Int32(weight.rows)).map(\.self), Shape(weight.rows), .i32), weight: weight, scale: 1, output: output,
      on: queue)
    try queue.finish()
    return try values(output)
  }

  /// `[tokens, rows]`.
  func product(_ input: [Float], _ weight: any PreparedWeight) throws -> [Float] {
    let tokens = input.count / weight.columns, output = try makeTensor(Shape(tokens, weight.rows), .f32), queue = makeQueue()
    tensorKernels.product(try tensor(input, Shape(tokens, weight.columns)), weight, output: output, on: queue)
    try queue.finish()
    return try values(output)
  }
}

@Suite("Products of a GPU")
struct ProductTests {
  @Test("read a weight's values as the CPU does, to the bit", arguments: WeightFormat.allCases)
  func values(format: WeightFormat) throws {
    var random = SeededGenerator(seed: 11)
    // Rows that do not fill a group of 16, columns that do not fill a block of 32 where the format lets them.
    let columns = format.blockSize == 1 ? 300 : 512
    let weight = TestWeight(format, rows: 37, columns: columns, using: &random), device = try StandIn.device()
    let prepared = try weight.withWeight { try device.prepare([$0]) }
    #expect(prepared.byteCount == device.preparedByteCount(format, rows: 37, columns: columns))
    let expected = try weight.values(), found = try device.rows(of: prepared)
    #expect(zip(expected, found).allSatisfy { $0 == $1 || $0.isNaN && $1.isNaN })
  }

  /// Against sums in float64 of the same values. Exact: rows are sums of two or three numbers of bfloat16, and float32 sums of `columns` products, of which
  /// the error is some units of the last place of the sum of magnitudes. Rounded rows: 2⁻⁹ of each product.
  @Test("are those of float64, rounded as they should be", arguments: WeightFormat.allCases, Activations.allCases)
  func accuracy(format: WeightFormat, activations: Activations) throws {
    var random = SeededGenerator(seed: 12)
    let (tokens, rows, columns) = (11, 37, 512)
    let weight = TestWeight(format, rows: rows, columns: columns, using: &random), device = try StandIn.device()
    let input = random.floats(tokens * columns), values = try weight.values()
    let found = try device.product(input, try weight.withWeight { try device.prepare([$0], activations: activations) })
    let tolerance = activations == .exact ? 0x1p-16 : 0x1p-7
    for token in 0..<tokens {
      for row in 0..<rows {
        var sum = 0.0, magnitude = 0.0
        for k in 0..<columns {
          let product = Double(input[token * columns + k]) * Double(values[row * columns + k])
          sum += product
          magnitude += product.magnitude
        }
        let difference = (Double(found[token * rows + row]) - sum).magnitude
        #expect(difference <= tolerance * magnitude, "token \(token), row \(row): \(difference) of \(magnitude)")
      }
    }
  }

  @Test("give a row the same bits in any company", arguments: [WeightFormat.bf16, .q8_0, .q4_K])
  func company(format: WeightFormat) throws {
    var random = SeededGenerator(seed: 13)
    let (rows, columns) = (40, 512)
    let weight = TestWeight(format, rows: rows, columns: columns, using: &random), device = try StandIn.device()
    let prepared = try weight.withWeight { try device.prepare([$0]) }, input = random.floats(37 * columns)
    let all = try device.product(input, prepared).map(\.bitPattern)
    for (first, count) in [(0, 1), (5, 2), (36, 1), (3, 17)] {
      let some = try device.product(Array(input[first * columns..<(first + count) * columns]), prepared).map(\.bitPattern)
      #expect(some == Array(all[first * rows..<(first + count) * rows]), "\(count) tokens from \(first) on")
    }
  }

  @Test("stack weights of several formats, add a bias, and add to what is there")
  func stacked() throws {
    var random = SeededGenerator(seed: 14)
    let (tokens, columns) = (3, 256)
    let first = TestWeight(.q4_0, rows: 20, columns: columns, using: &random),
      second = TestWeight(.bf16, rows: 13, columns: columns, using: &random)
    let device = try StandIn.device(), queue = device.makeQueue()
    let input = random.floats(tokens * columns), bias = random.floats(33), before = random.floats(tokens * 33)
    let both = try first.withWeight { first in try second.withWeight { try device.prepare([first, $0]) } }
    #expect(both.rows == 33)
    let target = try device.tensor(before, Shape(tokens, 33))
    var output = ProductOutput.adding(to: target, scaledBy: 0.5)
    output.bias = try device.tensor(bias, Shape(33))
    device.tensorKernels.product(.rows(try device.tensor(input, Shape(tokens, columns))), both, output: output, on: queue)
    try queue.finish()
    let found = try device.values(target)
    // A part alone; its inputs have as many terms as the other's here, since of more terms the first are the same.
    let parts = try [first, second].map { weight in try device.product(input, try weight.withWeight { try device.prepare([$0]) }) }
    for token in 0..<tokens {
      for row in 0..<33 {
        let alone = row < 20 ? parts[0][token * 20 + row] : parts[1][token * 13 + row - 20]
        let expected = before[token * 33 + row] + 0.5 * (alone + bias[row])
        // Fused or not, the last step rounds once or twice.
        #expect((found[token * 33 + row] - expected).magnitude <= 1e-6 * (1 + alone.magnitude), "token \(token), row \(row)")
      }
    }
  }

  @Test("make their rows on the way, to the bits of the kernels that do it alone")
  func onTheWay() throws {
    var random = SeededGenerator(seed: 15)
    let (tokens, columns) = (5, 96)
    let weight = TestWeight(.bf16, rows: 24, columns: columns, using: &random), device = try StandIn.device(), queue = device.makeQueue()
    let prepared = try weight.withWeight { try device.prepare([$0]) }, kernels = device.tensorKernels
    let rows = try device.tensor(random.floats(tokens * columns), Shape(tokens, columns)),
      norm = try device.tensor(random.floats(columns), Shape(columns))
    let gateUp = try device.tensor(random.floats(tokens * 2 * columns), Shape(tokens, 2 * columns))
    let made = try device.makeTensor(Shape(tokens, columns), .f32)
    func product(_ input: ProductInput) throws -> [UInt32] {
      let output = try device.makeTensor(Shape(tokens, 24), .f32)
      kernels.product(input, prepared, output: ProductOutput(output), on: queue)
      try queue.finish()
      return try device.values(output).map(\.bitPattern)
    }
    let normalized = try product(.normalized(rows, weight: norm, epsilon: 1e-5))
    kernels.rmsNorm(rows, weight: norm, epsilon: 1e-5, output: made, on: queue)
    #expect(normalized == (try product(.rows(made))))
    let gated = try product(.gated(.silu, gateUp: gateUp))
    kernels.gatedActivation(.silu, gateUp: gateUp, output: made, on: queue)
    #expect(gated == (try product(.rows(made))))
  }

  @Test("of heads are products of their own")
  func heads() throws {
    var random = SeededGenerator(seed: 16)
    let (heads, tokens, columns, rows) = (3, 5, 64, 20), device = try StandIn.device(), queue = device.makeQueue()
    let weights = try (0..<heads).map { _ in
      try TestWeight(.bf16, rows: rows, columns: columns, using: &random).withWeight { try device.prepare([$0]) }
    }
    let input = random.floats(heads * tokens * columns), output = try device.makeTensor(Shape(heads * tokens, rows), .f32)
    device.tensorKernels.headProduct(try device.tensor(input, Shape(heads * tokens, columns)), weights, output: output, on: queue)
    try queue.finish()
    let found = try device.values(output)
    for (head, weight) in weights.enumerated() {
      let alone = try device.product(Array(input[head * tokens * columns..<(head + 1) * tokens * columns]), weight)
      #expect(Array(found[head * tokens * rows..<(head + 1) * tokens * rows]) == alone)
    }
  }

  @Test("read rows of stacked weights, scaled")
  func embed() throws {
    var random = SeededGenerator(seed: 17)
    let columns = 64, first = TestWeight(.q8_0, rows: 5, columns: columns, using: &random)
    let second = TestWeight(.f16, rows: 9, columns: columns, using: &random), device = try StandIn.device(), queue = device.makeQueue()
    let both = try first.withWeight { first in try second.withWeight { try device.prepare([first, $0]) } }
    let values = try first.values() + second.values(), tokens: [Int32] = [13, 0, 4, 5, 5]
    let output = try device.makeTensor(Shape(tokens.count, columns), .f32)
    device.tensorKernels.embed(
      tokens: try device.tensor(tokens, Shape(tokens.count), .i32), weight: both, scale: 1.5, output: output, on: queue)
    try queue.finish()
    let expected = tokens.flatMap { token in values[Int(token) * columns..<(Int(token) + 1) * columns].map { $0 * 1.5 } }
    #expect(try device.values(output) == expected)
  }

  @Test("refuse weights that cannot be stacked")
  func unsupported() throws {
    var random = SeededGenerator(seed: 18)
    let device = try StandIn.device()
    let first = TestWeight(.f16, rows: 2, columns: 32, using: &random), second = TestWeight(.f16, rows: 2, columns: 64, using: &random)
    let error = #expect(throws: DeviceError.self) {
      try first.withWeight { first in try second.withWeight { try device.prepare([first, $0]) } }
    }
    #expect(error?.code == .unsupportedWeight)
    #expect(
      error?.description == "device cuda:0: weight \"F16\": it has 64 columns and cannot be stacked on \"F16\" with 32",
      "\(String(describing: error))")
  }
}
