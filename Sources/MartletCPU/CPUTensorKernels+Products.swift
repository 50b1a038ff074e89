// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletKernels
package import MartletCore

/// Products with coded weights, and reading their rows back.
///
/// Inputs of integer formats are coded first (one fork, or inline for a few tokens), then the outputs are shared out in one fork over
/// all stacked parts. The arithmetic is that of `kernels/product.h`; what is decided here is only who computes what.
extension CPUTensorKernels {
  package func product(_ input: ProductInput, _ weight: any PreparedWeight, output: ProductOutput, on queue: any DeviceQueue) {
    let weight = CPUPreparedWeight.of(weight, "product"), columns = weight.columns, tokens = input.rowCount
    enforce(tokens <= 1 << 24, "product: \(tokens) tokens at once")
    let target: UnsafeMutablePointer<Float> = output.tensor.pointer(.f32, Shape(tokens, weight.rows), "product: output")
    let bias: UnsafePointer<Float>? = output.bias.map { $0.pointer(.f32, Shape(weight.rows), "product: bias") }
    guard tokens > 0 else { return }
    // What is made of rows on the way lies in a worker's scratch memory, a row at a time.
    let isMadeOnTheWay = !weight.readsFloats && columns * MemoryLayout<Float>.stride <= pool.scratchByteCount
    let coding = inputCoding(of: weight, tokens: tokens)
    let slabBytes = weight.readsCodedInputs ? tokens * weight.slabCount * coding.slabByteCount : 0
    let rowBytes = tokens * columns * MemoryLayout<Float>.stride

    func multiply(_ rows: UnsafePointer<Float>?, _ slabs: UnsafeMutableRawPointer) {
      let plan = plan(tokens: tokens, weight: weight, coding: coding)
      let arguments = martlet_product_arguments(
        parts: weight.parts.baseAddress, input: rows, slabs: slabs, output: target, bias: bias, addition_scale: output.additionScale ?? 0,
        adds: output.additionScale != nil, part_count: Int32(weight.partCount), tokens: Int32(tokens), columns: Int32(columns),
        rows: Int32(weight.rows), slab_stride: Int32(tokens), group_count: Int32(weight.groupCount),
        groups_per_task: Int32(plan.groupsPerTask), tokens_per_task: Int32(plan.tokensPerTask), coding: coding.code)
      pool.run(
        taskCount: plan.taskCount, homes: weight.homes(groupsPerTask: plan.groupsPerTask), function: products.product, with: arguments)
    }
    /// With rows that lie in memory.
    func multiplyRows(_ rows: UnsafePointer<Float>, _ slabs: UnsafeMutableRawPointer) {
      if weight.readsCodedInputs { code(CodedRows(input: rows), tokens: tokens, columns: columns, as: coding, into: slabs) }
      multiply(rows, slabs)
    }

    /// With rows that are made as they are coded, or, where a part reads floats, all before, by `make`.
    func multiplyMade(_ coded: CodedRows, make: (UnsafeMutablePointer<Float>) -> Void) {
      codedInputs.withSlabs(byteCount: slabBytes + (isMadeOnTheWay ? 0 : rowBytes)) { memory in
        if isMadeOnTheWay {
          code(coded, tokens: tokens, columns: columns, as: coding, into: memory)
          multiply(nil, memory)
        } else {
          let rows = (memory + slabBytes).bindMemory(to: Float.self, capacity: tokens * columns)
          make(rows)
          multiplyRows(rows, memory)
        }
      }
    }

    switch input {
    case .rows(let tensor):
      let rows: UnsafePointer<Float> = tensor.pointer(.f32, Shape(tokens, columns), "product: input")
      codedInputs.withSlabs(byteCount: slabBytes) { multiplyRows(rows, $0) }
    case .normalized(let tensor, let normWeight, let epsilon):
      let arguments = martlet_rms_norm_arguments(
        input: tensor.pointer(.f32, Shape(tokens, columns), "product: input"),
        weight: normWeight.pointer(.f32, Shape(columns), "product: norm"), output: nil, rows: 0, columns: Int32(columns), rows_per_task: 0,
        epsilon: epsilon)
      withUnsafePointer(to: arguments) { pointer in
        multiplyMade(CodedRows(norm: pointer)) { rmsNorm(arguments, rows: tokens, into: $0) }
      }
    case .gated(let activation, let gateUp):
      let arguments = martlet_gated_activation_arguments(
        activation, gateUp: gateUp.pointer(.f32, Shape(tokens, 2 * columns), "product: gateUp"), width: columns)
      withUnsafePointer(to: arguments) { pointer in
        multiplyMade(CodedRows(gated: pointer)) { gatedActivation(arguments, rows: tokens, into: $0) }
      }
    }
  }

  /// What products of so many tokens with a weight read. Where its activations are exact, both codings give the same bits.
  func inputCoding(of weight: CPUPreparedWeight, tokens: Int) -> InputCoding {
    switch weight.activations {
    case .bf16: .bf16
    case .int8: .int8
    case .exact: products.rows_of_a_digit_tile > 0 && tokens > Int(products.few_rows) ? .digits : .codes
    }
  }

  /// What rows are coded of: one of the three.
  struct CodedRows {
    var input: UnsafePointer<Float>?
    var norm: UnsafePointer<martlet_rms_norm_arguments>?
    var gated: UnsafePointer<martlet_gated_activation_arguments>?
  }

  func code(_ rows: CodedRows, tokens: Int, columns: Int, as coding: InputCoding, into slabs: UnsafeMutableRawPointer) {
    // To code 4096 values takes about a microsecond, less than to call another thread.
    let rowsPerTask = max(1, 4096 / columns)
    let isInline = tokens * columns <= 4 * 4096 || pool.threadCount == 1
    let arguments = martlet_code_inputs_arguments(
      input: rows.input, norm: rows.norm, gated: rows.gated, slabs: slabs, rows: Int32(tokens), columns: Int32(columns),
      rows_per_task: Int32(isInline ? tokens : rowsPerTask), coding: coding.code)
    pool.run(
      taskCount: isInline ? 1 : (tokens + rowsPerTask - 1) / rowsPerTask, part: .coding, function: products.code_inputs, with: arguments)
  }

  package func embed(tokens: Tensor, weight: any PreparedWeight, scale: Float, output: Tensor, on queue: any DeviceQueue) {
    let weight = CPUPreparedWeight.of(weight, "embed")
    enforce(tokens.shape.rank == 1, "embed: tokens must be [n], not \(tokens.shape)")
    let count = tokens.shape[0]
    let ids: UnsafePointer<Int32> = tokens.pointer(.i32, tokens.shape, "embed: tokens")
    for index in 0..<count {
      enforce(ids[index] >= 0 && ids[index] < weight.rows, "embed: token \(ids[index]), entry \(index), of \(weight.rows) rows")
    }
    let tokensPerTask = max(1, 8192 / weight.columns)
    let arguments = martlet_embed_arguments(
      parts: weight.parts.baseAddress, tokens: ids,
      output: output.pointer(.f32, Shape(count, weight.columns), "embed: output"), scale: scale,
      part_count: Int32(weight.partCount), count: Int32(count), columns: Int32(weight.columns), tokens_per_task: Int32(tokensPerTask))
    pool.run(taskCount: (count + tokensPerTask - 1) / tokensPerTask, function: products.embed, with: arguments)
  }

  var products: martlet_product_kernels { instructionSet.table.pointee.product }

  /// How this device deals a product to tasks.
  func plan(tokens: Int, weight: CPUPreparedWeight, coding: InputCoding) -> CPUProductPlan {
    let machine = CPUProductMachine(
      threadCount: pool.threadCount, fewRows: Int(products.few_rows), rowsOfATile: Int(products.rows_of_a_tile),
      rowsOfADigitTile: Int(products.rows_of_a_digit_tile), secondCacheByteCount: secondCacheByteCount,
      scratchByteCount: pool.scratchByteCount)
    return CPUProductPlan(
      tokens: tokens, groupCount: weight.groupCount, bytesPerGroup: weight.byteCount / weight.groupCount, slabCount: weight.slabCount,
      coding: coding, on: machine)
  }
}
