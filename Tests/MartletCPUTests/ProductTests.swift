// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import MartletCPU
import MartletCore
import Testing

/// Half a step of a float32 relative to its value: the most that one operation's rounding changes.
private let roundoff = 0x1p-24

private let integerFormats = WeightFormat.allCases.filter { $0.blockSize > 1 }

/// One row, around a group of 16 rows, several groups.
private let rowCounts = [1, 15, 16, 17, 192]
/// All tiles of few tokens, whole and partial tiles of many.
private let tokenCounts = [1, 2, 3, 5, 6, 7, 13, 64]

/// Numbers of inputs: one block, a whole slab of 256, slabs and a rest.
private func columnCounts(of format: WeightFormat) -> [Int] {
  switch format.blockSize {
  case 1: [1, 33, 64, 256, 577]
  case 32: [32, 64, 256, 576, 1536]
  case 64: [64, 256, 576, 1536]
  default: [256, 768, 1536]
  }
}

@Suite(.serialized) struct `Weights that stay coded` {
  // MARK: What a format means

  @Test(arguments: runnableInstructionSets, WeightFormat.allCases)
  func `embed gives, to the bit, the values that the gguf package gives`(instructionSet: String, format: WeightFormat) throws {
    let fixture = try WeightFixture.load(format)
    let device = try CPUDevice(instructionSet: instructionSet, threads: 1)
    let values = try device.dequantised(fixture.weight.prepared(on: device))
    #expect(values.count == fixture.values.count)
    for (index, (value, expected)) in zip(values, fixture.values).enumerated() where value.bitPattern != expected.bitPattern {
      Issue.record("value \(index): \(value), recorded \(expected)")
    }
  }

  @Test func `embed scales, picks rows in any order and repeats them`() throws {
    var random = SeededGenerator(seed: 2)
    let device = try CPUDevice(threads: 2)
    let weight = try TestWeight.random(.q8_0, rows: 300, columns: 576, using: &random).prepared(on: device)
    let all = try device.dequantised(weight)
    let tokens: [Int32] = (0..<100).map { _ in .random(in: 0..<300, using: &random) } + [299, 0, 0, 299]
    let output = try device.makeTensor(Shape(tokens.count, 576), .f32)
    device.tensorKernels.embed(
      tokens: try device.tensor(tokens, Shape(tokens.count), .i32), weight: weight, scale: 24, output: output, on: device.makeQueue())
    let result = output.floats
    for (index, token) in tokens.enumerated() {
      let row = all[Int(token) * 576..<(Int(token) + 1) * 576].map { $0 * 24 }
      #expect(Array(result[index * 576..<(index + 1) * 576]) == row, "entry \(index), token \(token)")
    }
  }

  @Test(arguments: WeightFormat.allCases) func `a prepared weight is hardly larger than its file`(format: WeightFormat) throws {
    var random = SeededGenerator(seed: 3)
    let device = try CPUDevice(threads: 1)
    let weight = TestWeight.random(format, rows: 160, columns: 512, using: &random)
    let byteCount = try weight.prepared(on: device).byteCount
    #expect(device.preparedByteCount(format, rows: 160, columns: 512) == byteCount, "what is announced is what is taken")
    let ratio = Double(byteCount) / Double(weight.bytes.count)
    // Twelve bytes of 6-bit scales become sixteen of 8 bits: 4 bytes more for 144 of Q4_K, 176 of Q5_K, 110 of Q3_K.
    // Of e4m3, four bytes of scale for 128 codes; of NVFP4, four bytes for a row.
    let most: Double =
      switch format {
      case .q4_K, .q5_K: 1.03
      case .q3_K, .e4m3: 1.04
      case .nvfp4: 1 + 4 / 288.0
      default: 1
      }
    #expect(ratio <= most)
  }

  @Test func `weights that share memory keep their values, whichever of them go`() throws {
    var random = SeededGenerator(seed: 30)
    let device = try CPUDevice(threads: 2)
    // From below a piece of shared memory to beyond half of it, and together more than it.
    let sizes = (0..<60).map { _ in 16 * Int.random(in: 1...40, using: &random) } + [20_000]
    func check(_ weight: TestWeight, _ prepared: any PreparedWeight) throws {
      let alone = try CPUDevice(threads: 1)
      #expect(try device.dequantised(prepared) == alone.dequantised(weight.prepared(on: alone)), "\(weight.rows) rows")
    }
    var kept: [(TestWeight, any PreparedWeight)] = []
    for (index, rows) in sizes.enumerated() {
      let weight = TestWeight.random(.q8_0, rows: rows, columns: 1920, using: &random)
      kept.append((weight, try weight.prepared(on: device)))
      if index % 3 == 2 { kept.remove(at: Int.random(in: kept.indices, using: &random)) }
    }
    for (weight, prepared) in kept { try check(weight, prepared) }
    kept.removeAll()
    let later = TestWeight.random(.q8_0, rows: 160, columns: 1920, using: &random)
    try check(later, later.prepared(on: device))
  }

  // MARK: Against float64

  @Test(arguments: runnableInstructionSets, WeightFormat.allCases)
  func `a product is as exact as 16-bit inputs allow`(instructionSet: String, format: WeightFormat) throws {
    let device = try CPUDevice(instructionSet: instructionSet, threads: 1)
    var check = ProductCheck(format: format, fused: instructionSet.hasPrefix("avx"))
    for rows in rowCounts {
      for columns in columnCounts(of: format) {
        var random = SeededGenerator(seed: UInt64(rows * 10_000 + columns))
        let weight = try TestWeight.random(format, rows: rows, columns: columns, using: &random).prepared(on: device)
        let values = try device.dequantised(weight)
        // The plain variants have tiles of four, and time is dear where they run.
        for tokens in instructionSet.hasPrefix("avx") ? tokenCounts : [1, 3, 5, 13] {
          let input = random.activations(tokens * columns)
          let result = try device.product(input, weight)
          check.worst = 0
          for token in 0..<tokens {
            for row in 0..<rows {
              check.compare(
                result[token * rows + row], input[token * columns..<(token + 1) * columns], values[row * columns..<(row + 1) * columns])
            }
          }
          #expect(check.worst <= 1, "[\(rows), \(columns)], \(tokens) tokens: error \(check.worst) of what rounding explains")
        }
      }
    }
    // A token's errors are shared by its rows, so that there are as many independent ones as tokens: over 500, which leaves 7 %.
    #expect(check.spread <= 1.2, "the errors' root mean square is \(check.spread) of what rounding explains")
  }

  @Test(arguments: integerFormats) func `the greatest codes and inputs do not overflow`(format: WeightFormat) throws {
    let columns = 512, rows = 16
    // Every code at its greatest size, every input the slab's greatest: the longest sums there are.
    for codes: UInt8 in [0x00, 0x7F, 0x80, 0xFF] {
      var bytes = [UInt8](repeating: codes, count: rows * format.byteCount(ofRow: columns))
      let half = Float(1).halfBits
      let halves: [Int] =
        switch format {
        case .q2_K: [80, 82]
        case .q3_K: [108]
        case .q6_K: [208]
        case .q4_1, .q5_1, .q4_K, .q5_K: [0, 2]
        case .mxfp4, .nvfp4: []
        default: [0]
        }
      for block in stride(from: 0, to: bytes.count, by: format.blockByteCount) {
        for offset in halves {
          bytes[block + offset] = UInt8(half & 0xFF)
          bytes[block + offset + 1] = UInt8(half >> 8)
        }
        if format == .mxfp4 { bytes[block] = 127 }
        if format == .nvfp4 { for scale in 0..<4 { bytes[block + scale] = 0x38 } }
      }
      let weight = TestWeight(format: format, rows: rows, columns: columns, bytes: bytes)
      for instructionSet in runnableInstructionSets {
        let device = try CPUDevice(instructionSet: instructionSet, threads: 1), prepared = try weight.prepared(on: device)
        let values = try device.dequantised(prepared)
        for sign: Float in [1, -1] {
          let input = [Float](repeating: 3 * sign, count: 7 * columns), result = try device.product(input, prepared)
          for index in result.indices {
            let row = index % rows
            let expected = values[row * columns..<(row + 1) * columns].reduce(0) { $0 + 3 * Double(sign) * Double($1) }
            let size = values[row * columns..<(row + 1) * columns].reduce(0) { $0 + 3 * Double(abs($1)) }
            #expect(abs(Double(result[index]) - expected) <= 1e-5 * max(size, 1), "codes \(codes), \(instructionSet)")
          }
        }
      }
    }
  }

  @Test(arguments: runnableInstructionSets, WeightFormat.allCases)
  func `infinity and NaN spoil their own row, zeros and tiny inputs give zero`(instructionSet: String, format: WeightFormat) throws {
    var random = SeededGenerator(seed: 5)
    let device = try CPUDevice(instructionSet: instructionSet, threads: 1), columns = 512, rows = 33
    let values = TestWeight.random(format, rows: rows, columns: columns, using: &random)
    for activations: Activations in [.exact, .int8] {
      let weight = try values.prepared(on: device, activations: activations)
      for tokens in [5, 13] {
        var input = random.activations(tokens * columns)
        let clean = try device.product(input, weight)
        input[0 * columns + 300] = .nan
        input[1 * columns + 5] = -.infinity
        for column in 0..<columns {
          input[2 * columns + column] = 0
          input[3 * columns + column] = column % 2 == 0 ? 0x1p-140 : -0x1p-149
        }
        let result = try device.product(input, weight)
        for row in 0..<rows {
          #expect(!result[row].isFinite)
          #expect(!result[rows + row].isFinite)
          #expect(result[2 * rows + row] == 0)
          #expect(abs(result[3 * rows + row]) <= 0x1p-100)
        }
        #expect(result[(4 * rows)...].elementsEqual(clean[(4 * rows)...]), "the other rows are what they were")
      }
    }
  }

  // MARK: One arithmetic for every row

  @Test(arguments: runnableInstructionSets, WeightFormat.allCases)
  func `a row is bit-identical alone, among others and with any number of threads`(instructionSet: String, format: WeightFormat) throws {
    let columns = 768, rows = 200, tokens = 401
    var random = SeededGenerator(seed: 6)
    let weight = TestWeight.random(format, rows: rows, columns: columns, using: &random)
    let input = random.activations(tokens * columns)
    let reference = try CPUDevice(instructionSet: instructionSet, threads: 1)
    // Floats are multiplied in int8 as in exact products.
    let kinds: [Activations] = format.blockSize == 1 ? [.exact] : [.exact, .int8]
    for activations in kinds {
      let whole = try reference.product(input, weight.prepared(on: reference, activations: activations))
      // Beyond eight, plans cut tasks smaller to share them out.
      for threads in [1, 2, 3, 11] {
        let device = try CPUDevice(instructionSet: instructionSet, threads: threads)
        let prepared = try weight.prepared(on: device, activations: activations)
        #expect(try device.product(input, prepared) == whole, "\(activations), \(threads) threads")
        var first = 0
        for count in [1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 24, 64, 1] {
          let part = try device.product(Array(input[first * columns..<(first + count) * columns]), prepared)
          #expect(
            part.elementsEqual(whole[first * rows..<(first + count) * rows]),
            "\(activations), \(count) tokens from \(first), \(threads) threads")
          first += count
        }
      }
    }
  }

  /// A slab of 256 inputs has a step of at most a 127th of its greatest input, and each input is off by half a step at most.
  @Test(arguments: runnableInstructionSets, WeightFormat.allCases)
  func `in int8 a product of integers is off by what eight bits explain, and one of floats is exact`(
    instructionSet: String, format: WeightFormat
  ) throws {
    let columns = 768, rows = 40, tokens = 21
    var random = SeededGenerator(seed: 31)
    let device = try CPUDevice(instructionSet: instructionSet, threads: 1)
    let weight = TestWeight.random(format, rows: rows, columns: columns, using: &random)
    let input = random.activations(tokens * columns), prepared = try weight.prepared(on: device, activations: .int8)
    let result = try device.product(input, prepared), exact = try device.product(input, weight.prepared(on: device))
    #expect((result == exact) == (format.blockSize == 1))
    let values = try device.dequantised(prepared)
    for token in 0..<tokens {
      for row in 0..<rows {
        let x = input[token * columns..<(token + 1) * columns], w = values[row * columns..<(row + 1) * columns]
        var expected = 0.0, bound = 0.0
        for start in stride(from: 0, to: columns, by: 256) {
          let step = Double(x.dropFirst(start).prefix(256).reduce(0) { max($0, abs($1)) }) / 127
          for (x, w) in zip(x.dropFirst(start).prefix(256), w.dropFirst(start).prefix(256)) {
            expected += Double(x) * Double(w)
            bound += step * 0.501 * Double(abs(w)) + 1e-5 * Double(abs(x * w))
          }
        }
        #expect(abs(Double(result[token * rows + row]) - expected) <= bound, "token \(token), row \(row)")
      }
    }
  }

  @Test(arguments: WeightFormat.allCases) func `instruction sets agree but for the rounding of float32`(format: WeightFormat) throws {
    let columns = 768, rows = 40, tokens = 9
    var random = SeededGenerator(seed: 7)
    let weight = TestWeight.random(format, rows: rows, columns: columns, using: &random)
    let input = random.activations(tokens * columns)
    let portable = try CPUDevice(instructionSet: "portable", threads: 1), prepared = try weight.prepared(on: portable)
    let values = try portable.dequantised(prepared), expected = try portable.product(input, prepared)
    for instructionSet in runnableInstructionSets {
      let device = try CPUDevice(instructionSet: instructionSet, threads: 1)
      let result = try device.product(input, weight.prepared(on: device))
      for token in 0..<tokens {
        for row in 0..<rows {
          // The integers are the same: no term for the inputs' rounding, where that would be 20 times as much.
          let x = input[token * columns..<(token + 1) * columns], w = values[row * columns..<(row + 1) * columns]
          let bound = 2 * ProductCheck(format: format, fused: false).floatRounding(x, w)
          #expect(abs(Double(result[token * rows + row]) - Double(expected[token * rows + row])) <= bound, "\(instructionSet)")
        }
      }
    }
  }

  @Test(arguments: runnableInstructionSets)
  func `weights of mixed formats, stacked, are bit-identical to one after the other`(instructionSet: String) throws {
    let columns = 512
    var random = SeededGenerator(seed: 8)
    let formats: [WeightFormat] = [
      .q4_1, .q8_0, .f16, .q6_K, .q4_0, .q4_K, .bf16, .q5_0, .f32, .q2_K, .iq4_NL, .q5_K, .q3_K, .q5_1, .mxfp4, .e4m3, .nvfp4,
    ]
    #expect(Set(formats) == Set(WeightFormat.allCases))
    let weights = formats.enumerated().map { index, format in
      TestWeight.random(
        format, rows: [48, 17, 16, 5, 33, 64, 1, 30, 20, 18, 3, 32, 31, 6, 34, 19, 35][index], columns: columns, using: &random)
    }
    let device = try CPUDevice(instructionSet: instructionSet, threads: 3)
    let rows = weights.reduce(0) { $0 + $1.rows }
    for activations: Activations in [.exact, .int8] {
      // The parts' memory may go after `prepare`: copies, so that reading them later would show.
      let stacked = try prepare(weights[...], activations: activations, on: device)
      #expect(stacked.rows == rows && stacked.columns == columns)
      #expect(try device.dequantised(stacked) == weights.flatMap { try device.dequantised($0.prepared(on: device)) })
      for tokens in [1, 4, 6, 29] {
        let input = random.activations(tokens * columns)
        let result = try device.product(input, stacked)
        var firstRow = 0
        for weight in weights {
          let single = try device.product(input, weight.prepared(on: device, activations: activations))
          for token in 0..<tokens {
            let part = result[token * rows + firstRow..<token * rows + firstRow + weight.rows]
            #expect(
              part.elementsEqual(single[token * weight.rows..<(token + 1) * weight.rows]),
              "\(activations), \(weight.format), \(tokens) tokens")
          }
          firstRow += weight.rows
        }
      }
    }
  }

  /// One weight of all, stacked.
  private func prepare(
    _ weights: ArraySlice<TestWeight>, _ parts: [Weight] = [], activations: Activations, on device: CPUDevice
  ) throws -> any PreparedWeight {
    guard let first = weights.first else { return try device.prepare(parts, activations: activations) }
    return try first.withWeight { try prepare(weights.dropFirst(), parts + [$0], activations: activations, on: device) }
  }

  // MARK: Matrices that do not lie row behind row

  /// Every other row, turned, as some files have the experts' gates and what goes up.
  @Test(arguments: [WeightFormat.f32, .f16, .bf16, .e4m3]) func `a transposed matrix gives the bits of one that is not`(
    format: WeightFormat
  ) throws {
    var random = SeededGenerator(seed: 20)
    let device = try CPUDevice(threads: 2), rows = 37, columns = 300, size = format.blockByteCount
    let weight = TestWeight.random(format, rows: rows, columns: columns, using: &random)
    var turned = [UInt8](repeating: 0xFF, count: 2 * rows * columns * size)
    for row in 0..<rows {
      for column in 0..<columns {
        for byte in 0..<size {
          turned[(column * 2 * rows + 2 * row + 1) * size + byte] = weight.bytes[(row * columns + column) * size + byte]
        }
      }
    }
    let input = random.activations(7 * columns)
    let prepared = try turned.withUnsafeBytes { bytes in
      try device.prepare([
        Weight(
          name: "turned", format: format, rows: rows, columns: columns, bytes: UnsafeRawBufferPointer(rebasing: bytes.dropFirst(size)),
          layout: Weight.Layout(rowStride: 2 * size, blockStride: 2 * rows * size), owner: nil)
      ])
    }
    #expect(try device.product(input, prepared) == device.product(input, weight.prepared(on: device)))
  }

  @Test func `MXFP4 whose exponents lie apart gives the bits of GGUF's blocks`() throws {
    var random = SeededGenerator(seed: 21)
    let device = try CPUDevice(threads: 2), rows = 40, columns = 352, blocks = columns / 32
    let weight = TestWeight.random(.mxfp4, rows: rows, columns: columns, using: &random)
    var nibbles = [UInt8](repeating: 0, count: rows * columns / 2), exponents: [UInt8] = []
    for block in 0..<rows * blocks {
      exponents.append(weight.bytes[block * 17])
      for k in 0..<32 {
        let code = weight.bytes[block * 17 + 1 + k % 16] >> (k < 16 ? 0 : 4) & 15
        nibbles[block * 16 + k / 2] |= code << (k % 2 * 4)
      }
    }
    let input = random.activations(7 * columns)
    let prepared = try nibbles.withUnsafeBytes { nibbles in
      try exponents.withUnsafeBytes { exponents in
        try device.prepare([
          Weight(
            name: "apart", format: .mxfp4, rows: rows, columns: columns, bytes: nibbles,
            layout: Weight.Layout(rowStride: columns / 2, blockStride: 16), scales: .exponents(exponents, rowStride: blocks), owner: nil)
        ])
      }
    }
    #expect(try device.product(input, prepared) == device.product(input, weight.prepared(on: device)))
  }

  /// As GGUF has it, its factor beside it, and with its scales apart; and some of the rows of both.
  @Test(arguments: runnableInstructionSets) func `NVFP4 whose scales lie apart gives the bits of GGUF's blocks`(instructionSet: String)
    throws
  {
    var random = SeededGenerator(seed: 24)
    let device = try CPUDevice(instructionSet: instructionSet, threads: 2), rows = 40, columns = 320, blocks = columns / 64
    let weight = TestWeight.random(.nvfp4, rows: rows, columns: columns, using: &random)
    var nibbles = [UInt8](repeating: 0, count: rows * columns / 2), scales: [UInt8] = []
    for block in 0..<rows * blocks {
      scales += weight.bytes[block * 36..<block * 36 + 4]
      for k in 0..<64 {
        let code = weight.bytes[block * 36 + 4 + k / 16 * 8 + k % 8] >> (k % 16 < 8 ? 0 : 4) & 15
        nibbles[block * 32 + k / 2] |= code << (k % 2 * 4)
      }
    }
    let factor: Float = 0.0123, input = random.activations(7 * columns)
    let plain = try weight.prepared(on: device), values = try device.dequantised(plain).map { $0 * factor }
    try weight.withWeight { blocks in
      try nibbles.withUnsafeBytes { nibbles in
        try scales.withUnsafeBytes { scales in
          let apart = Weight(
            name: "apart", format: .nvfp4, rows: rows, columns: columns, bytes: nibbles,
            layout: Weight.Layout(rowStride: columns / 2, blockStride: 32),
            scales: .sixteens(scales, rowStride: columns / 16, factor: factor), owner: nil)
          let whole = try device.product(input, plain)
          for weight in [apart, blocks.multiplied(by: factor)] {
            let prepared = try device.prepare([weight])
            #expect(try device.dequantised(prepared) == values)
            // 2⁷ of a factor multiplies the sum in one rounding; without a factor it is 2⁷ itself, which rounds nothing.
            #expect(try device.product(input, prepared) == whole.map { $0 * factor })
            let part = try device.prepare([#require(weight.rows(7..<33))])
            #expect(try device.dequantised(part) == Array(values[7 * columns..<33 * columns]))
          }
        }
      }
    }
  }

  /// The factor of each row, where rows have their own.
  @Test func `a factor for each row of NVFP4 multiplies its row`() throws {
    var random = SeededGenerator(seed: 25)
    let device = try CPUDevice(threads: 2), rows = 20, columns = 128
    let weight = TestWeight.random(.nvfp4, rows: rows, columns: columns, using: &random)
    let factors = random.floats(rows), values = try device.dequantised(weight.prepared(on: device))
    try weight.withWeight {
      let scaled = Weight(
        name: "scaled", format: .nvfp4, rows: rows, columns: columns, bytes: $0.bytes, layout: $0.layout,
        scales: .floats(factors, rows: 1, columns: columns), owner: nil)
      #expect(try device.dequantised(device.prepare([scaled])) == values.indices.map { values[$0] * factors[$0 / columns] })
      let part = try #require(scaled.rows(3..<19))
      #expect(
        try device.dequantised(device.prepare([part])) == (3 * columns..<19 * columns).map { values[$0] * factors[$0 / columns] })
    }
  }

  @Test(arguments: runnableInstructionSets) func `a scale of NVFP4 that is NaN spoils its row`(instructionSet: String) throws {
    var random = SeededGenerator(seed: 26)
    let device = try CPUDevice(instructionSet: instructionSet, threads: 1), rows = 20, columns = 320
    let nibbles = (0..<rows * columns / 2).map { _ in UInt8.random(in: .min ... .max, using: &random) }
    func products(_ tokens: Int, last: UInt8) throws -> [Float] {
      var scales = [UInt8](repeating: 0x38, count: rows * columns / 16)
      scales[8 * columns / 16 - 1] = last  // of row 7
      return try nibbles.withUnsafeBytes { nibbles in
        try scales.withUnsafeBytes { scales in
          let weight = Weight(
            name: "nan", format: .nvfp4, rows: rows, columns: columns, bytes: nibbles,
            layout: Weight.Layout(rowStride: columns / 2, blockStride: 32),
            scales: .sixteens(scales, rowStride: columns / 16, factor: 1), owner: nil)
          return try device.product((0..<tokens * columns).map { Float($0 % 7) }, device.prepare([weight]))
        }
      }
    }
    for tokens in [1, 8] {
      let clean = try products(tokens, last: 0x38)
      for code: UInt8 in [0x7F, 0xFF] {
        let result = try products(tokens, last: code)
        for index in result.indices { #expect(index % rows == 7 ? result[index].isNaN : result[index] == clean[index]) }
      }
    }
  }

  /// One for the matrix, one a row, and one for 128 × 128, of which 128 does not divide the sides.
  @Test(arguments: runnableInstructionSets, [(1000, 1000), (1, 1000), (128, 128), (20, 256)])
  func `scales of e4m3 multiply their part of the matrix`(instructionSet: String, part: (rows: Int, columns: Int)) throws {
    var random = SeededGenerator(seed: 22)
    let device = try CPUDevice(instructionSet: instructionSet, threads: 2), rows = 150, columns = 300
    let weight = TestWeight.random(.e4m3, rows: rows, columns: columns, using: &random)
    let across = (columns + part.columns - 1) / part.columns
    let scales = random.floats((rows + part.rows - 1) / part.rows * across).map { 0.1 + abs($0) }
    let prepared = try weight.bytes.withUnsafeBytes { bytes in
      try device.prepare([
        Weight(
          name: "scaled", format: .e4m3, rows: rows, columns: columns, bytes: bytes,
          layout: Weight.Layout(rowStride: columns, blockStride: 1), scales: .floats(scales, rows: part.rows, columns: part.columns),
          owner: nil)
      ])
    }
    let values = weight.bytes.indices.map { index in
      Float(Float8E4M3(bitPattern: weight.bytes[index])) * scales[index / columns / part.rows * across + index % columns / part.columns]
    }
    #expect(try device.dequantised(prepared) == values)
    let input = random.activations(9 * columns), result = try device.product(input, prepared)
    var check = ProductCheck(format: .e4m3, fused: instructionSet.hasPrefix("avx"))
    for token in 0..<9 {
      for row in 0..<rows {
        check.compare(
          result[token * rows + row], input[token * columns..<(token + 1) * columns], values[row * columns..<(row + 1) * columns])
      }
    }
    // Besides, each scale is multiplied into a sum instead of into its weights, which rounds once more for each.
    #expect(check.worst <= 1.1, "\(check.worst) of what rounding explains")
  }

  /// NaN as a weight is NaN in its row's output, whatever it meets, and nowhere else.
  @Test(arguments: runnableInstructionSets) func `a NaN of e4m3 spoils its row`(instructionSet: String) throws {
    var random = SeededGenerator(seed: 23)
    let device = try CPUDevice(instructionSet: instructionSet, threads: 1), columns = 300
    let clean = TestWeight.random(.e4m3, rows: 20, columns: columns, using: &random)
    var bytes = clean.bytes
    bytes[7 * columns + 299] = 0xFF
    let weight = TestWeight(format: .e4m3, rows: 20, columns: columns, bytes: bytes)
    for tokens in [1, 8] {
      let input = [Float](repeating: 0, count: tokens * columns)
      let result = try device.product(input, weight.prepared(on: device)), expected = try device.product(input, clean.prepared(on: device))
      for index in result.indices { #expect(index % 20 == 7 ? result[index].isNaN : result[index] == expected[index]) }
    }
  }

  // MARK: Refusals

  @Test func `weights of different widths cannot be stacked`() throws {
    var random = SeededGenerator(seed: 9)
    let device = try CPUDevice(threads: 1)
    let a = TestWeight.random(.q8_0, rows: 4, columns: 64, using: &random)
    let b = TestWeight.random(.q8_0, rows: 4, columns: 32, using: &random)
    a.withWeight(named: "a") { a in
      b.withWeight(named: "b") { b in
        let reason = "it has 32 columns and cannot be stacked on \"a\" with 64"
        #expect(throws: DeviceError.unsupportedWeight(device: "cpu", weight: "b", reason: reason)) { _ = try device.prepare([a, b]) }
      }
    }
  }

  @Test func `no tokens are no work`() throws {
    var random = SeededGenerator(seed: 10)
    let device = try CPUDevice(threads: 2)
    let weight = try TestWeight.random(.q4_1, rows: 16, columns: 64, using: &random).prepared(on: device)
    let input = try device.makeTensor(Shape(4, 64), .f32), output = try device.makeTensor(Shape(4, 16), .f32)
    device.tensorKernels.product(input.prefix(0), weight, output: output.prefix(0), on: device.makeQueue())
    let tokens = try device.makeTensor(Shape(1), .i32).prefix(0)
    device.tensorKernels.embed(tokens: tokens, weight: weight, scale: 1, output: input.prefix(0), on: device.makeQueue())
    #expect(output.floats.allSatisfy { $0 == 0 })
  }
}

/// Compares outputs with float64 and with what the roundings of the arithmetic can explain.
private struct ProductCheck {
  let format: WeightFormat
  let fused: Bool
  /// The largest error as a fraction of its bound.
  var worst = 0.0
  private var count = 0
  private var squares = 0.0

  init(format: WeightFormat, fused: Bool) {
    self.format = format
    self.fused = fused
  }

  /// The root mean square of the errors, each as a fraction of the deviation that independent roundings to 16 bits give.
  var spread: Double { (squares / Double(count)).squareRoot() }

  mutating func compare(_ result: Float, _ x: ArraySlice<Float>, _ w: ArraySlice<Float>) {
    let expected = zip(x, w).reduce(0) { $0 + Double($1.0) * Double($1.1) }
    let error = abs(Double(result) - expected)
    var inputRounding = 0.0, variance = pow(floatRounding(x, w) / 3, 2)
    if format.blockSize > 1 {
      for start in stride(from: 0, to: x.count, by: 256) {
        let end = min(start + 256, x.count)
        let step = Double(x.dropFirst(start).prefix(end - start).reduce(0) { max($0, abs($1)) }) / 32767
        let weights = w.dropFirst(start).prefix(end - start)
        // Half a step, and three roundings of a number that is at most 32767: the reciprocal, the product, the scale.
        inputRounding += step * (0.5 + 3 * 32767 * roundoff) * weights.reduce(0) { $0 + Double(abs($1)) }
        variance += step * step / 12 * weights.reduce(0) { $0 + Double($1) * Double($1) }
      }
    }
    worst = max(worst, error / max(inputRounding + floatRounding(x, w), .leastNormalMagnitude))
    squares += error * error / max(variance, .leastNormalMagnitude)
    count += 1
  }

  /// What the additions in float32 can lose: each partial sum's rounding.
  func floatRounding(_ x: ArraySlice<Float>, _ w: ArraySlice<Float>) -> Double {
    let size = zip(x, w).reduce(0) { $0 + Double(abs($1.0)) * Double(abs($1.1)) }
    let slabs = Double((x.count + 255) / 256)
    if format.blockSize == 1 { return (Double(min(x.count, 256)) + slabs) * (fused ? 1 : 2) * roundoff * size }
    // Scale and minimum can be larger than the weight that they make together; no larger than twice the row's greatest weight.
    let inputs = x.reduce(0) { $0 + Double(abs($1)) }
    let hasMinimum = [.q4_1, .q5_1, .q2_K, .q4_K, .q5_K].contains(format)
    let partial = hasMinimum ? size + 2 * inputs * w.reduce(0) { max($0, Double(abs($1))) } : size
    // A slab has at most 16 sums, each converted and added in, and as many minimums.
    return (Double(min(x.count, 256)) / 16 * 3 + slabs + 2) * (fused ? 1 : 2) * roundoff * partial
  }
}
