// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCPU
import MartletCUDA
import MartletCore
import Testing

/// The same calls on the CPU, which has tests of its own against float64, and on a GPU over the emulator.
@Suite("The tensor kernels of a GPU")
struct TensorKernelTests {
  /// A tensor's contents and shape, for any device.
  struct Input {
    let values: [Float]
    let shape: Shape

    init(_ rows: Int, _ columns: Int, scale: Float = 1, using random: inout SeededGenerator) {
      values = random.floats(rows * columns, scale: scale)
      shape = Shape(rows, columns)
    }

    init(_ count: Int, using random: inout SeededGenerator) {
      values = random.floats(count)
      shape = Shape(count)
    }
  }

  /// Calls `body` with both devices and compares what it returns.
  ///
  /// Both compute in float32, in another order: differences are a few units of the last place of what is summed, `tolerance` of the greatest value.
  private func compare(
    _ what: Comment, tolerance: Float, _ body: (any Device, any TensorKernels, any DeviceQueue) throws -> Tensor,
    sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    func run(_ device: any Device) throws -> [Float] {
      let queue = device.makeQueue(), tensor = try body(device, device.tensorKernels, queue)
      try queue.finish()
      return try device.values(tensor)
    }
    let expected = try run(CPUDevice(threads: 1)), found = try run(StandIn.device())
    let greatest = expected.reduce(0) { max($0, $1.magnitude) }
    let difference = zip(expected, found).reduce(Float(0)) { $1.0 == $1.1 ? $0 : max($0, ($1.0 - $1.1).magnitude) }
    #expect(expected.count == found.count && found.allSatisfy(\.isFinite), what, sourceLocation: sourceLocation)
    #expect(difference <= tolerance * greatest, "\(what): \(difference) of \(greatest)", sourceLocation: sourceLocation)
  }

  @Test("normalise rows")
  func norms() throws {
    var random = SeededGenerator(seed: 1)
    for (rows, columns) in [(1, 64), (3, 200), (2, 1027)] {
      let input = Input(rows, columns, using: &random), weight = Input(columns, using: &random), bias = Input(columns, using: &random)
      try compare("rmsNorm", tolerance: 1e-6) { device, kernels, queue in
        let output = try device.makeTensor(input.shape, .f32)
        kernels.rmsNorm(
          try device.tensor(input.values, input.shape), weight: try device.tensor(weight.values, weight.shape), epsilon: 1e-5,
          output: output, on: queue)
        return output
      }
      try compare("layerNorm", tolerance: 1e-6) { device, kernels, queue in
        let values = try device.tensor(input.values, input.shape)
        kernels.layerNorm(
          values, weight: try device.tensor(weight.values, weight.shape), bias: try device.tensor(bias.values, bias.shape), epsilon: 1e-5,
          output: values, on: queue)
        return values
      }
      try compare("unitRows", tolerance: 1e-6) { device, kernels, queue in
        let values = try device.tensor(input.values, input.shape)
        kernels.unitRows(values, on: queue)
        return values
      }
    }
  }

  @Test("add and scale")
  func additions() throws {
    var random = SeededGenerator(seed: 2)
    let (rows, columns) = (5, 77)
    let values = Input(rows, columns, using: &random), other = Input(rows, columns, using: &random), row = Input(columns, using: &random)
    let table = Input(4, columns, using: &random), chosen: [Int32] = [3, 0, 0, 2, 1]
    try compare("add", tolerance: 1e-7) { device, kernels, queue in
      let accumulator = try device.tensor(values.values, values.shape)
      kernels.add(try device.tensor(other.values, other.shape), scaledBy: 0.7, to: accumulator, on: queue)
      kernels.addRow(try device.tensor(row.values, row.shape), to: accumulator, on: queue)
      kernels.addChosenRows(
        of: try device.tensor(table.values, table.shape), rows: try device.tensor(chosen, Shape(rows), .i32), to: accumulator, on: queue)
      return accumulator
    }
    for cap in [nil, 1.5 as Float] {
      try compare("scale", tolerance: 1e-6) { device, kernels, queue in
        let accumulator = try device.tensor(values.values, values.shape)
        kernels.scale(accumulator, by: 1.25, softCap: cap, on: queue)
        return accumulator
      }
    }
    try compare("scaleRows", tolerance: 1e-7) { device, kernels, queue in
      let accumulator = try device.tensor(values.values, values.shape)
      kernels.scaleRows(
        accumulator, columns: 33, by: try device.tensor([0.5, 2, 3, -1], Shape(4)), rows: try device.tensor(chosen, Shape(rows), .i32),
        on: queue)
      return accumulator
    }
  }

  @Test("activate")
  func activations() throws {
    var random = SeededGenerator(seed: 3)
    let gateUp = Input(3, 2 * 70, scale: 4, using: &random), bias = Input(2 * 70, using: &random)
    for activation in [GatedActivation.silu, .geluTanh, .clamped(alpha: 1.7, limit: 3)] {
      try compare("gatedActivation", tolerance: 1e-6) { device, kernels, queue in
        let output = try device.makeTensor(Shape(3, 70), .f32)
        kernels.gatedActivation(activation, gateUp: try device.tensor(gateUp.values, gateUp.shape), output: output, on: queue)
        return output
      }
    }
    for hasBias in [false, true] {
      try compare("gelu", tolerance: 1e-6) { device, kernels, queue in
        let values = try device.tensor(gateUp.values, gateUp.shape)
        kernels.gelu(values, bias: hasBias ? try device.tensor(bias.values, bias.shape) : nil, on: queue)
        return values
      }
    }
  }

  @Test("gather, pool and copy rows")
  func rows() throws {
    var random = SeededGenerator(seed: 4)
    let input = Input(9, 48, using: &random)
    try compare("gatherRows", tolerance: 0) { device, kernels, queue in
      let output = try device.makeTensor(Shape(3, 48), .f32)
      kernels.gatherRows(
        try device.tensor(input.values, input.shape), rows: try device.tensor([8, 0, 4] as [Int32], Shape(3), .i32), output: output,
        on: queue)
      return output
    }
    for method in RowPooling.allCases {
      try compare("poolRows", tolerance: 1e-7) { device, kernels, queue in
        let output = try device.makeTensor(Shape(3, 48), .f32)
        kernels.poolRows(
          method, try device.tensor(input.values, input.shape), starts: try device.tensor([1, 2, 6, 9] as [Int32], Shape(4), .i32),
          output: output, on: queue)
        return output
      }
    }
    try compare("copyHeads", tolerance: 0) { device, kernels, queue in
      let output = try device.makeTensor(Shape(3, 9, 10), .f32)
      kernels.copyHeads(
        HeadPlace(try device.tensor(input.values, input.shape), column: 5, rowStride: 48, headStride: 16),
        to: HeadPlace(output, column: 3, rowStride: 10, headStride: 90), rows: 9, heads: 2, width: 7, on: queue)
      return output
    }
  }
}
