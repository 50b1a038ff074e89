// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletKernels
package import MartletCore

/// The tensor kernels of one instruction set: each call checks its tensors, fills in a C struct and shares out its rows.
///
/// Nothing here allocates. Small work runs on the caller's thread: to call the others takes longer than to do it.
package struct CPUTensorKernels: TensorKernels {
  let instructionSet: InstructionSet
  let pool: WorkerPool
  let codedInputs: CPUCodedInputs
  /// ``CPULimits/secondCacheByteCount``.
  let secondCacheByteCount: Int

  var kernels: martlet_tensor_kernels { instructionSet.table.pointee.tensor }

  package func rmsNorm(_ input: Tensor, weight: Tensor, epsilon: Float, output: Tensor, on queue: any DeviceQueue) {
    enforce(input.shape.rank == 2, "rmsNorm: input must be [rows, columns], not \(input.shape)")
    let arguments = martlet_rms_norm_arguments(
      input: input.pointer(.f32, input.shape, "rmsNorm: input"),
      weight: weight.pointer(.f32, Shape(input.shape[1]), "rmsNorm: weight"), output: nil, rows: 0, columns: Int32(input.shape[1]),
      rows_per_task: 0, epsilon: epsilon)
    rmsNorm(arguments, rows: input.shape[0], into: output.pointer(.f32, input.shape, "rmsNorm: output"))
  }

  /// - Parameter arguments: all but the rows and the output.
  func rmsNorm(_ arguments: martlet_rms_norm_arguments, rows count: Int, into output: UnsafeMutablePointer<Float>) {
    let rows = RowTasks(Shape(count, Int(arguments.columns)), in: pool)
    var arguments = arguments
    arguments.output = output
    arguments.rows = Int32(rows.count)
    arguments.rows_per_task = Int32(rows.perTask)
    pool.run(taskCount: rows.taskCount, function: kernels.rms_norm, with: arguments)
  }

  package func add(_ addend: Tensor, scaledBy scale: Float, to accumulator: Tensor, on queue: any DeviceQueue) {
    let rows = RowTasks(addend.shape, in: pool)
    let arguments = martlet_add_arguments(
      addend: addend.pointer(.f32, addend.shape, "add: addend"),
      accumulator: accumulator.pointer(.f32, addend.shape, "add: accumulator"),
      rows: Int32(rows.count), columns: Int32(rows.columns), rows_per_task: Int32(rows.perTask), scale: scale)
    pool.run(taskCount: rows.taskCount, function: kernels.add, with: arguments)
  }

  package func addRow(_ row: Tensor, to accumulator: Tensor, on queue: any DeviceQueue) {
    let rows = RowTasks(accumulator.shape, in: pool)
    let arguments = martlet_add_row_arguments(
      addend: row.pointer(.f32, Shape(rows.columns), "addRow: row"),
      accumulator: accumulator.pointer(.f32, accumulator.shape, "addRow: accumulator"),
      rows: Int32(rows.count), columns: Int32(rows.columns), rows_per_task: Int32(rows.perTask))
    pool.run(taskCount: rows.taskCount, function: kernels.add_row, with: arguments)
  }

  package func scale(_ values: Tensor, by scale: Float, softCap: Float?, on queue: any DeviceQueue) {
    enforce(softCap ?? 1 > 0, "scale: a soft cap is above 0, not \(softCap ?? 0)")
    // A tanh costs about as much as four loads and stores.
    let rows = RowTasks(values.shape, costOfValue: softCap == nil ? 1 : 4, in: pool)
    let arguments = martlet_scale_arguments(
      values: values.pointer(.f32, values.shape, "scale: values"), rows: Int32(rows.count), columns: Int32(rows.columns),
      rows_per_task: Int32(rows.perTask), scale: scale, cap: softCap ?? 0)
    pool.run(taskCount: rows.taskCount, function: kernels.scale, with: arguments)
  }

  package func scaleRows(_ values: Tensor, columns: Int, by factors: Tensor, rows indices: Tensor, on queue: any DeviceQueue) {
    let rows = RowTasks(values.shape, in: pool), factorCount = factors.count
    enforce(columns >= 0 && columns <= rows.columns, "scaleRows: \(columns) columns of \(rows.columns)")
    let chosen: UnsafePointer<Int32> = indices.pointer(.i32, Shape(rows.count), "scaleRows: rows")
    for index in 0..<rows.count {
      let row = Int(chosen[index])
      enforce(row >= 0 && row < factorCount, "scaleRows: entry \(index) is \(row), of \(factorCount) factors")
    }
    let arguments = martlet_scale_rows_arguments(
      values: values.pointer(.f32, values.shape, "scaleRows: values"),
      factors: factors.pointer(.f32, Shape(factorCount), "scaleRows: factors"),
      indices: chosen, rows: Int32(rows.count), columns: Int32(rows.columns), scaled: Int32(columns), rows_per_task: Int32(rows.perTask))
    pool.run(taskCount: rows.taskCount, function: kernels.scale_rows, with: arguments)
  }

  package func gatedActivation(_ activation: GatedActivation, gateUp: Tensor, output: Tensor, on queue: any DeviceQueue) {
    enforce(output.shape.rank == 2, "gatedActivation: output must be [rows, columns], not \(output.shape)")
    let (rows, width) = (output.shape[0], output.shape[1])
    let arguments = martlet_gated_activation_arguments(
      activation, gateUp: gateUp.pointer(.f32, Shape(rows, 2 * width), "gatedActivation: gateUp"), width: width)
    gatedActivation(arguments, rows: rows, into: output.pointer(.f32, output.shape, "gatedActivation: output"))
  }

  /// - Parameter arguments: all but the rows and the output.
  func gatedActivation(_ arguments: martlet_gated_activation_arguments, rows count: Int, into output: UnsafeMutablePointer<Float>) {
    // An exponential and a quotient cost about as much as four loads and stores.
    let rows = RowTasks(Shape(count, Int(arguments.width)), costOfValue: 4, in: pool)
    var arguments = arguments
    arguments.output = output
    arguments.rows = Int32(rows.count)
    arguments.rows_per_task = Int32(rows.perTask)
    pool.run(taskCount: rows.taskCount, function: kernels.gated_activation, with: arguments)
  }

  package func gatherRows(_ input: Tensor, rows indices: Tensor, output: Tensor, on queue: any DeviceQueue) {
    let rows = RowTasks(output.shape, in: pool), inputRows = input.shape[0]
    let chosen: UnsafePointer<Int32> = indices.pointer(.i32, Shape(rows.count), "gatherRows: rows")
    for index in 0..<rows.count {
      let row = Int(chosen[index])
      enforce(row >= 0 && row < inputRows, "gatherRows: row \(row), entry \(index), of an input of \(inputRows) rows")
    }
    let arguments = martlet_gather_rows_arguments(
      input: input.pointer(.f32, Shape(inputRows, rows.columns), "gatherRows: input"), indices: chosen,
      output: output.pointer(.f32, output.shape, "gatherRows: output"),
      rows: Int32(rows.count), columns: Int32(rows.columns), rows_per_task: Int32(rows.perTask))
    pool.run(taskCount: rows.taskCount, function: kernels.gather_rows, with: arguments)
  }
}

/// The rows of a tensor, dealt to tasks.
struct RowTasks {
  let count: Int
  let columns: Int
  let perTask: Int
  let taskCount: Int

  /// Values that one thread handles in about the time that it takes to call another, some microseconds.
  private static let valuesPerTask = 16384
  /// Several tasks for each thread, so that one that the system holds up does not hold up all.
  private static let tasksPerThread = 4

  /// - Precondition: a shape `[rows, columns]`.
  init(_ shape: Shape, costOfValue: Int = 1, in pool: WorkerPool) {
    enforce(shape.rank == 2, "a tensor [rows, columns] is needed, not \(shape)")
    count = shape[0]
    columns = shape[1]
    enforce(max(count, columns) <= 1 << 30, "a tensor of \(shape) has more than \(1 << 30) rows or columns")
    let tasks = min(count, shape.count * costOfValue / Self.valuesPerTask, Self.tasksPerThread * pool.threadCount)
    perTask = pool.threadCount == 1 || tasks < 2 ? max(count, 1) : (count + tasks - 1) / tasks
    taskCount = (count + perTask - 1) / perTask
  }
}

extension martlet_gated_activation_arguments {
  /// All but the rows and the output.
  init(_ activation: GatedActivation, gateUp: UnsafePointer<Float>, width: Int) {
    let code =
      switch activation {
      case .silu: martlet_activation_silu
      case .geluTanh: martlet_activation_gelu_tanh
      case .clamped: martlet_activation_clamped
      }
    var (alpha, limit): (Float, Float) = (0, 0)
    if case .clamped(let itsAlpha, let itsLimit) = activation { (alpha, limit) = (itsAlpha, itsLimit) }
    self.init(
      gate_up: gateUp, output: nil, rows: 0, width: Int32(width), rows_per_task: 0, activation: Int32(code.rawValue), alpha: alpha,
      limit: limit)
  }
}

extension Tensor {
  /// The elements for a kernel.
  /// - Precondition: the tensor has this type and shape and lies in the CPU's memory.
  func pointer<Element>(_ dataType: DataType, _ shape: Shape, _ what: StaticString) -> UnsafeMutablePointer<Element> {
    enforce(self.dataType == dataType, "\(what) must be \(dataType), not \(self.dataType)")
    enforce(self.shape == shape, "\(what) must be \(shape), not \(self.shape)")
    guard let start = buffer.hostAddress else { fatalError("\(what) lies in the memory of another device") }
    return (start + byteOffset).assumingMemoryBound(to: Element.self)
  }

  /// The elements for a kernel that only reads them.
  func pointer<Element>(_ dataType: DataType, _ shape: Shape, _ what: StaticString) -> UnsafePointer<Element> {
    UnsafePointer(pointer(dataType, shape, what) as UnsafeMutablePointer<Element>)
  }
}
