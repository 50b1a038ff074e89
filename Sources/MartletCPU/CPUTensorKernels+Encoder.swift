// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletKernels
package import MartletCore

/// What encoders compute beside products, and what makes one vector of a text's states.
extension CPUTensorKernels {
  package func layerNorm(
    _ input: Tensor, weight: Tensor, bias: Tensor, epsilon: Float, output: Tensor, on queue: any DeviceQueue
  ) {
    let rows = RowTasks(input.shape, in: pool)
    let arguments = martlet_layer_norm_arguments(
      input: input.pointer(.f32, input.shape, "layerNorm: input"),
      weight: weight.pointer(.f32, Shape(rows.columns), "layerNorm: weight"),
      bias: bias.pointer(.f32, Shape(rows.columns), "layerNorm: bias"),
      output: output.pointer(.f32, input.shape, "layerNorm: output"),
      rows: Int32(rows.count), columns: Int32(rows.columns), rows_per_task: Int32(rows.perTask), epsilon: epsilon)
    pool.run(taskCount: rows.taskCount, function: kernels.layer_norm, with: arguments)
  }

  package func gelu(_ values: Tensor, bias: Tensor?, on queue: any DeviceQueue) {
    // An exponential and a quotient cost about as much as four loads and stores.
    let rows = RowTasks(values.shape, costOfValue: 4, in: pool)
    let arguments = martlet_gelu_arguments(
      values: values.pointer(.f32, values.shape, "gelu: values"), bias: bias?.pointer(.f32, Shape(rows.columns), "gelu: bias"),
      rows: Int32(rows.count), columns: Int32(rows.columns), rows_per_task: Int32(rows.perTask))
    pool.run(taskCount: rows.taskCount, function: kernels.gelu, with: arguments)
  }

  package func addChosenRows(of table: Tensor, rows indices: Tensor, to accumulator: Tensor, on queue: any DeviceQueue) {
    let rows = RowTasks(accumulator.shape, in: pool), tableRows = table.shape[0]
    let chosen: UnsafePointer<Int32> = indices.pointer(.i32, Shape(rows.count), "addChosenRows: rows")
    for index in 0..<rows.count {
      let row = Int(chosen[index])
      enforce(row >= 0 && row < tableRows, "addChosenRows: row \(row), entry \(index), of a table of \(tableRows) rows")
    }
    let arguments = martlet_add_chosen_rows_arguments(
      table: table.pointer(.f32, Shape(tableRows, rows.columns), "addChosenRows: table"), indices: chosen,
      accumulator: accumulator.pointer(.f32, accumulator.shape, "addChosenRows: accumulator"),
      rows: Int32(rows.count), columns: Int32(rows.columns), rows_per_task: Int32(rows.perTask))
    pool.run(taskCount: rows.taskCount, function: kernels.add_chosen_rows, with: arguments)
  }

  package func poolRows(_ method: RowPooling, _ input: Tensor, starts: Tensor, output: Tensor, on queue: any DeviceQueue) {
    let inputRows = input.shape[0], columns = output.shape[1], count = output.shape[0]
    let places: UnsafePointer<Int32> = starts.pointer(.i32, Shape(count + 1), "poolRows: starts")
    for piece in 0..<count {
      enforce(
        places[piece] >= 0 && places[piece] < places[piece + 1] && Int(places[piece + 1]) <= inputRows,
        "poolRows: piece \(piece) has the rows \(places[piece])..<\(places[piece + 1]) of \(inputRows)")
    }
    // The rows that are read, dealt out by those that are written.
    let rows = RowTasks(output.shape, costOfValue: method == .mean ? max(1, inputRows / max(count, 1)) : 1, in: pool)
    let code =
      switch method {
      case .mean: martlet_pooling_mean
      case .first: martlet_pooling_first
      case .last: martlet_pooling_last
      }
    let arguments = martlet_pool_rows_arguments(
      input: input.pointer(.f32, Shape(inputRows, columns), "poolRows: input"), starts: places,
      output: output.pointer(.f32, output.shape, "poolRows: output"),
      rows: Int32(count), columns: Int32(columns), rows_per_task: Int32(rows.perTask), method: Int32(code.rawValue))
    pool.run(taskCount: rows.taskCount, function: kernels.pool_rows, with: arguments)
  }

  package func unitRows(_ values: Tensor, on queue: any DeviceQueue) {
    let rows = RowTasks(values.shape, in: pool)
    let arguments = martlet_unit_rows_arguments(
      values: values.pointer(.f32, values.shape, "unitRows: values"),
      rows: Int32(rows.count), columns: Int32(rows.columns), rows_per_task: Int32(rows.perTask))
    pool.run(taskCount: rows.taskCount, function: kernels.unit_rows, with: arguments)
  }
}
