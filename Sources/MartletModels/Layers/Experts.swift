// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletCore

/// A feed-forward block of experts: y = Σⱼ wⱼ · expertⱼ(x) + shared(x), over the experts that the router chooses for the row.
///
/// What rows ask of experts is sorted by expert, so that each expert's weights are read once a step, and only those of experts that somebody chose.
public struct ExpertMLP {
  let description: ExpertDescription
  let router: Projection
  /// Added to scores for the choice only.
  let choiceBias: Tensor?
  let gateUp: [any PreparedWeight]
  let down: [any PreparedWeight]
  /// `[numExperts, 2 · width]` and `[numExperts, hiddenSize]`; nil = none.
  let gateUpBias, downBias: Tensor?
  let shared: GatedMLP?
  /// `[numExperts]`: multiplies what an expert counts; nil = 1.
  let factors: Tensor?
  /// int32 `[numExperts]`: how many rows each has computed, modulo 2³².
  let load: Tensor

  /// Reads `<prefix>.ffn_gate_inp`, the experts' `ffn_gate`, `ffn_up` and `ffn_down`, and those of the shared expert, with the suffix `_shexp`.
  /// - Parameter factors: float32 `[numExperts]`: multiplies what an expert counts, after the weights of the chosen were divided by their sum.
  public init(
    _ loader: inout WeightLoader, prefix: String, hiddenSize: Int, _ description: ExpertDescription, factors: Tensor? = nil
  ) throws {
    self.factors = factors
    let count = description.routing.numExperts, width = description.width
    self.description = description
    router = try loader.projection(
      [("\(prefix).ffn_gate_inp", count)], columns: hiddenSize, hasBias: description.hasBiases, chooses: true)
    choiceBias = try description.hasChoiceBias ? loader.vector(loader.floats("\(prefix).exp_probs_b.bias", count: count)) : nil
    gateUp = try loader.experts(
      ["\(prefix).ffn_gate", "\(prefix).ffn_up"], orOne: "\(prefix).ffn_gate_up", count: count, rows: width, columns: hiddenSize)
    down = try loader.experts(["\(prefix).ffn_down"], count: count, rows: hiddenSize, columns: width)
    if description.hasBiases {
      let gate = try loader.floats("\(prefix).ffn_gate_exps.bias", count: count * width)
      let up = try loader.floats("\(prefix).ffn_up_exps.bias", count: count * width)
      let both = (0..<count).flatMap { expert in [gate, up].flatMap { $0[expert * width..<(expert + 1) * width] } }
      gateUpBias = try loader.vector(both).reshaped(Shape(count, 2 * width))
      downBias = try loader.vector("\(prefix).ffn_down_exps.bias", count: count * hiddenSize).reshaped(Shape(count, hiddenSize))
    } else {
      gateUpBias = nil
      downBias = nil
    }
    load = try loader.device.makeTensor(Shape(count), .i32)
    shared = try description.sharedWidth.map {
      try GatedMLP(&loader, prefix: prefix, suffix: "_shexp", hiddenSize: hiddenSize, width: $0, activation: description.activation)
    }
  }

  /// - Parameter routerInput: what the router reads; nil = the same as the experts. `output` may be it.
  public func callAsFunction(
    _ input: Tensor, routedBy routerInput: Tensor? = nil, into output: Tensor, _ memory: StepMemory, on queue: any DeviceQueue,
    _ kernels: any TensorKernels
  ) {
    guard let experts = memory.experts else { fatalError("a layer with experts, and no memory for them") }
    let n = input.shape[0], entries = n * description.routing.numUsed, width = description.width, hiddenSize = input.shape[1]
    let scores = experts.scores.rows(n, columns: description.routing.numExperts)
    let plan = experts.plan(for: description.routing).prefix(n)
    let answers = experts.answers.rows(entries, columns: hiddenSize)
    let gateUp = experts.gateUp.rows(entries, columns: 2 * width)
    let activated = experts.activated.rows(entries, columns: width)

    router(routerInput ?? input, into: scores, on: queue, kernels)
    kernels.route(scores, bias: choiceBias, routing: description.routing, plan: plan, load: load, on: queue)
    if let factors {
      kernels.scaleRows(
        plan.weights.reshaped(Shape(entries, 1)), columns: 1, by: factors, rows: plan.experts.reshaped(Shape(entries)), on: queue)
    }
    kernels.expertProduct(input, isSorted: false, self.gateUp, plan: plan, output: gateUp, on: queue)
    if let gateUpBias { kernels.addExpertRows(gateUpBias, plan: plan, to: gateUp, on: queue) }
    kernels.gatedActivation(description.activation, gateUp: gateUp, output: activated, on: queue)
    kernels.expertProduct(activated, isSorted: true, down, plan: plan, output: answers, on: queue)
    if let downBias { kernels.addExpertRows(downBias, plan: plan, to: answers, on: queue) }
    kernels.combineExperts(answers, plan: plan, output: output, on: queue)
    if let shared {
      let added = experts.shared.rows(n, columns: hiddenSize)
      shared(input, into: added, memory, on: queue, kernels)
      kernels.add(added, to: output, on: queue)
    }
  }
}

/// The working memory of layers with experts, for the largest of them.
struct ExpertMemory {
  let scores: Tensor
  /// `[maxNumTokens · numUsed, hiddenSize]`: what experts answer.
  let answers: Tensor
  let gateUp: Tensor
  let activated: Tensor
  /// `[maxNumTokens, hiddenSize]`: what the shared expert adds.
  let shared: Tensor
  private let plans: [(routing: ExpertRouting, plan: ExpertPlan)]

  /// Rows and columns of what is made of floats.
  private struct Sizes {
    let scores, answers, gateUp, activated, shared: (rows: Int, columns: Int)

    init(_ experts: [ExpertDescription], hiddenSize: Int, maxNumTokens n: Int) {
      let width = experts.map { $0.routing.numUsed * $0.width }.max() ?? 1
      scores = (n, experts.map(\.routing.numExperts).max() ?? 1)
      answers = (n * (experts.map(\.routing.numUsed).max() ?? 1), hiddenSize)
      gateUp = (n, 2 * width)
      activated = (n, width)
      shared = (experts.contains { $0.sharedWidth != nil } ? n : 1, hiddenSize)
    }
  }

  /// The bytes of the floats, which are almost all; saturating. 0 where there are no experts.
  static func byteCount(_ experts: [ExpertDescription], hiddenSize: Int, maxNumTokens: Int) -> Int {
    if experts.isEmpty { return 0 }
    // Numbers from a file and an option: with so many tokens nothing overflows, and nothing fits either.
    let sizes = Sizes(experts, hiddenSize: hiddenSize, maxNumTokens: min(maxNumTokens, 1 << 24))
    return [sizes.scores, sizes.answers, sizes.gateUp, sizes.activated, sizes.shared].reduce(0) { sum, size in
      let (count, overflow) = size.rows.multipliedReportingOverflow(by: 4 * size.columns)
      let (total, carry) = sum.addingReportingOverflow(overflow ? .max : count)
      return carry ? .max : total
    }
  }

  init(_ experts: [ExpertDescription], hiddenSize: Int, in context: ModelContext) throws {
    let n = context.maxNumTokens, sizes = Sizes(experts, hiddenSize: hiddenSize, maxNumTokens: n)
    func make(_ size: (rows: Int, columns: Int)) throws -> Tensor {
      try context.makeStepTensor(Shape(max(size.rows, 1), max(size.columns, 1)))
    }
    scores = try make(sizes.scores)
    answers = try make(sizes.answers)
    gateUp = try make(sizes.gateUp)
    activated = try make(sizes.activated)
    shared = try make(sizes.shared)
    var plans: [(routing: ExpertRouting, plan: ExpertPlan)] = []
    for routing in experts.map(\.routing) where !plans.contains(where: { $0.routing == routing }) {
      plans.append(
        (routing, try ExpertPlan(maxRows: n, numExperts: routing.numExperts, numUsed: routing.numUsed, on: context.device)))
    }
    self.plans = plans
  }

  func plan(for routing: ExpertRouting) -> ExpertPlan {
    guard let plan = plans.first(where: { $0.routing == routing })?.plan else { fatalError("a routing that no layer was described with") }
    return plan
  }
}
