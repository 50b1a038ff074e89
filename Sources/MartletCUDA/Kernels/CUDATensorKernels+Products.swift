// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletCUDAKernels
package import MartletCore

/// Products with coded weights, and reading their rows back.
///
/// Inputs are coded first: each number becomes a sum of some numbers of bfloat16, as tensor cores take them. Then each of the weight's parts is multiplied. The
/// arithmetic is that of the kernels and the same for any number of tokens; what is decided here is only where things lie.
extension CUDATensorKernels {
  package func product(_ input: ProductInput, _ weight: any PreparedWeight, output: ProductOutput, on queue: any DeviceQueue) {
    let weight = CUDAPreparedWeight.of(weight, "product"), columns = weight.columns, tokens = input.rowCount
    let target = output.tensor.device(.f32, Shape(tokens, weight.rows), "product: output")
    let bias = output.bias?.device(.f32, Shape(weight.rows), "product: bias") ?? 0
    guard tokens > 0 else { return }
    let queue = CUDAQueue.of(queue, on: context, "product")
    let codedBytes = Self.codedByteCount(tokens: tokens, weight)
    queue.run { (stream) throws(DeviceError) in
      let rows: UInt64, coded: UInt64
      switch input {
      case .rows(let tensor):
        coded = UInt64(try queue.scratch(byteCount: codedBytes))
        rows = tensor.device(.f32, Shape(tokens, columns), "product: input")
      case .normalized(let tensor, let normWeight, let epsilon):
        coded = UInt64(try queue.scratch(byteCount: codedBytes + Self.rowsByteCount(tokens: tokens, weight)))
        rows = coded + UInt64(codedBytes)
        let arguments = martlet_cuda_rms_norm_arguments(
          input: tensor.device(.f32, Shape(tokens, columns), "product: input"),
          weight: normWeight.device(.f32, Shape(columns), "product: norm"), output: rows, rows: Int32(tokens), columns: Int32(columns),
          epsilon: epsilon)
        try library.launch(martlet_cuda_launch_rms_norm, arguments, on: stream)
      case .gated(let activation, let gateUp):
        coded = UInt64(try queue.scratch(byteCount: codedBytes + Self.rowsByteCount(tokens: tokens, weight)))
        rows = coded + UInt64(codedBytes)
        let arguments = martlet_cuda_gated_activation_arguments(
          activation, gateUp: gateUp.device(.f32, Shape(tokens, 2 * columns), "product: gateUp"), output: rows, rows: tokens, width: columns
        )
        try library.launch(martlet_cuda_launch_gated_activation, arguments, on: stream)
      }
      try multiply(
        rows, weight, tokens: tokens, coded: coded, output: target, bias: bias, additionScale: output.additionScale, on: stream)
    }
  }

  package func headProduct(_ input: Tensor, _ weights: [any PreparedWeight], output: Tensor, on queue: any DeviceQueue) {
    enforce(!weights.isEmpty && input.shape[0] % weights.count == 0, "headProduct: \(input.shape) for \(weights.count) weights")
    let weights = weights.map { CUDAPreparedWeight.of($0, "headProduct") }, tokens = input.shape[0] / weights.count
    let (rows, columns) = (weights[0].rows, weights[0].columns)
    enforce(
      weights.allSatisfy { $0.rows == rows && $0.columns == columns }, "headProduct: the weights of heads are not all of one shape")
    let source = input.device(.f32, Shape(weights.count * tokens, columns), "headProduct: input")
    let target = output.device(.f32, Shape(weights.count * tokens, rows), "headProduct: output")
    guard tokens > 0 else { return }
    let queue = CUDAQueue.of(queue, on: context, "headProduct")
    queue.run { (stream) throws(DeviceError) in
      let coded = UInt64(try queue.scratch(byteCount: weights.map { Self.codedByteCount(tokens: tokens, $0) }.max() ?? 0))
      for (head, weight) in weights.enumerated() {
        let first = UInt64(head * tokens * MemoryLayout<Float>.stride)
        try multiply(
          source + first * UInt64(columns), weight, tokens: tokens, coded: coded, output: target + first * UInt64(rows), bias: 0,
          additionScale: nil, on: stream)
      }
    }
  }

  /// Codes rows and multiplies them by all parts of a weight.
  /// - Parameters:
  ///   - rows: the address of float32 `[tokens, columns]`.
  ///   - coded: memory of ``codedByteCount(tokens:_:)``.
  private func multiply(
    _ rows: UInt64, _ weight: CUDAPreparedWeight, tokens: Int, coded: UInt64, output: UInt64, bias: UInt64, additionScale: Float?,
    on stream: CUDAContext.Handle
  ) throws(DeviceError) {
    enforce(tokens <= 1 << 24, "product: \(tokens) tokens at once")
    let inputs = martlet_cuda_code_inputs_arguments(
      input: rows, output: coded, rows: 0, input_stride: Int64(weight.columns), tokens: Int32(tokens), columns: Int32(weight.columns),
      terms: weight.terms)
    try library.launch(martlet_cuda_launch_code_inputs, inputs, on: stream)
    for part in weight.parts {
      let first = UInt64(part.firstRow * MemoryLayout<Float>.stride)
      let arguments = martlet_cuda_product_arguments(
        groups: UInt64(part.groups.address), inputs: coded, output: output + first, bias: bias == 0 ? 0 : bias + first,
        output_stride: Int64(weight.rows), rows: Int32(part.rows), columns: Int32(weight.columns), tokens: Int32(tokens),
        stored_terms: weight.terms, terms: part.terms, adds: additionScale == nil ? 0 : 1, addition_scale: additionScale ?? 0)
      try library.launch({ martlet_cuda_launch_product($0, part.format) }, arguments, on: stream)
    }
  }

  package func embed(tokens: Tensor, weight: any PreparedWeight, scale: Float, output: Tensor, on queue: any DeviceQueue) {
    let weight = CUDAPreparedWeight.of(weight, "embed")
    enforce(tokens.shape.rank == 1, "embed: tokens must be [n], not \(tokens.shape)")
    for part in weight.parts {
      let arguments = martlet_cuda_embed_arguments(
        groups: UInt64(part.groups.address), tokens: tokens.device(.i32, tokens.shape, "embed: tokens"),
        output: output.device(.f32, Shape(tokens.count, weight.columns), "embed: output"), format: part.format, count: Int32(tokens.count),
        columns: Int32(weight.columns), first_row: Int32(part.firstRow), rows: Int32(part.rows), scale: scale)
      launch(martlet_cuda_launch_embed, arguments, "embed", on: queue)
    }
  }

  /// Scratch that coded inputs take, up to where the next thing can begin.
  static func codedByteCount(tokens: Int, _ weight: CUDAPreparedWeight) -> Int {
    (Int(martlet_cuda_input_bytes(Int32(tokens), Int32(weight.columns), weight.terms)) + 255) / 256 * 256
  }

  /// Scratch that rows take which are made on the way.
  static func rowsByteCount(tokens: Int, _ weight: CUDAPreparedWeight) -> Int {
    tokens * weight.columns * MemoryLayout<Float>.stride
  }
}
