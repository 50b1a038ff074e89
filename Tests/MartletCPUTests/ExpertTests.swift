// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import MartletCPU
import MartletCore
import Testing

/// The choice of experts, products over their groups, and the sum.
@Suite(.serialized) struct `Experts` {
  /// The formula in double: scores, the choice by bias and groups, weights.
  private func reference(_ outputs: [Float], _ bias: [Float]?, _ routing: ExpertRouting) -> (experts: [Int32], weights: [Double]) {
    var scores: [Double]
    switch routing.scoring {
    case .softmax:
      let most = Double(outputs.max()!)
      scores = outputs.map { exp(Double($0) - most) }
      let sum = scores.reduce(0, +)
      scores = scores.map { $0 / sum }
    case .sigmoid: scores = outputs.map { 1 / (1 + exp(-Double($0))) }
    }
    var choice = scores.indices.map { scores[$0] + Double(bias?[$0] ?? 0) }
    if let groups = routing.groups {
      let size = routing.numExperts / groups.count
      let ranks = (0..<groups.count).map { group in
        let best = choice[group * size..<(group + 1) * size].sorted(by: >)
        return groups.score == .best ? best[0] : best[0] + best[1]
      }
      let used = Set((0..<groups.count).sorted { ranks[$0] > ranks[$1] }.prefix(groups.used))
      for expert in choice.indices where !used.contains(expert / size) { choice[expert] = -.infinity }
    }
    let chosen = choice.indices.sorted { choice[$0] > choice[$1] }.prefix(routing.numUsed)
    let sum = routing.normalizes ? chosen.reduce(0) { $0 + scores[$1] } : 1
    return (chosen.map { Int32($0) }, chosen.map { scores[$0] / sum * Double(routing.scale) })
  }

  static let routings = [
    ExpertRouting(numExperts: 128, numUsed: 8, normalizes: true), ExpertRouting(numExperts: 60, numUsed: 4, normalizes: false),
    ExpertRouting(numExperts: 5, numUsed: 5, scoring: .sigmoid, normalizes: true, scale: 2.5),
    ExpertRouting(
      numExperts: 160, numUsed: 6, normalizes: false, scale: 16, groups: ExpertRouting.Groups(count: 8, used: 3, score: .best)),
    ExpertRouting(
      numExperts: 256, numUsed: 8, scoring: .sigmoid, normalizes: true, scale: 2.5,
      groups: ExpertRouting.Groups(count: 8, used: 4, score: .bestTwo)),
  ]

  @Test(arguments: runnableInstructionSets, routings)
  func `are chosen as the formula says, and sorted`(instructionSet: String, routing: ExpertRouting) throws {
    let device = try CPUDevice(instructionSet: instructionSet, threads: 2), queue = device.makeQueue()
    var random = SeededGenerator(seed: 11)
    let n = 200, experts = routing.numExperts, used = routing.numUsed
    let outputs = random.floats(n * experts, scale: 3), bias = routing.scoring == .sigmoid ? random.floats(experts, scale: 0.1) : nil
    let plan = try ExpertPlan(maxRows: n, numExperts: experts, numUsed: used, on: device)
    let load = try device.tensor([Int32](repeating: 100, count: experts), Shape(experts), .i32)
    device.tensorKernels.route(
      try device.tensor(outputs, Shape(n, experts)), bias: try bias.map { try device.tensor($0, Shape(experts)) }, routing: routing,
      plan: plan, load: load, on: queue)
    let chosen = plan.experts.integers, weights = plan.weights.floats, places = plan.places.integers
    for expert in 0..<experts { #expect(load.integers[expert] == Int32(100 + chosen.count { $0 == Int32(expert) })) }
    for row in 0..<n {
      let expected = reference(Array(outputs[row * experts..<(row + 1) * experts]), bias, routing)
      #expect(Array(chosen[row * used..<(row + 1) * used]) == expected.experts)
      for (weight, e) in zip(weights[row * used..<(row + 1) * used], expected.weights) { #expect(abs(Double(weight) - e) <= 1e-6 * e) }
    }
    let offsets = plan.offsets.integers, rows = plan.rows.integers
    #expect(offsets[0] == 0 && offsets[experts] == Int32(n * used))
    #expect(Set(places).count == n * used)
    for expert in 0..<experts {
      let group = Array(rows[Int(offsets[expert])..<Int(offsets[expert + 1])])
      #expect(group == group.sorted() && Set(group).count == group.count)
    }
    for entry in 0..<n * used {
      #expect((offsets[Int(chosen[entry])]..<offsets[Int(chosen[entry]) + 1]).contains(places[entry]))
      #expect(rows[Int(places[entry])] == Int32(entry / used))
    }
  }

  @Test func `of equal choices the lower number comes first`() throws {
    let device = try CPUDevice(threads: 1)
    let routing = ExpertRouting(numExperts: 6, numUsed: 3, normalizes: true)
    let plan = try ExpertPlan(maxRows: 2, numExperts: 6, numUsed: 3, on: device)
    device.tensorKernels.route(
      try device.tensor([1, 2, 1, 2, 1, 0, 0, 0, 0, 0, 0, 0], Shape(2, 6)), bias: nil, routing: routing, plan: plan, load: nil,
      on: device.makeQueue())
    #expect(plan.experts.integers == [1, 3, 0, 0, 1, 2])
  }

  /// An expert's group is the product that the same rows have alone; so it does not matter who shares an expert, nor how many threads there are.
  @Test(arguments: runnableInstructionSets, [WeightFormat.q4_K, .mxfp4, .nvfp4, .bf16, .e4m3])
  func `answer each row with the bits that it has alone`(instructionSet: String, format: WeightFormat) throws {
    var random = SeededGenerator(seed: 12)
    let experts = 7, used = 2, n = 90, rows = 40, columns = 256
    let gates = (0..<experts).map { _ in TestWeight.random(format, rows: rows, columns: columns, using: &random) }
    let ups = (0..<experts).map { _ in TestWeight.random(format, rows: rows, columns: columns, using: &random) }
    let routing = ExpertRouting(numExperts: experts, numUsed: used, normalizes: true)
    let outputs = random.floats(n * experts, scale: 2), inputs = random.floats(n * columns)
    for threads in [1, 2, 3] {
      let device = try CPUDevice(instructionSet: instructionSet, threads: threads), queue = device.makeQueue(),
        kernels = device.tensorKernels
      let weights = try zip(gates, ups).map { gate, up in
        try gate.withWeight { g in try up.withWeight { u in try device.prepare([g, u]) } }
      }
      let plan = try ExpertPlan(maxRows: n, numExperts: experts, numUsed: used, on: device)
      kernels.route(try device.tensor(outputs, Shape(n, experts)), bias: nil, routing: routing, plan: plan, load: nil, on: queue)
      let gathered = try device.makeTensor(Shape(n * used, columns), .f32),
        products = try device.makeTensor(Shape(n * used, 2 * rows), .f32)
      kernels.gatherRows(try device.tensor(inputs, Shape(n, columns)), rows: plan.rows, output: gathered, on: queue)
      kernels.expertProduct(gathered, isSorted: true, weights, plan: plan, output: products, on: queue)
      // The same by rows, which are coded once and picked.
      let picked = try device.makeTensor(Shape(n * used, 2 * rows), .f32)
      kernels.expertProduct(try device.tensor(inputs, Shape(n, columns)), isSorted: false, weights, plan: plan, output: picked, on: queue)
      #expect(picked.floats == products.floats)
      let sums = try device.makeTensor(Shape(n, 2 * rows), .f32)
      kernels.combineExperts(products, plan: plan, output: sums, on: queue)
      let found = products.floats, chosen = plan.experts.integers, places = plan.places.integers, share = plan.weights.floats,
        sum = sums.floats
      for row in 0..<n {
        var expected = [Double](repeating: 0, count: 2 * rows)
        for j in 0..<used {
          let alone = try device.product(Array(inputs[row * columns..<(row + 1) * columns]), weights[Int(chosen[row * used + j])])
          let place = Int(places[row * used + j])
          #expect(Array(found[place * 2 * rows..<(place + 1) * 2 * rows]) == alone)
          for i in alone.indices { expected[i] += Double(share[row * used + j]) * Double(alone[i]) }
        }
        let size = expected.reduce(0) { max($0, abs($1)) }
        for i in expected.indices { #expect(abs(Double(sum[row * 2 * rows + i]) - expected[i]) <= 3e-7 * size) }
      }
    }
  }

  @Test(arguments: runnableInstructionSets) func `have biases of their own`(instructionSet: String) throws {
    var random = SeededGenerator(seed: 13)
    let device = try CPUDevice(instructionSet: instructionSet, threads: 3), queue = device.makeQueue(), experts = 5, used = 2, n = 40,
      columns = 37
    let routing = ExpertRouting(numExperts: experts, numUsed: used, normalizes: true)
    let plan = try ExpertPlan(maxRows: n, numExperts: experts, numUsed: used, on: device)
    device.tensorKernels.route(
      try device.tensor(random.floats(n * experts), Shape(n, experts)), bias: nil, routing: routing, plan: plan, load: nil, on: queue)
    let biases = random.floats(experts * columns), before = random.floats(n * used * columns)
    let sums = try device.tensor(before, Shape(n * used, columns))
    device.tensorKernels.addExpertRows(try device.tensor(biases, Shape(experts, columns)), plan: plan, to: sums, on: queue)
    let after = sums.floats, chosen = plan.experts.integers, places = plan.places.integers
    for (entry, expert) in chosen.enumerated() {
      for i in 0..<columns {
        let at = Int(places[entry]) * columns + i
        #expect(after[at] == before[at] + biases[Int(expert) * columns + i])
      }
    }
  }

  @Test func `of a step without rows compute nothing`() throws {
    let device = try CPUDevice(threads: 2), queue = device.makeQueue()
    let routing = ExpertRouting(numExperts: 4, numUsed: 2, normalizes: true)
    let plan = try ExpertPlan(maxRows: 3, numExperts: 4, numUsed: 2, on: device).prefix(0)
    device.tensorKernels.route(try device.makeTensor(Shape(0, 4), .f32), bias: nil, routing: routing, plan: plan, load: nil, on: queue)
    #expect(plan.offsets.integers == [0, 0, 0, 0, 0])
  }

  @Test func `that cannot be routed are refused in words`() {
    func problem(_ routing: ExpertRouting) -> String { routing.problem ?? "" }
    #expect(problem(ExpertRouting(numExperts: 0, numUsed: 0, normalizes: true)) == "a layer has 1 to 1024 experts, not 0")
    #expect(problem(ExpertRouting(numExperts: 4, numUsed: 5, normalizes: true)) == "of 4 experts 5 cannot be used")
    let groups = { ExpertRouting.Groups(count: $0, used: $1, score: .best) }
    #expect(
      problem(ExpertRouting(numExperts: 8, numUsed: 2, normalizes: true, groups: groups(3, 1))) == "8 experts do not divide into 3 groups")
    #expect(problem(ExpertRouting(numExperts: 8, numUsed: 2, normalizes: true, groups: groups(4, 5))) == "of 4 groups 5 cannot be used")
    #expect(
      problem(ExpertRouting(numExperts: 8, numUsed: 3, normalizes: true, groups: groups(4, 1)))
        == "1 groups of 2 experts have fewer than the 3 that are used")
  }
}
