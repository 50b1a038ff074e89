// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import MartletCPU
import MartletCore
import Testing

/// Half a step of a float32 relative to its value: the most that one operation's rounding changes.
private let roundoff = 0x1p-24

/// Row lengths with and without a tail after the last 16 lanes.
private let rowLengths = [1, 15, 16, 17, 576, 640, 1000]

@Suite(.serialized) struct `Row kernels` {
  // MARK: Against float64

  @Test(arguments: runnableInstructionSets, rowLengths)
  func `rmsNorm agrees with float64`(instructionSet: String, columns: Int) throws {
    let device = try CPUDevice(instructionSet: instructionSet, threads: 1), queue = device.makeQueue()
    var random = SeededGenerator(seed: 1)
    let rows = 5, epsilon: Float = 1e-5
    let x = random.floats(rows * columns, scale: 3), w = random.floats(columns)
    let input = try device.tensor(x, Shape(rows, columns)), output = try device.makeTensor(Shape(rows, columns), .f32)
    device.tensorKernels.rmsNorm(input, weight: try device.tensor(w, Shape(columns)), epsilon: epsilon, output: output, on: queue)
    // A lane adds columns / 16 squares, the tree 4 levels; the root halves that error; mean, epsilon, root, quotient and two products.
    let tolerance = (Double(columns / 16 + 6) / 2 + 6) * roundoff
    let result = output.floats
    for row in 0..<rows {
      let values = x[row * columns..<(row + 1) * columns].map(Double.init)
      let scale = 1 / (values.reduce(0) { $0 + $1 * $1 } / Double(columns) + Double(epsilon)).squareRoot()
      for i in 0..<columns {
        let expected = values[i] * scale * Double(w[i])
        #expect(abs(Double(result[row * columns + i]) - expected) <= tolerance * abs(expected), "row \(row), column \(i)")
      }
    }
    #expect(input.floats == x, "the input is left alone")
    device.tensorKernels.rmsNorm(input, weight: try device.tensor(w, Shape(columns)), epsilon: epsilon, output: input, on: queue)
    #expect(input.floats == result, "in place gives the same")
  }

  @Test(arguments: runnableInstructionSets, rowLengths)
  func `silu agrees with float64`(instructionSet: String, width: Int) throws {
    // The exponential 1.5e-7; sum, quotient and product half a step each.
    try compare(instructionSet, width, .silu, { $0 / (1 + exp(-$0)) }, tolerance: { _ in 1.5e-7 + 3 * roundoff })
  }

  @Test(arguments: runnableInstructionSets, rowLengths)
  func `gelu agrees with float64`(instructionSet: String, width: Int) throws {
    let u = { (x: Double) in (2 / Double.pi).squareRoot() * (x + 0.044715 * x * x * x) }
    // As silu; and the exponential multiplies the six roundings of its argument by the argument.
    try compare(
      instructionSet, width, .geluTanh, { $0 / (1 + exp(-2 * u($0))) },
      tolerance: { 1.5e-7 + 3 * roundoff + 6 * roundoff * abs(2 * u($0)) })
  }

  /// Gates from the whole range of floats where something happens, each against `reference`.
  private func compare(
    _ instructionSet: String, _ width: Int, _ activation: GatedActivation, _ reference: (Double) -> Double, tolerance: (Double) -> Double
  ) throws {
    let device = try CPUDevice(instructionSet: instructionSet, threads: 1)
    var random = SeededGenerator(seed: 2)
    let rows = 6
    var gateUp: [Float] = []
    for row in 0..<rows {
      gateUp += random.floats(width, scale: [0.01, 1, 4, 20, 60, 1000][row])
      gateUp += random.floats(width)
    }
    let output = try device.makeTensor(Shape(rows, width), .f32)
    device.tensorKernels.gatedActivation(
      activation, gateUp: try device.tensor(gateUp, Shape(rows, 2 * width)), output: output, on: device.makeQueue())
    let result = output.floats
    for row in 0..<rows {
      for i in 0..<width {
        let gate = Double(gateUp[row * 2 * width + i]), up = Double(gateUp[row * 2 * width + width + i])
        let expected = reference(gate) * up
        // Where the exponential passes 2¹²⁸ and is infinite, the result is 0 instead of less than |gate| · 2⁻¹²⁸, gate about −88;
        // and below the smallest normal float a step is no longer relative.
        let allowed = tolerance(gate) * abs(expected) + 0x1p-121 * abs(up) + 0x1p-126
        #expect(abs(Double(result[row * width + i]) - expected) <= allowed, "gate \(gate), up \(up)")
      }
    }
  }

  @Test(arguments: runnableInstructionSets, [GatedActivation.silu, .geluTanh])
  func `activations keep their limits`(instructionSet: String, activation: GatedActivation) throws {
    let device = try CPUDevice(instructionSet: instructionSet, threads: 1)
    let gates: [Float] = [0, -0.0, 1e-30, -1e-30, 30, -30, 88, -88, 100, -100, 1e20, -1e20, .infinity, .nan, 3e38, -3e38]
    let gateUp = try device.tensor(gates + [Float](repeating: 1, count: 16), Shape(1, 32))
    let output = try device.makeTensor(Shape(1, 16), .f32)
    device.tensorKernels.gatedActivation(activation, gateUp: gateUp, output: output, on: device.makeQueue())
    let result = output.floats
    #expect(result[0] == 0 && result[1] == 0)
    #expect(result[2] == 0.5e-30 && result[3] == -0.5e-30)
    #expect(result[4] == 30 && result[6] == 88 && result[8] == 100 && result[10] == 1e20 && result[12] == .infinity)
    #expect(result[5] <= 0 && result[5] > -1e-11 && result[7] <= 0 && result[7] > -1e-35)
    #expect(result[9] == 0 && result[11] == 0 && result[15] == 0)
    #expect(result[13].isNaN)
    #expect(result[14] == 3e38)
  }

  @Test(arguments: runnableInstructionSets, rowLengths)
  func `add, addRow and gatherRows are exact`(instructionSet: String, columns: Int) throws {
    let device = try CPUDevice(instructionSet: instructionSet, threads: 2), queue = device.makeQueue()
    var random = SeededGenerator(seed: 3)
    let rows = 7
    let a = random.floats(rows * columns), b = random.floats(rows * columns)
    let accumulator = try device.tensor(a, Shape(rows, columns)), addend = try device.tensor(b, Shape(rows, columns))
    device.tensorKernels.add(addend, to: accumulator, on: queue)
    #expect(accumulator.floats == zip(a, b).map(+))

    let row = random.floats(columns)
    device.tensorKernels.addRow(try device.tensor(row, Shape(columns)), to: accumulator, on: queue)
    #expect(accumulator.floats == (0..<rows * columns).map { a[$0] + b[$0] + row[$0 % columns] })

    let chosen: [Int32] = [6, 0, 0, 3, 6, 1, 2, 5, 4]
    let output = try device.makeTensor(Shape(chosen.count, columns), .f32)
    device.tensorKernels.gatherRows(addend, rows: try device.tensor(chosen, Shape(chosen.count), .i32), output: output, on: queue)
    #expect(output.floats == chosen.flatMap { b[Int($0) * columns..<(Int($0) + 1) * columns] })
  }

  @Test(arguments: runnableInstructionSets, rowLengths)
  func `layerNorm agrees with float64, also where the mean is large beside the deviations`(instructionSet: String, columns: Int) throws {
    let device = try CPUDevice(instructionSet: instructionSet, threads: 2), queue = device.makeQueue()
    var random = SeededGenerator(seed: 12)
    let rows = 5, shape = Shape(rows, columns)
    let x = random.floats(rows * columns).enumerated().map { $1 + Float($0 / columns) }
    let w = random.floats(columns), b = random.floats(columns)
    let input = try device.tensor(x, shape), output = try device.makeTensor(shape, .f32)
    let weight = try device.tensor(w, Shape(columns)), bias = try device.tensor(b, Shape(columns))
    device.tensorKernels.layerNorm(input, weight: weight, bias: bias, epsilon: 1e-5, output: output, on: queue)
    let result = output.floats
    for row in 0..<rows {
      let values = x[row * columns..<(row + 1) * columns].map(Double.init)
      let mean = values.reduce(0, +) / Double(columns)
      let scale = 1 / (values.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(columns) + 1e-5).squareRoot()
      for i in 0..<columns {
        let expected = (values[i] - mean) * scale * Double(w[i]) + Double(b[i])
        // The mean, of numbers up to 5, is off by some steps of itself; a deviation is at most 3 of the scale.
        let allowed = 40 * roundoff * (5 * min(scale, 320) + 4)
        #expect(abs(Double(result[row * columns + i]) - expected) <= allowed, "row \(row), column \(i)")
      }
    }
    device.tensorKernels.layerNorm(input, weight: weight, bias: bias, epsilon: 1e-5, output: input, on: queue)
    #expect(input.floats == result, "in place gives the same")
  }

  @Test(arguments: runnableInstructionSets, rowLengths)
  func `gelu by erf agrees with float64`(instructionSet: String, columns: Int) throws {
    let device = try CPUDevice(instructionSet: instructionSet, threads: 2), queue = device.makeQueue()
    var random = SeededGenerator(seed: 13)
    let x = (0..<5).flatMap { row in random.floats(columns, scale: [0.01, 1, 4, 12, 100][row]) }, b = random.floats(columns)
    for bias in [nil, b] {
      let values = try device.tensor(x, Shape(5, columns))
      device.tensorKernels.gelu(values, bias: try bias.map { try device.tensor($0, Shape(columns)) }, on: queue)
      for (index, value) in values.floats.enumerated() {
        let argument = Double(x[index] + (bias?[index % columns] ?? 0)), expected = argument / 2 * erfc(-argument / 2.0.squareRoot())
        // Φ is off by 1.8e-7, without fused operations by twice that.
        #expect(abs(Double(value) - expected) <= 4e-7 * abs(argument), "\(argument)")
      }
    }
    let limits = try device.tensor([0, -0.0, .nan, .infinity, -1e20, 3e38], Shape(1, 6))
    device.tensorKernels.gelu(limits, bias: nil, on: queue)
    let result = limits.floats
    #expect(result[0] == 0 && result[1] == 0 && result[2].isNaN && result[3] == .infinity && result[4] == 0 && result[5] == 3e38)
  }

  @Test(arguments: runnableInstructionSets, rowLengths)
  func `rows of a table are added, pieces are pooled, and rows get length 1`(instructionSet: String, columns: Int) throws {
    let device = try CPUDevice(instructionSet: instructionSet, threads: 2), queue = device.makeQueue()
    var random = SeededGenerator(seed: 14)
    let x = random.floats(6 * columns), shape = Shape(6, columns)
    let input = try device.tensor(x, shape), sum = try device.tensor(x, shape)
    let chosen: [Int32] = [5, 0, 0, 3, 1, 2]
    device.tensorKernels.addChosenRows(of: input, rows: try device.tensor(chosen, Shape(6), .i32), to: sum, on: queue)
    var sums: [Float] = []
    for (row, other) in chosen.enumerated() {
      for i in 0..<columns { sums.append(x[row * columns + i] + x[Int(other) * columns + i]) }
    }
    #expect(sum.floats == sums)
    let starts: [Int32] = [0, 1, 4, 6]
    for method in RowPooling.allCases {
      let output = try device.makeTensor(Shape(3, columns), .f32)
      device.tensorKernels.poolRows(method, input, starts: try device.tensor(starts, Shape(4), .i32), output: output, on: queue)
      for piece in 0..<3 {
        let rows = Int(starts[piece])..<Int(starts[piece + 1])
        for i in 0..<columns {
          let values = rows.map { Double(x[$0 * columns + i]) }
          let expected =
            switch method {
            case .mean: Float(values.reduce(0, +) / Double(values.count))
            case .first: Float(values[0])
            case .last: Float(values[values.count - 1])
            }
          #expect(output.floats[piece * columns + i] == expected, "\(method)")
        }
      }
    }
    let unit = try device.tensor(Array(x.prefix(columns)) + Array(repeating: 0, count: columns), Shape(2, columns))
    device.tensorKernels.unitRows(unit, on: queue)
    let length = x.prefix(columns).reduce(0) { $0 + Double($1) * Double($1) }.squareRoot()
    let expected: [Float] = x.prefix(columns).map { Float(Double($0) / length) } + [Float](repeating: 0, count: columns)
    // The sum of squares in another order.
    #expect(zip(unit.floats, expected).allSatisfy { abs($0 - $1) <= 2 * Float(roundoff) * abs($1) })
  }

  /// One rounding in a fused product and sum, two without; a tanh is right to 1.1e-7 of 1 and is rounded twice more.
  @Test(arguments: runnableInstructionSets, rowLengths)
  func `scaled sums, scales, caps and factors agree with float64`(instructionSet: String, columns: Int) throws {
    let device = try CPUDevice(instructionSet: instructionSet, threads: 2), queue = device.makeQueue()
    var random = SeededGenerator(seed: 6)
    let rows = 7, shape = Shape(rows, columns)
    let a = random.floats(rows * columns), b = random.floats(rows * columns)
    let accumulator = try device.tensor(a, shape)
    device.tensorKernels.add(try device.tensor(b, shape), scaledBy: 0.22, to: accumulator, on: queue)
    for (i, value) in accumulator.floats.enumerated() {
      let product = Double(Float(0.22)) * Double(b[i]), sum = Double(a[i]) + product
      #expect(abs(Double(value) - sum) <= 6e-8 * (abs(sum) + abs(product)))
    }
    let scaled = try device.tensor(a, shape)
    device.tensorKernels.scale(scaled, by: 0.3, softCap: nil, on: queue)
    #expect(scaled.floats == a.map { $0 * 0.3 })
    let capped = try device.tensor(a, shape)
    device.tensorKernels.scale(capped, by: 7, softCap: 2.5, on: queue)
    for (i, value) in capped.floats.enumerated() {
      #expect(abs(Double(value) - 2.5 * tanh(7 * Double(a[i]) / 2.5)) <= 2.5 * 4e-7)
    }
    let factors: [Float] = [1, -2, 0.5, 1.25], chosen: [Int32] = [3, 0, 0, 2, 1, 1, 3], few = max(columns - 5, 1)
    let turned = try device.tensor(a, shape)
    device.tensorKernels.scaleRows(
      turned, columns: few, by: try device.tensor(factors, Shape(4)), rows: try device.tensor(chosen, Shape(rows), .i32), on: queue)
    #expect(turned.floats == a.indices.map { $0 % columns < few ? a[$0] * factors[Int(chosen[$0 / columns])] : a[$0] })
  }

  // MARK: One arithmetic for every row

  /// Every kernel over the same rows: alone, among others, with 1, 2 and 3 threads. 700 rows are enough to be shared out.
  @Test(arguments: runnableInstructionSets, [17, 576])
  func `a row's bits do not depend on other rows or threads`(instructionSet: String, columns: Int) throws {
    var random = SeededGenerator(seed: 4)
    let rows = 700
    let x = random.floats(rows * columns, scale: 5), y = random.floats(rows * columns), w = random.floats(columns)
    let factors = random.floats(rows)
    var results: [[[Float]]] = []
    for (threads, batch) in [(1, rows), (2, rows), (3, rows), (2, 1), (2, 13)] {
      let device = try CPUDevice(instructionSet: instructionSet, threads: threads), queue = device.makeQueue()
      let kernels = device.tensorKernels
      let weight = try device.tensor(w, Shape(columns))
      var normed: [Float] = [], sums: [Float] = [], silu: [Float] = [], gelu: [Float] = [], gathered: [Float] = []
      for first in stride(from: 0, to: rows, by: batch) {
        let range = first..<min(rows, first + batch), elements = range.lowerBound * columns..<range.upperBound * columns
        let shape = Shape(range.count, columns)
        let input = try device.tensor(Array(x[elements]), shape), output = try device.makeTensor(shape, .f32)
        kernels.rmsNorm(input, weight: weight, epsilon: 1e-6, output: output, on: queue)
        normed += output.floats
        let gateUp = try device.tensor(
          range.flatMap { x[$0 * columns..<($0 + 1) * columns] + y[$0 * columns..<($0 + 1) * columns] }, Shape(range.count, 2 * columns))
        kernels.gatedActivation(.silu, gateUp: gateUp, output: output, on: queue)
        silu += output.floats
        kernels.gatedActivation(.geluTanh, gateUp: gateUp, output: output, on: queue)
        gelu += output.floats
        let order = try device.tensor((0..<Int32(range.count)).map { $0 }, Shape(range.count), .i32)
        kernels.gatherRows(input, rows: order, output: output, on: queue)
        gathered += output.floats
        kernels.add(try device.tensor(Array(y[elements]), shape), to: input, on: queue)
        kernels.addRow(weight, to: input, on: queue)
        kernels.add(try device.tensor(Array(y[elements]), shape), scaledBy: 0.7, to: input, on: queue)
        let positions = try device.tensor(range.map { Int32($0) }, Shape(range.count), .i32)
        kernels.scaleRows(input, columns: columns - 3, by: try device.tensor(factors, Shape(rows)), rows: positions, on: queue)
        kernels.scale(input, by: 0.9, softCap: 4, on: queue)
        sums += input.floats
      }
      results.append([normed, sums, silu, gelu, gathered])
    }
    for result in results.dropFirst() { #expect(result == results[0]) }
  }

  @Test(arguments: runnableInstructionSets) func `a value's bits do not depend on its place in the row`(instructionSet: String) throws {
    let device = try CPUDevice(instructionSet: instructionSet, threads: 1)
    var random = SeededGenerator(seed: 5)
    let width = 37, gate = random.floats(width, scale: 8), up = random.floats(width)
    for activation in [GatedActivation.silu, .geluTanh] {
      func run(_ gate: [Float], _ up: [Float]) throws -> [Float] {
        let output = try device.makeTensor(Shape(1, gate.count), .f32)
        let gateUp = try device.tensor(gate + up, Shape(1, 2 * gate.count))
        device.tensorKernels.gatedActivation(activation, gateUp: gateUp, output: output, on: device.makeQueue())
        return output.floats
      }
      let whole = try run(gate, up)
      for i in 0..<width { #expect(try run([gate[i]], [up[i]]) == [whole[i]]) }
    }
  }

  @Test(arguments: runnableInstructionSets) func `no rows are no work`(instructionSet: String) throws {
    let device = try CPUDevice(instructionSet: instructionSet, threads: 2)
    let empty = try device.makeTensor(Shape(0, 16), .f32)
    device.tensorKernels.rmsNorm(empty, weight: try device.makeTensor(Shape(16), .f32), epsilon: 1, output: empty, on: device.makeQueue())
    device.tensorKernels.add(empty, to: empty, on: device.makeQueue())
    #expect(empty.count == 0)
  }

  // MARK: Called wrong

  @Test func `a wrong shape, type or row stops the program`() async {
    await #expect(processExitsWith: .failure) {
      let device = try CPUDevice(threads: 1)
      let x = try device.makeTensor(Shape(2, 16), .f32), short = try device.makeTensor(Shape(15), .f32)
      device.tensorKernels.rmsNorm(x, weight: short, epsilon: 1, output: x, on: device.makeQueue())
    }
    await #expect(processExitsWith: .failure) {
      let device = try CPUDevice(threads: 1)
      let x = try device.makeTensor(Shape(2, 16), .f32), codes = try device.makeTensor(Shape(2, 16), .i32)
      device.tensorKernels.add(codes, to: x, on: device.makeQueue())
    }
    await #expect(processExitsWith: .failure) {
      let device = try CPUDevice(threads: 1)
      let x = try device.makeTensor(Shape(2, 16), .f32), rows = try device.tensor([0, 2] as [Int32], Shape(2), .i32)
      device.tensorKernels.gatherRows(x, rows: rows, output: try device.makeTensor(Shape(2, 16), .f32), on: device.makeQueue())
    }
  }
}
