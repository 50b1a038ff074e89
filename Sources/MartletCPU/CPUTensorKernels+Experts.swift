// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletKernels
package import MartletCore

/// Layers with experts: the choice, products over the ragged groups of entries, and the sum of what the experts answer.
///
/// A group is a product of its own, with the bits that it would have alone; all groups are shared out in one fork, so that a small one keeps nobody waiting.
extension CPUTensorKernels {
  package func route(_ outputs: Tensor, bias: Tensor?, routing: ExpertRouting, plan: ExpertPlan, on queue: any DeviceQueue) {
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

  package func expertProduct(_ input: Tensor, _ weights: [any PreparedWeight], plan: ExpertPlan, output: Tensor, on queue: any DeviceQueue)
  {
    let offsets: UnsafePointer<Int32> = plan.offsets.pointer(.i32, Shape(weights.count + 1), "expertProduct: offsets")
    enforce(input.shape[0] == plan.rows.shape[0], "expertProduct: \(input.shape) for \(plan.rows.shape[0]) entries")
    groupedProduct(input, weights, output: output, "expertProduct") { Int(offsets[$0])..<Int(offsets[$0 + 1]) }
  }

  /// A product for each weight, in one fork: `rows` says which rows of input and output are whose.
  func groupedProduct(_ input: Tensor, _ weights: [any PreparedWeight], output: Tensor, _ what: StaticString, rows: (Int) -> Range<Int>) {
    enforce(!weights.isEmpty, "\(what): no weights")
    let first = CPUPreparedWeight.of(weights[0], what)
    let entries = input.shape[0], columns = first.columns
    let source: UnsafePointer<Float> = input.pointer(.f32, Shape(entries, columns), what)
    let target: UnsafeMutablePointer<Float> = output.pointer(.f32, Shape(entries, first.rows), what)
    guard entries > 0 else { return }
    codedInputs.withSlabs(count: first.readsCodedInputs ? entries * first.slabCount : 0, products: weights.count) {
      slabs, groups, firstTasks in
      if first.readsCodedInputs { code(source, tokens: entries, columns: columns, into: slabs) }
      var count = 0, taskCount = 0
      for (index, weight) in weights.enumerated() {
        let own = rows(index)
        let weight = CPUPreparedWeight.of(weight, what)
        enforce(
          weight.columns == columns && weight.rows == first.rows && weight.readsCodedInputs == first.readsCodedInputs,
          "\(what): weight \(index) is [\(weight.rows), \(weight.columns)], the first [\(first.rows), \(columns)], or of another kind of format"
        )
        guard !own.isEmpty else { continue }
        let dealt = CPUProductPlan(tokens: own.count, weight: weight, tileRows: Int(products.rows_of_a_tile), pool: pool)
        groups[count] = martlet_product_arguments(
          parts: weight.parts.baseAddress, input: source + own.lowerBound * columns, slabs: slabs + own.lowerBound,
          output: target + own.lowerBound * weight.rows, part_count: Int32(weight.parts.count), tokens: Int32(own.count),
          columns: Int32(columns), rows: Int32(weight.rows), slab_stride: Int32(entries), group_count: Int32(weight.groupCount),
          groups_per_task: Int32(dealt.groupsPerTask), tokens_per_task: Int32(dealt.tokensPerTask))
        firstTasks[count] = Int32(taskCount)
        count += 1
        taskCount += dealt.taskCount
      }
      pool.run(
        taskCount: taskCount, function: products.grouped_product,
        with: martlet_grouped_product_arguments(products: groups, first_tasks: firstTasks, count: Int32(count)))
    }
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
