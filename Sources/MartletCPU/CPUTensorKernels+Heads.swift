// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletKernels
package import MartletCore

/// Heads that have matrices of their own, and the copies that bring them together.
extension CPUTensorKernels {
  package func copyHeads(_ input: HeadPlace, to output: HeadPlace, rows n: Int, heads: Int, width: Int, on queue: any DeviceQueue) {
    let rows = RowTasks(Shape(n, heads * width), in: pool)
    let arguments = martlet_copy_heads_arguments(
      input: input.start(rows: n, heads: heads, width: width, "copyHeads: input"),
      output: output.start(rows: n, heads: heads, width: width, "copyHeads: output"),
      input_row_stride: Int64(input.rowStride), input_head_stride: Int64(input.headStride), output_row_stride: Int64(output.rowStride),
      output_head_stride: Int64(output.headStride), rows: Int32(n), heads: Int32(heads), width: Int32(width),
      rows_per_task: Int32(rows.perTask))
    pool.run(taskCount: rows.taskCount, function: instructionSet.table.pointee.tensor.copy_heads, with: arguments)
  }

  package func headProduct(_ input: Tensor, _ weights: [any PreparedWeight], output: Tensor, on queue: any DeviceQueue) {
    enforce(!weights.isEmpty && input.shape[0] % weights.count == 0, "headProduct: \(input.shape) for \(weights.count) weights")
    let tokens = input.shape[0] / weights.count
    groupedProduct(
      input, rowCount: input.shape[0], picked: nil, entries: input.shape[0], weights, output: output, "headProduct"
    ) { $0 * tokens..<($0 + 1) * tokens }
  }
}

extension HeadPlace {
  /// The first value, where all heads of all rows lie within the tensor.
  fileprivate func start(rows: Int, heads: Int, width: Int, _ what: StaticString) -> UnsafeMutablePointer<Float> {
    let last = column + max(rows - 1, 0) * rowStride + max(heads - 1, 0) * headStride + width
    enforce(
      column >= 0 && rowStride >= 0 && headStride >= 0 && last <= tensor.count,
      "\(what): \(tensor.shape) does not hold \(heads) heads of \(width) values for \(rows) rows")
    return tensor.pointer(.f32, tensor.shape, what) + column
  }
}
