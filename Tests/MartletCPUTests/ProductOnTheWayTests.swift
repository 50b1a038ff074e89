// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCPU
import MartletCore
import Testing

/// What a product does with its input and its sums on the way, beside the kernels that do it alone.
@Suite struct `Products on the way` {
  /// Of integers, of floats, and of both in one.
  static let formats: [[WeightFormat]] = [[.q4_1], [.q4_K, .q6_K], [.bf16], [.q8_0, .f16]]
  /// Few, those of a tile, those between, and more than one block of the cache.
  static let tokenCounts = [1, 3, 7, 16, 37, 450]

  @Test(arguments: runnableInstructionSets, formats)
  func `give the bits of norm, product, bias and addition one after another`(instructionSet: String, formats: [WeightFormat]) throws {
    try check(instructionSet, formats) { device, scene, made, queue in
      let input = ProductInput.normalized(scene.input, weight: scene.normWeight, epsilon: 1e-5)
      device.tensorKernels.rmsNorm(scene.input, weight: scene.normWeight, epsilon: 1e-5, output: made, on: queue)
      return input
    }
  }

  @Test(
    arguments: runnableInstructionSets, [GatedActivation.silu, .geluTanh, .clamped(alpha: 1.702, limit: 7)])
  func `give the bits of gates, product, bias and addition one after another`(instructionSet: String, activation: GatedActivation) throws {
    for formats in Self.formats {
      try check(instructionSet, formats) { device, scene, made, queue in
        device.tensorKernels.gatedActivation(activation, gateUp: scene.gateUp, output: made, on: queue)
        return .gated(activation, gateUp: scene.gateUp)
      }
    }
  }

  struct Scene {
    let input: Tensor
    let gateUp: Tensor
    let normWeight: Tensor
  }

  /// - Parameter make: makes rows by a kernel of their own, and says how a product makes them on the way.
  private func check(
    _ instructionSet: String, _ formats: [WeightFormat], _ make: (CPUDevice, Scene, Tensor, any DeviceQueue) throws -> ProductInput
  ) throws {
    let columns = 768, rows = 45  // of each part; no whole groups
    var random = SeededGenerator(seed: 31)
    let weights = formats.map { TestWeight.random($0, rows: rows, columns: columns, using: &random) }
    let device = try CPUDevice(instructionSet: instructionSet, threads: 2), queue = device.makeQueue(), kernels = device.tensorKernels
    let weight = try weights[0].withWeight { first in
      try weights.count == 1 ? device.prepare([first]) : weights[1].withWeight { try device.prepare([first, $0]) }
    }
    let bias = try device.tensor(random.floats(weight.rows), Shape(weight.rows))
    let normWeight = try device.tensor(random.floats(columns), Shape(columns))
    for tokens in Self.tokenCounts {
      let scene = Scene(
        input: try device.tensor(random.activations(tokens * columns), Shape(tokens, columns)),
        gateUp: try device.tensor(random.activations(tokens * 2 * columns), Shape(tokens, 2 * columns)), normWeight: normWeight)
      let made = try device.makeTensor(Shape(tokens, columns), .f32), sums = try device.makeTensor(Shape(tokens, weight.rows), .f32)
      let before = random.floats(tokens * weight.rows)
      let input = try make(device, scene, made, queue)
      kernels.product(made, weight, output: sums, on: queue)
      let plain = sums.floats
      kernels.addRow(bias, to: sums, on: queue)
      let biased = sums.floats
      let expected = try device.tensor(before, Shape(tokens, weight.rows))
      kernels.add(sums, scaledBy: 0.75, to: expected, on: queue)

      let result = try device.makeTensor(Shape(tokens, weight.rows), .f32)
      kernels.product(input, weight, output: ProductOutput(result), on: queue)
      #expect(result.floats == plain, "\(tokens) tokens")
      kernels.product(input, weight, output: ProductOutput(result, bias: bias), on: queue)
      #expect(result.floats == biased, "\(tokens) tokens, a bias")
      let sum = try device.tensor(before, Shape(tokens, weight.rows))
      var output = ProductOutput.adding(to: sum, scaledBy: 0.75)
      output.bias = bias
      kernels.product(input, weight, output: output, on: queue)
      #expect(sum.floats == expected.floats, "\(tokens) tokens, added")
    }
  }
}
