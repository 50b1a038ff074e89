// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletKernels
package import MartletCore

/// Layers with experts: the choice, products over the ragged groups of entries, and the sum of what the experts answer.
///
/// A group is a product of its own, with the bits that it would have alone; all groups are shared out in one fork, so that a small one keeps nobody waiting.
extension CPUTensorKernels {
  package func route(
    _ outputs: Tensor, bias: Tensor?, routing: ExpertRouting, plan: ExpertPlan, load: Tensor?, on queue: any DeviceQueue
  ) {
    enforce(routing.problem == nil, "route: \(routing.problem ?? "")")
    let n = plan.experts.shape[0], used = routing.numUsed
    let chosen: UnsafeMutablePointer<Int32> = plan.experts.pointer(.i32, Shape(n, used), "route: experts")
    let rows = RowTasks(Shape(n, routing.numExperts), costOfValue: 8, in: pool)
    let arguments = martlet_route_arguments(
      outputs: outputs.pointer(.f32, Shape(n, routing.numExperts), "route: outputs"),
      bias: bias.map { $0.pointer(.f32, Shape(routing.numExperts), "route: bias") },
      chosen: chosen, weights: plan.weights.pointer(.f32, Shape(n, used), "route: weights"),
      rows: Int32(n), experts: Int32(routing.numExperts), used: Int32(used), rows_per_task: Int32(rows.perTask),
      scoring: Int32((routing.scoring == .softmax ? martlet_expert_softmax : martlet_expert_sigmoid).rawValue),
      normalizes: routing.normalizes ? 1 : 0, groups: Int32(routing.groups?.count ?? 1), used_groups: Int32(routing.groups?.used ?? 1),
      sums_best_two: routing.groups?.score == .bestTwo ? 1 : 0, scale: routing.scale)
    pool.run(taskCount: rows.taskCount, function: instructionSet.table.pointee.tensor.route, with: arguments)
    sort(plan, chosen, rows: n, used: used, experts: routing.numExperts)
    guard let load else { return }
    let offsets: UnsafePointer<Int32> = plan.offsets.pointer(.i32, Shape(routing.numExperts + 1), "route: offsets")
    let counts: UnsafeMutablePointer<Int32> = load.pointer(.i32, Shape(routing.numExperts), "route: load")
    for expert in 0..<routing.numExperts { counts[expert] &+= offsets[expert + 1] - offsets[expert] }
  }

  /// Counts, then deals: the entries of an expert in the order of their rows.
  private func sort(_ plan: ExpertPlan, _ chosen: UnsafePointer<Int32>, rows n: Int, used: Int, experts: Int) {
    let offsets: UnsafeMutablePointer<Int32> = plan.offsets.pointer(.i32, Shape(experts + 1), "route: offsets")
    let places: UnsafeMutablePointer<Int32> = plan.places.pointer(.i32, Shape(n, used), "route: places")
    let rows: UnsafeMutablePointer<Int32> = plan.rows.pointer(.i32, Shape(n * used), "route: rows")
    for expert in 0...experts { offsets[expert] = 0 }
    for entry in 0..<n * used { offsets[Int(chosen[entry]) + 1] += 1 }
    for expert in 0..<experts { offsets[expert + 1] += offsets[expert] }
    for entry in 0..<n * used {
      let expert = Int(chosen[entry]), place = offsets[expert]
      places[entry] = place
      rows[Int(place)] = Int32(entry / used)
      offsets[expert] = place + 1
    }
    // Each offset has moved to where the next expert begins.
    for expert in stride(from: experts, to: 0, by: -1) { offsets[expert] = offsets[expert - 1] }
    offsets[0] = 0
  }

  package func expertProduct(
    _ input: Tensor, isSorted: Bool, _ weights: [any PreparedWeight], plan: ExpertPlan, output: Tensor, on queue: any DeviceQueue
  ) {
    let entries = plan.rows.shape[0]
    let offsets: UnsafePointer<Int32> = plan.offsets.pointer(.i32, Shape(weights.count + 1), "expertProduct: offsets")
    let picked: UnsafePointer<Int32>? = isSorted ? nil : plan.rows.pointer(.i32, Shape(entries), "expertProduct: rows")
    groupedProduct(
      input, rowCount: isSorted ? entries : plan.experts.shape[0], picked: picked, entries: entries, weights, output: output,
      "expertProduct"
    ) { Int(offsets[$0])..<Int(offsets[$0 + 1]) }
  }

  /// A product for each weight, in one fork.
  /// - Parameters:
  ///   - picked: `[entries]`: the row of the input of each entry; nil: the rows are the entries.
  ///   - rows: which entries are whose.
  func groupedProduct(
    _ input: Tensor, rowCount: Int, picked: UnsafePointer<Int32>?, entries: Int, _ weights: [any PreparedWeight], output: Tensor,
    _ what: StaticString, rows: (Int) -> Range<Int>
  ) {
    enforce(!weights.isEmpty, "\(what): no weights")
    let first = CPUPreparedWeight.of(weights[0], what), columns = first.columns, isSorted = picked == nil
    let input: UnsafePointer<Float> = input.pointer(.f32, Shape(rowCount, columns), what)
    let target: UnsafeMutablePointer<Float> = output.pointer(.f32, Shape(entries, first.rows), what)
    guard entries > 0 else { return }
    // Rows are coded once, however many experts they have, and then copied to where their entries are; so are rows that are read as they are.
    let coding = inputCoding(of: first, tokens: entries / weights.count)
    let slabBytesOfRows = first.readsCodedInputs ? rowCount * first.slabCount * coding.slabByteCount : 0
    let slabBytesOfEntries = isSorted || !first.readsCodedInputs ? 0 : entries * first.slabCount * coding.slabByteCount
    let floatBytes = isSorted || !first.readsFloats ? 0 : entries * columns * MemoryLayout<Float>.stride
    codedInputs.withSlabs(byteCount: slabBytesOfRows + slabBytesOfEntries + floatBytes, products: weights.count) {
      memory, groups, firstTasks in
      var source = input, slabs = memory
      if first.readsCodedInputs { code(CodedRows(input: input), tokens: rowCount, columns: columns, as: coding, into: memory) }
      if let picked {
        if first.readsCodedInputs {
          slabs = memory + slabBytesOfRows
          pick(picked, of: memory, coding, rows: rowCount, count: entries, slabCount: first.slabCount, into: slabs)
        }
        if first.readsFloats {
          let gathered = (memory + slabBytesOfRows + slabBytesOfEntries).bindMemory(to: Float.self, capacity: entries * columns)
          let tasks = RowTasks(Shape(entries, columns), in: pool)
          pool.run(
            taskCount: tasks.taskCount, function: instructionSet.table.pointee.tensor.gather_rows,
            with: martlet_gather_rows_arguments(
              input: input, indices: picked, output: gathered, rows: Int32(entries), columns: Int32(columns),
              rows_per_task: Int32(tasks.perTask)))
          source = UnsafePointer(gathered)
        }
      }
      var count = 0, taskCount = 0
      for (index, weight) in weights.enumerated() {
        let own = rows(index)
        let weight = CPUPreparedWeight.of(weight, what)
        enforce(
          weight.columns == columns && weight.rows == first.rows && weight.readsCodedInputs == first.readsCodedInputs
            && weight.readsFloats == first.readsFloats && weight.activations == first.activations,
          "\(what): weight \(index) is [\(weight.rows), \(weight.columns)], the first [\(first.rows), \(columns)], or of another kind of format"
        )
        guard !own.isEmpty else { continue }
        let dealt = plan(tokens: own.count, weight: weight, coding: coding)
        groups[count] = martlet_product_arguments(
          parts: weight.parts.baseAddress, input: source + own.lowerBound * columns,
          slabs: slabs + own.lowerBound * coding.slabByteCount,
          output: target + own.lowerBound * weight.rows, bias: nil, addition_scale: 0, adds: false,
          part_count: Int32(weight.partCount), tokens: Int32(own.count),
          columns: Int32(columns), rows: Int32(weight.rows), slab_stride: Int32(entries), group_count: Int32(weight.groupCount),
          groups_per_task: Int32(dealt.groupsPerTask), tokens_per_task: Int32(dealt.tokensPerTask), coding: coding.code)
        firstTasks[count] = Int32(taskCount)
        count += 1
        taskCount += dealt.taskCount
      }
      pool.run(
        taskCount: taskCount, function: products.grouped_product,
        with: martlet_grouped_product_arguments(products: groups, first_tasks: firstTasks, count: Int32(count)))
    }
  }

  /// Copies the slabs of a row to each of its entries.
  private func pick(
    _ rows: UnsafePointer<Int32>, of slabs: UnsafeRawPointer, _ coding: InputCoding, rows rowCount: Int, count: Int, slabCount: Int,
    into output: UnsafeMutableRawPointer
  ) {
    let tasks = RowTasks(Shape(count, slabCount * coding.slabByteCount / MemoryLayout<Float>.stride), in: pool)
    pool.run(
      taskCount: tasks.taskCount, part: .coding, function: products.pick_slabs,
      with: martlet_pick_slabs_arguments(
        slabs: slabs, indices: rows, output: output, slab_count: Int32(slabCount), rows: Int32(rowCount), count: Int32(count),
        count_per_task: Int32(tasks.perTask), coding: coding.code))
  }

  package func addExpertRows(_ rows: Tensor, plan: ExpertPlan, to accumulator: Tensor, on queue: any DeviceQueue) {
    let entries = RowTasks(accumulator.shape, in: pool), experts = plan.offsets.shape[0] - 1
    enforce(entries.count == plan.rows.shape[0], "addExpertRows: \(entries.count) rows for \(plan.rows.shape[0]) entries")
    let arguments = martlet_add_group_rows_arguments(
      addends: rows.pointer(.f32, Shape(experts, entries.columns), "addExpertRows: rows"),
      offsets: plan.offsets.pointer(.i32, Shape(experts + 1), "addExpertRows: offsets"),
      accumulator: accumulator.pointer(.f32, accumulator.shape, "addExpertRows: accumulator"),
      rows: Int32(entries.count), columns: Int32(entries.columns), rows_per_task: Int32(entries.perTask))
    pool.run(taskCount: entries.taskCount, function: instructionSet.table.pointee.tensor.add_group_rows, with: arguments)
  }

  package func combineExperts(_ input: Tensor, plan: ExpertPlan, output: Tensor, on queue: any DeviceQueue) {
    let used = plan.experts.shape[1]
    let rows = RowTasks(output.shape, costOfValue: used, in: pool)
    let arguments = martlet_combine_arguments(
      input: input.pointer(.f32, Shape(rows.count * used, rows.columns), "combineExperts: input"),
      places: plan.places.pointer(.i32, Shape(rows.count, used), "combineExperts: places"),
      weights: plan.weights.pointer(.f32, Shape(rows.count, used), "combineExperts: weights"),
      output: output.pointer(.f32, output.shape, "combineExperts: output"),
      rows: Int32(rows.count), columns: Int32(rows.columns), used: Int32(used), rows_per_task: Int32(rows.perTask))
    pool.run(taskCount: rows.taskCount, function: instructionSet.table.pointee.tensor.combine, with: arguments)
  }
}
