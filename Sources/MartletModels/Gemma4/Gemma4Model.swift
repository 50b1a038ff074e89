// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletAttention
import MartletCore

/// The model of ``Gemma4``.
final class Gemma4Model: LanguageModel {
  struct Layer {
    let attentionNorm: RMSNorm
    let attention: Gemma4Attention
    let postAttentionNorm: RMSNorm
    let feedForwardNorm: RMSNorm
    let feedForward: GatedMLP
    let experts: Gemma4Experts?
    let postFeedForwardNorm: RMSNorm
    let input: Gemma4LayerInput?
    /// Multiplies the layer's result, the residual stream included.
    let scale: Float
  }

  let configuration: ModelConfiguration
  let attention: [AttentionLayer]
  var expertLoads: [Tensor] { layers.compactMap(\.experts?.experts.load) }
  let vocabulary: Vocabulary
  let inputs: Gemma4Inputs?
  let layers: [Layer]
  let memory: StepMemory
  /// `[maxNumTokens, hiddenSize]` in a model with experts.
  let expertAnswer: Tensor
  let kernels: any TensorKernels

  func forward(tokens: Tensor, metadata: AttentionMetadata, on queue: any DeviceQueue) throws -> Tensor {
    let n = tokens.count
    let x = memory.hidden.prefix(n), normed = memory.normed.prefix(n), added = memory.added.prefix(n)
    vocabulary.embed(tokens, into: x, on: queue, kernels)
    inputs?(tokens, x, on: queue, kernels)
    for (index, layer) in layers.enumerated() {
      layer.attentionNorm(x, into: normed, on: queue, kernels)
      try layer.attention(normed, into: added, metadata: metadata, memory, on: queue, kernels)
      layer.postAttentionNorm(added, into: added, on: queue, kernels)
      kernels.add(added, to: x, on: queue)

      layer.feedForwardNorm(x, into: normed, on: queue, kernels)
      layer.feedForward(normed, into: added, memory, on: queue, kernels)
      layer.experts?(x, addingTo: added, normed: normed, answer: expertAnswer.prefix(n), memory, on: queue, kernels)
      layer.postFeedForwardNorm(added, into: added, on: queue, kernels)
      kernels.add(added, to: x, on: queue)

      if let input = layer.input, let inputs {
        input(x, inputs, layer: index, into: added, on: queue, kernels)
        kernels.add(added, to: x, on: queue)
      }
      if layer.scale != 1 { kernels.scale(x, by: layer.scale, softCap: nil, on: queue) }
    }
    return x
  }

  func logits(of hidden: Tensor, rows: Tensor, output: Tensor, on queue: any DeviceQueue) {
    vocabulary.logits(of: hidden, rows: rows, into: output, memory, on: queue, kernels)
  }

  init(_ description: Gemma4Description, _ loader: inout WeightLoader, in context: ModelContext) throws {
    let configuration = description.configuration, hiddenSize = configuration.hiddenSize
    let inputs =
      try description.inputSize == 0
      ? nil : Gemma4Inputs(&loader, configuration, size: description.inputSize, in: context)
    layers = try description.layers.enumerated().map { index, layer in
      let prefix = "blk.\(index)"
      func norm(_ name: String) throws -> RMSNorm {
        try loader.norm("\(prefix).\(name).weight", count: hiddenSize, epsilon: configuration.normEpsilon)
      }
      return Layer(
        attentionNorm: try norm("attn_norm"),
        attention: try Gemma4Attention(&loader, layer, prefix: prefix, configuration, in: context),
        postAttentionNorm: try norm("post_attention_norm"), feedForwardNorm: try norm("ffn_norm"),
        feedForward: try GatedMLP(
          &loader, prefix: prefix, hiddenSize: hiddenSize, width: layer.feedForwardSize, activation: .geluTanh),
        experts: try description.experts.map { try Gemma4Experts(&loader, prefix: prefix, configuration, $0) },
        postFeedForwardNorm: try norm("post_ffw_norm"),
        input: try inputs.map { try Gemma4LayerInput(&loader, prefix: prefix, configuration, size: $0.size) },
        scale: try loader.floats("\(prefix).layer_output_scale.weight", count: 1)[0])
    }
    attention = layers.compactMap { $0.attention.sharesCache ? nil : $0.attention.layer }
    self.inputs = inputs
    vocabulary = try Vocabulary(
      &loader, configuration: configuration, embeddingScale: Float(hiddenSize).squareRoot(), logitCap: description.logitCap)
    try loader.finish()
    self.configuration = configuration
    memory = try StepMemory(
      configuration, layers: description.layers.map(\.attention), widths: description.layers.map(\.feedForwardSize),
      experts: description.experts.map { [$0] } ?? [], in: context)
    expertAnswer = try context.device.makeTensor(Shape(description.experts == nil ? 0 : context.maxNumTokens, hiddenSize), .f32)
    kernels = context.device.tensorKernels
  }
}

/// Attention whose values are normalised without a weight, and which may read another layer's cache.
struct Gemma4Attention {
  let layer: AttentionLayer
  let sharesCache: Bool
  /// W_q, or W_q, W_k and W_v; where keys serve as values, W_k once more.
  let projection: Projection
  let output: Projection
  /// Ones: the norm of values has no weight.
  let valueNorm: RMSNorm

  init(
    _ loader: inout WeightLoader, _ description: Gemma4Description.Layer, prefix: String, _ configuration: ModelConfiguration,
    in context: ModelContext
  ) throws {
    let spec = description.attention
    layer = try AttentionLayer(spec, backend: context.attentionBackend, in: context.attention)
    sharesCache = description.sharesCache
    let value = description.keysAreValues ? "\(prefix).attn_k" : "\(prefix).attn_v"
    projection = try loader.projection(
      [("\(prefix).attn_q", spec.queryWidth)]
        + (sharesCache ? [] : [("\(prefix).attn_k", spec.keyWidth), (value, spec.valueWidth)]), columns: configuration.hiddenSize)
    output = try loader.projection("\(prefix).attn_output", rows: configuration.hiddenSize, columns: spec.outputWidth)
    valueNorm = RMSNorm(
      weight: try loader.vector([Float](repeating: 1, count: spec.valueHeadDim)), epsilon: configuration.normEpsilon)
  }

  func callAsFunction(
    _ input: Tensor, into output: Tensor, metadata: AttentionMetadata, _ memory: StepMemory, on queue: any DeviceQueue,
    _ kernels: any TensorKernels
  ) throws {
    let n = input.shape[0], spec = layer.spec
    let attended = memory.attended(n, columns: spec.outputWidth)
    let projected = memory.qkv(n, columns: sharesCache ? spec.queryWidth : spec.fusedWidth)
    projection(input, into: projected, on: queue, kernels)
    if !sharesCache {
      // Until attention writes there, its output has room for the values, which are no more.
      let values = attended.rows(n * spec.numKVHeads, columns: spec.valueHeadDim)
      let inProjected = HeadPlace(
        projected, column: spec.queryWidth + spec.keyWidth, rowStride: spec.fusedWidth, headStride: spec.valueHeadDim)
      let apart = HeadPlace(values, rowStride: spec.valueWidth, headStride: spec.valueHeadDim)
      kernels.copyHeads(inProjected, to: apart, rows: n, heads: spec.numKVHeads, width: spec.valueHeadDim, on: queue)
      valueNorm(values, into: values, on: queue, kernels)
      kernels.copyHeads(apart, to: inProjected, rows: n, heads: spec.numKVHeads, width: spec.valueHeadDim, on: queue)
    }
    let inputs = sharesCache ? AttentionInputs(queries: projected) : AttentionInputs(fusedQKV: projected)
    try layer.forward(inputs, metadata: metadata, output: AttentionOutput(values: attended), on: queue)
    self.output(attended, into: output, on: queue, kernels)
  }
}

/// Experts beside the dense block: the dense answer becomes its norm, and the norm of the experts' is added.
struct Gemma4Experts {
  let routerNorm: RMSNorm
  let inputNorm: RMSNorm
  let experts: ExpertMLP
  let postDenseNorm: RMSNorm
  let postExpertsNorm: RMSNorm

  init(_ loader: inout WeightLoader, prefix: String, _ configuration: ModelConfiguration, _ description: ExpertDescription) throws {
    let hiddenSize = configuration.hiddenSize, epsilon = configuration.normEpsilon
    func norm(_ name: String) throws -> RMSNorm { try loader.norm("\(prefix).\(name).weight", count: hiddenSize, epsilon: epsilon) }
    let scale = try loader.floats("\(prefix).ffn_gate_inp.scale", count: hiddenSize), root = 1 / Float(hiddenSize).squareRoot()
    routerNorm = RMSNorm(weight: try loader.vector(scale.map { $0 * root }), epsilon: epsilon)
    inputNorm = try norm("pre_ffw_norm_2")
    // Of matrices in NVFP4 llama.cpp's converter multiplies them into the matrices' own factors, which have the same name.
    let scales = "\(prefix).ffn_down_exps.scale",
      isFolded = !loader.has(scales) && loader.format(of: "\(prefix).ffn_down_exps.weight") == .nvfp4
    let factors = try isFolded ? nil : loader.vector(loader.floats(scales, count: description.routing.numExperts))
    experts = try ExpertMLP(&loader, prefix: prefix, hiddenSize: hiddenSize, description, factors: factors)
    postDenseNorm = try norm("post_ffw_norm_1")
    postExpertsNorm = try norm("post_ffw_norm_2")
  }

  /// - Parameters:
  ///   - x: the residual stream.
  ///   - added: what the dense block answered.
  ///   - normed, answer: room for `[n, hiddenSize]` each.
  func callAsFunction(
    _ x: Tensor, addingTo added: Tensor, normed: Tensor, answer: Tensor, _ memory: StepMemory, on queue: any DeviceQueue,
    _ kernels: any TensorKernels
  ) {
    postDenseNorm(added, into: added, on: queue, kernels)
    routerNorm(x, into: answer, on: queue, kernels)
    inputNorm(x, into: normed, on: queue, kernels)
    experts(normed, routedBy: answer, into: answer, memory, on: queue, kernels)
    postExpertsNorm(answer, into: answer, on: queue, kernels)
    kernels.add(answer, to: added, on: queue)
  }
}

/// What each layer is given of a token beside the residual stream.
struct Gemma4Inputs {
  let size: Int
  let embedding: Projection
  let projection: Projection
  let norm: RMSNorm
  /// Multiplies what is projected from the residual stream.
  let projectionScale: Float
  /// `[maxNumTokens, layers · size]`.
  let values: Tensor
  private let projected: Tensor
  /// `[maxNumTokens, size]`, and twice as wide.
  let gate: Tensor, gateUp: Tensor

  init(_ loader: inout WeightLoader, _ configuration: ModelConfiguration, size: Int, in context: ModelContext) throws {
    let width = configuration.numLayers * size, n = context.maxNumTokens
    self.size = size
    embedding = try loader.projection("per_layer_token_embd", rows: configuration.vocabularySize, columns: width)
    projection = try loader.projection("per_layer_model_proj", rows: width, columns: configuration.hiddenSize)
    norm = try loader.norm("per_layer_proj_norm.weight", count: size, epsilon: configuration.normEpsilon)
    projectionScale = 1 / Float(configuration.hiddenSize).squareRoot()
    func make(_ columns: Int) throws -> Tensor { try context.device.makeTensor(Shape(n, columns), .f32) }
    values = try make(width)
    projected = try make(width)
    gate = try make(size)
    gateUp = try make(2 * size)
  }

  /// (norm(W · x / √hiddenSize) + √size · embed(token)) / √2
  func callAsFunction(_ tokens: Tensor, _ x: Tensor, on queue: any DeviceQueue, _ kernels: any TensorKernels) {
    let n = tokens.count, values = values.prefix(n), projected = projected.prefix(n)
    kernels.embed(tokens: tokens, weight: embedding.weight, scale: Float(size).squareRoot(), output: values, on: queue)
    projection(x, into: projected, on: queue, kernels)
    kernels.scale(projected, by: projectionScale, softCap: nil, on: queue)
    let parts = projected.rows(projected.count / size, columns: size)
    norm(parts, into: parts, on: queue, kernels)
    kernels.add(projected, to: values, on: queue)
    kernels.scale(values, by: Float(0.5).squareRoot(), softCap: nil, on: queue)
  }
}

/// What a layer makes of its own input: norm(W_b · (gelu(W_a · x) ⊙ p)).
struct Gemma4LayerInput {
  let gate: Projection
  let projection: Projection
  let norm: RMSNorm

  init(_ loader: inout WeightLoader, prefix: String, _ configuration: ModelConfiguration, size: Int) throws {
    gate = try loader.projection("\(prefix).inp_gate", rows: size, columns: configuration.hiddenSize)
    projection = try loader.projection("\(prefix).proj", rows: configuration.hiddenSize, columns: size)
    norm = try loader.norm("\(prefix).post_norm.weight", count: configuration.hiddenSize, epsilon: configuration.normEpsilon)
  }

  func callAsFunction(
    _ x: Tensor, _ inputs: Gemma4Inputs, layer: Int, into output: Tensor, on queue: any DeviceQueue, _ kernels: any TensorKernels
  ) {
    let n = x.shape[0], size = inputs.size
    let gate = inputs.gate.prefix(n), gateUp = inputs.gateUp.prefix(n), width = inputs.values.shape[1]
    self.gate(x, into: gate, on: queue, kernels)
    kernels.copyHeads(
      HeadPlace(gate, rowStride: size, headStride: 0), to: HeadPlace(gateUp, rowStride: 2 * size, headStride: 0), rows: n, heads: 1,
      width: size, on: queue)
    kernels.copyHeads(
      HeadPlace(inputs.values, column: layer * size, rowStride: width, headStride: 0),
      to: HeadPlace(gateUp, column: size, rowStride: 2 * size, headStride: 0), rows: n, heads: 1, width: size, on: queue)
    kernels.gatedActivation(.geluTanh, gateUp: gateUp, output: gate, on: queue)
    projection(gate, into: output, on: queue, kernels)
    norm(output, into: output, on: queue, kernels)
  }
}
