// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletCore

/// A feed-forward block of experts: y = Σⱼ wⱼ · expertⱼ(x) + shared(x), over the experts that the router chooses for the row.
///
/// Rows are sorted by expert, so that each expert's weights are read once a step, and only those of experts that somebody chose.
public struct ExpertMLP {
  let description: ExpertDescription
  let router: Projection
  /// Added to scores for the choice only.
  let choiceBias: Tensor?
  let gateUp: [any PreparedWeight]
  let down: [any PreparedWeight]
  let shared: GatedMLP?
  /// `[numExperts]`: multiplies what an expert counts; nil = 1.
  let factors: Tensor?

  /// Reads `<prefix>.ffn_gate_inp`, the experts' `ffn_gate`, `ffn_up` and `ffn_down`, and those of the shared expert, with the suffix `_shexp`.
  /// - Parameter factors: float32 `[numExperts]`: multiplies what an expert counts, after the weights of the chosen were divided by their sum.
  public init(
    _ loader: inout WeightLoader, prefix: String, hiddenSize: Int, _ description: ExpertDescription, factors: Tensor? = nil
  ) throws {
    self.factors = factors
    let count = description.routing.numExperts, width = description.width
    self.description = description
    router = try loader.projection("\(prefix).ffn_gate_inp", rows: count, columns: hiddenSize)
    choiceBias = try description.hasChoiceBias ? loader.vector(loader.floats("\(prefix).exp_probs_b.bias", count: count)) : nil
    gateUp = try loader.experts(
      ["\(prefix).ffn_gate", "\(prefix).ffn_up"], orOne: "\(prefix).ffn_gate_up", count: count, rows: width, columns: hiddenSize)
    down = try loader.experts(["\(prefix).ffn_down"], count: count, rows: hiddenSize, columns: width)
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
    let gathered = experts.gathered.rows(entries, columns: hiddenSize)
    let gateUp = experts.gateUp.rows(entries, columns: 2 * width)
    let activated = experts.activated.rows(entries, columns: width)

    router(routerInput ?? input, into: scores, on: queue, kernels)
    kernels.route(scores, bias: choiceBias, routing: description.routing, plan: plan, on: queue)
    if let factors {
      kernels.scaleRows(
        plan.weights.reshaped(Shape(entries, 1)), columns: 1, by: factors, rows: plan.experts.reshaped(Shape(entries)), on: queue)
    }
    kernels.gatherRows(input, rows: plan.rows, output: gathered, on: queue)
    kernels.expertProduct(gathered, self.gateUp, plan: plan, output: gateUp, on: queue)
    kernels.gatedActivation(description.activation, gateUp: gateUp, output: activated, on: queue)
    kernels.expertProduct(activated, down, plan: plan, output: gathered, on: queue)
    kernels.combineExperts(gathered, plan: plan, output: output, on: queue)
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
  /// `[maxNumTokens · numUsed, hiddenSize]`: what experts read, and after that what they answer.
  let gathered: Tensor
  let gateUp: Tensor
  let activated: Tensor
  /// `[maxNumTokens, hiddenSize]`: what the shared expert adds.
  let shared: Tensor
  private let plans: [(routing: ExpertRouting, plan: ExpertPlan)]

  init(_ experts: [ExpertDescription], hiddenSize: Int, in context: ModelContext) throws {
    let n = context.maxNumTokens
    func make(_ rows: Int, _ columns: Int) throws -> Tensor { try context.device.makeTensor(Shape(max(rows, 1), max(columns, 1)), .f32) }
    let most = experts.map(\.routing.numUsed).max() ?? 1, width = experts.map { $0.routing.numUsed * $0.width }.max() ?? 1
    scores = try make(n, experts.map(\.routing.numExperts).max() ?? 1)
    gathered = try make(n * most, hiddenSize)
    gateUp = try make(n, 2 * width)
    activated = try make(n, width)
    shared = try make(experts.contains { $0.sharedWidth != nil } ? n : 1, hiddenSize)
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
