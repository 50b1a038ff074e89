// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletCUDAKernels
package import MartletCore

/// The tensor kernels of one GPU: each call checks its tensors, fills in a C struct and puts a kernel on the queue.
///
/// What the CPU checks in memory, such as whether a row's number is one of its table's, nobody here can see: kernels leave alone what does not exist.
package struct CUDATensorKernels: TensorKernels {
  let context: CUDAContext
  let library: KernelLibrary

  /// Puts a kernel on a queue.
  func launch<Arguments: BitwiseCopyable>(
    _ rule: (UnsafePointer<Arguments>) -> martlet_cuda_launch, _ arguments: Arguments, _ caller: StaticString, on queue: any DeviceQueue
  ) {
    CUDAQueue.of(queue, on: context, caller).run { (stream) throws(DeviceError) in try library.launch(rule, arguments, on: stream) }
  }

  package func rmsNorm(_ input: Tensor, weight: Tensor, epsilon: Float, output: Tensor, on queue: any DeviceQueue) {
    let (rows, columns) = input.rowsAndColumns("rmsNorm: input")
    let arguments = martlet_cuda_rms_norm_arguments(
      input: input.device(.f32, input.shape, "rmsNorm: input"), weight: weight.device(.f32, Shape(columns), "rmsNorm: weight"),
      output: output.device(.f32, input.shape, "rmsNorm: output"), rows: Int32(rows), columns: Int32(columns), epsilon: epsilon)
    launch(martlet_cuda_launch_rms_norm, arguments, "rmsNorm", on: queue)
  }

  package func layerNorm(
    _ input: Tensor, weight: Tensor, bias: Tensor, epsilon: Float, output: Tensor, on queue: any DeviceQueue
  ) {
    let (rows, columns) = input.rowsAndColumns("layerNorm: input")
    let arguments = martlet_cuda_layer_norm_arguments(
      input: input.device(.f32, input.shape, "layerNorm: input"), weight: weight.device(.f32, Shape(columns), "layerNorm: weight"),
      bias: bias.device(.f32, Shape(columns), "layerNorm: bias"), output: output.device(.f32, input.shape, "layerNorm: output"),
      rows: Int32(rows), columns: Int32(columns), epsilon: epsilon)
    launch(martlet_cuda_launch_layer_norm, arguments, "layerNorm", on: queue)
  }

  package func add(_ addend: Tensor, scaledBy scale: Float, to accumulator: Tensor, on queue: any DeviceQueue) {
    let arguments = martlet_cuda_add_arguments(
      addend: addend.device(.f32, addend.shape, "add: addend"), accumulator: accumulator.device(.f32, addend.shape, "add: accumulator"),
      count: Int64(addend.count), scale: scale)
    launch(martlet_cuda_launch_add, arguments, "add", on: queue)
  }

  package func addRow(_ row: Tensor, to accumulator: Tensor, on queue: any DeviceQueue) {
    let (rows, columns) = accumulator.rowsAndColumns("addRow: accumulator")
    let arguments = martlet_cuda_add_rows_arguments(
      table: row.device(.f32, Shape(columns), "addRow: row"), indices: 0,
      accumulator: accumulator.device(.f32, accumulator.shape, "addRow: accumulator"), rows: Int32(rows), columns: Int32(columns))
    launch(martlet_cuda_launch_add_rows, arguments, "addRow", on: queue)
  }

  package func addChosenRows(of table: Tensor, rows indices: Tensor, to accumulator: Tensor, on queue: any DeviceQueue) {
    let (rows, columns) = accumulator.rowsAndColumns("addChosenRows: accumulator")
    let arguments = martlet_cuda_add_rows_arguments(
      table: table.device(.f32, Shape(table.shape[0], columns), "addChosenRows: table"),
      indices: indices.device(.i32, Shape(rows), "addChosenRows: rows"),
      accumulator: accumulator.device(.f32, accumulator.shape, "addChosenRows: accumulator"), rows: Int32(rows), columns: Int32(columns))
    launch(martlet_cuda_launch_add_rows, arguments, "addChosenRows", on: queue)
  }

  package func addExpertRows(_ rows: Tensor, plan: ExpertPlan, to accumulator: Tensor, on queue: any DeviceQueue) {
    let (entries, columns) = accumulator.rowsAndColumns("addExpertRows: accumulator"), experts = plan.offsets.count - 1
    let arguments = martlet_cuda_add_group_rows_arguments(
      addends: rows.device(.f32, Shape(experts, columns), "addExpertRows: rows"),
      offsets: plan.offsets.device(.i32, Shape(experts + 1), "addExpertRows: offsets"),
      accumulator: accumulator.device(.f32, accumulator.shape, "addExpertRows: accumulator"), rows: Int32(entries),
      columns: Int32(columns), groups: Int32(experts))
    launch(martlet_cuda_launch_add_group_rows, arguments, "addExpertRows", on: queue)
  }

  package func scale(_ values: Tensor, by scale: Float, softCap: Float?, on queue: any DeviceQueue) {
    enforce(softCap ?? 1 > 0, "scale: a soft cap is above 0, not \(softCap ?? 0)")
    let arguments = martlet_cuda_scale_arguments(
      values: values.device(.f32, values.shape, "scale: values"), count: Int64(values.count), scale: scale, cap: softCap ?? 0)
    launch(martlet_cuda_launch_scale, arguments, "scale", on: queue)
  }

  package func scaleRows(_ values: Tensor, columns scaled: Int, by factors: Tensor, rows indices: Tensor, on queue: any DeviceQueue) {
    let (rows, columns) = values.rowsAndColumns("scaleRows: values")
    enforce(scaled >= 0 && scaled <= columns, "scaleRows: \(scaled) columns of \(columns)")
    let arguments = martlet_cuda_scale_rows_arguments(
      values: values.device(.f32, values.shape, "scaleRows: values"),
      factors: factors.device(.f32, Shape(factors.count), "scaleRows: factors"),
      indices: indices.device(.i32, Shape(rows), "scaleRows: rows"), rows: Int32(rows), columns: Int32(columns), scaled: Int32(scaled))
    launch(martlet_cuda_launch_scale_rows, arguments, "scaleRows", on: queue)
  }

  package func gatedActivation(_ activation: GatedActivation, gateUp: Tensor, output: Tensor, on queue: any DeviceQueue) {
    let (rows, width) = output.rowsAndColumns("gatedActivation: output")
    let arguments = martlet_cuda_gated_activation_arguments(
      activation, gateUp: gateUp.device(.f32, Shape(rows, 2 * width), "gatedActivation: gateUp"),
      output: output.device(.f32, output.shape, "gatedActivation: output"), rows: rows, width: width)
    launch(martlet_cuda_launch_gated_activation, arguments, "gatedActivation", on: queue)
  }

  package func gelu(_ values: Tensor, bias: Tensor?, on queue: any DeviceQueue) {
    let (rows, columns) = values.rowsAndColumns("gelu: values")
    let arguments = martlet_cuda_gelu_arguments(
      values: values.device(.f32, values.shape, "gelu: values"), bias: bias?.device(.f32, Shape(columns), "gelu: bias") ?? 0,
      rows: Int32(rows), columns: Int32(columns))
    launch(martlet_cuda_launch_gelu, arguments, "gelu", on: queue)
  }

  package func poolRows(_ method: RowPooling, _ input: Tensor, starts: Tensor, output: Tensor, on queue: any DeviceQueue) {
    let (rows, columns) = output.rowsAndColumns("poolRows: output")
    let code =
      switch method {
      case .mean: martlet_cuda_pooling_mean
      case .first: martlet_cuda_pooling_first
      case .last: martlet_cuda_pooling_last
      }
    let arguments = martlet_cuda_pool_rows_arguments(
      input: input.device(.f32, Shape(input.shape[0], columns), "poolRows: input"),
      starts: starts.device(.i32, Shape(rows + 1), "poolRows: starts"), output: output.device(.f32, output.shape, "poolRows: output"),
      rows: Int32(rows), columns: Int32(columns), method: Int32(code))
    launch(martlet_cuda_launch_pool_rows, arguments, "poolRows", on: queue)
  }

  package func unitRows(_ values: Tensor, on queue: any DeviceQueue) {
    let (rows, columns) = values.rowsAndColumns("unitRows: values")
    let arguments = martlet_cuda_unit_rows_arguments(
      values: values.device(.f32, values.shape, "unitRows: values"), rows: Int32(rows), columns: Int32(columns))
    launch(martlet_cuda_launch_unit_rows, arguments, "unitRows", on: queue)
  }

  package func gatherRows(_ input: Tensor, rows indices: Tensor, output: Tensor, on queue: any DeviceQueue) {
    let (rows, columns) = output.rowsAndColumns("gatherRows: output")
    let arguments = martlet_cuda_gather_rows_arguments(
      input: input.device(.f32, Shape(input.shape[0], columns), "gatherRows: input"),
      indices: indices.device(.i32, Shape(rows), "gatherRows: rows"), output: output.device(.f32, output.shape, "gatherRows: output"),
      rows: Int32(rows), columns: Int32(columns))
    launch(martlet_cuda_launch_gather_rows, arguments, "gatherRows", on: queue)
  }

  package func copyHeads(_ input: HeadPlace, to output: HeadPlace, rows: Int, heads: Int, width: Int, on queue: any DeviceQueue) {
    let arguments = martlet_cuda_copy_heads_arguments(
      input: input.start(rows: rows, heads: heads, width: width, "copyHeads: input"),
      output: output.start(rows: rows, heads: heads, width: width, "copyHeads: output"), input_row_stride: Int64(input.rowStride),
      input_head_stride: Int64(input.headStride), output_row_stride: Int64(output.rowStride), output_head_stride: Int64(output.headStride),
      rows: Int32(rows), heads: Int32(heads), width: Int32(width))
    launch(martlet_cuda_launch_copy_heads, arguments, "copyHeads", on: queue)
  }

  // MARK: Experts

  package func route(
    _ outputs: Tensor, bias: Tensor?, routing: ExpertRouting, plan: ExpertPlan, load: Tensor?, on queue: any DeviceQueue
  ) {
    refuse("the choice of experts (route)", on: queue)
  }

  package func expertProduct(
    _ input: Tensor, isSorted: Bool, _ weights: [any PreparedWeight], plan: ExpertPlan, output: Tensor, on queue: any DeviceQueue
  ) {
    refuse("the product of experts (expertProduct)", on: queue)
  }

  package func combineExperts(_ input: Tensor, plan: ExpertPlan, output: Tensor, on queue: any DeviceQueue) {
    refuse("the sum of experts (combineExperts)", on: queue)
  }

  private func refuse(_ what: String, on queue: any DeviceQueue) { CUDAQueue.of(queue, on: context, "refuse").refuse(what) }
}

extension martlet_cuda_gated_activation_arguments {
  init(_ activation: GatedActivation, gateUp: UInt64, output: UInt64, rows: Int, width: Int) {
    let code =
      switch activation {
      case .silu: martlet_cuda_activation_silu
      case .geluTanh: martlet_cuda_activation_gelu_tanh
      case .clamped: martlet_cuda_activation_clamped
      }
    var (alpha, limit): (Float, Float) = (0, 0)
    if case .clamped(let itsAlpha, let itsLimit) = activation { (alpha, limit) = (itsAlpha, itsLimit) }
    self.init(
      gate_up: gateUp, output: output, rows: Int32(rows), width: Int32(width), activation: Int32(code), alpha: alpha, limit: limit)
  }
}

extension HeadPlace {
  /// The address of the first value, where all heads of all rows lie within the tensor.
  fileprivate func start(rows: Int, heads: Int, width: Int, _ what: StaticString) -> UInt64 {
    let last = column + max(rows - 1, 0) * rowStride + max(heads - 1, 0) * headStride + width
    enforce(
      column >= 0 && rowStride >= 0 && headStride >= 0 && last <= tensor.count,
      "\(what): \(tensor.shape) does not hold \(heads) heads of \(width) values for \(rows) rows")
    return tensor.device(.f32, tensor.shape, what) + UInt64(column * MemoryLayout<Float>.stride)
  }
}

extension Tensor {
  /// - Precondition: a shape `[rows, columns]`.
  func rowsAndColumns(_ what: StaticString) -> (rows: Int, columns: Int) {
    enforce(shape.rank == 2, "\(what) must be [rows, columns], not \(shape)")
    enforce(max(shape[0], shape[1]) <= 1 << 30, "\(what) of \(shape) has more than \(1 << 30) rows or columns")
    return (shape[0], shape[1])
  }

  /// The address of the elements for a kernel.
  /// - Precondition: the tensor has this type and shape and lies in a GPU's memory.
  func device(_ dataType: DataType, _ shape: Shape, _ what: StaticString) -> UInt64 {
    enforce(self.dataType == dataType, "\(what) must be \(dataType), not \(self.dataType)")
    enforce(self.shape == shape, "\(what) must be \(shape), not \(self.shape)")
    enforce(buffer.hostAddress == nil, "\(what) lies in the memory of the host")
    return UInt64(address)
  }
}
