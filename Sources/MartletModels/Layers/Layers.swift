// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletAttention
import MartletCore

// The pieces of which every decoder is made. Each holds its weights and writes into memory that the caller hands in.

/// y = x / √(mean(x²) + ε) · weight, row by row.
struct RMSNorm {
  let weight: Tensor
  let epsilon: Float

  func callAsFunction(_ input: Tensor, into output: Tensor, on queue: any DeviceQueue, _ kernels: any TensorKernels) {
    kernels.rmsNorm(input, weight: weight, epsilon: epsilon, output: output, on: queue)
  }
}

/// y = x · Wᵀ + b, for one weight or several that are stacked by rows; most have no b.
struct Projection {
  let weight: any PreparedWeight
  let bias: Tensor?

  func callAsFunction(_ input: Tensor, into output: Tensor, on queue: any DeviceQueue, _ kernels: any TensorKernels) {
    kernels.product(input, weight, output: output, on: queue)
    if let bias { kernels.addRow(bias, to: output, on: queue) }
  }
}

/// y = W_down · (activation(W_gate · x) ⊙ (W_up · x)).
struct GatedMLP {
  let activation: GatedActivation
  let gateUp: Projection
  let down: Projection

  init(
    _ loader: inout WeightLoader, layer: Int, configuration: ModelConfiguration, activation: GatedActivation
  ) throws {
    let prefix = "blk.\(layer)"
    self.activation = activation
    gateUp = try loader.projection(
      [("\(prefix).ffn_gate", configuration.feedForwardSize), ("\(prefix).ffn_up", configuration.feedForwardSize)],
      columns: configuration.hiddenSize)
    down = try loader.projection(
      "\(prefix).ffn_down", rows: configuration.hiddenSize, columns: configuration.feedForwardSize)
  }

  func callAsFunction(_ input: Tensor, into output: Tensor, _ memory: StepMemory, on queue: any DeviceQueue, _ kernels: any TensorKernels) {
    let n = input.shape[0]
    let gateUp = memory.gateUp.prefix(n)  // [n, 2·feedForwardSize]
    let activated = memory.activated.prefix(n)  // [n, feedForwardSize]
    self.gateUp(input, into: gateUp, on: queue, kernels)
    kernels.gatedActivation(activation, gateUp: gateUp, output: activated, on: queue)
    down(activated, into: output, on: queue, kernels)
  }
}

/// y = W_o · attention(W_qkv · x + b_qkv): q/k norm, positions and the cache are the attention layer's business.
struct SelfAttention {
  let layer: AttentionLayer
  let qkv: Projection
  let output: Projection

  /// - Parameter hasBias: whether queries, keys and values have biases.
  init(
    _ loader: inout WeightLoader, spec: AttentionLayerSpec, configuration: ModelConfiguration, hasBias: Bool = false,
    in context: ModelContext
  ) throws {
    let prefix = "blk.\(spec.layerIndex)"
    layer = try AttentionLayer(spec, backend: context.attentionBackend, in: context.attention)
    qkv = try loader.projection(
      [
        ("\(prefix).attn_q", spec.queryWidth), ("\(prefix).attn_k", spec.keyWidth),
        ("\(prefix).attn_v", spec.valueWidth),
      ], columns: configuration.hiddenSize, hasBias: hasBias)
    output = try loader.projection("\(prefix).attn_output", rows: configuration.hiddenSize, columns: spec.outputWidth)
  }

  func callAsFunction(
    _ input: Tensor, into output: Tensor, metadata: AttentionMetadata, _ memory: StepMemory, on queue: any DeviceQueue,
    _ kernels: any TensorKernels
  ) throws {
    let n = input.shape[0]
    let qkv = memory.qkv.prefix(n)  // [n, queryWidth + keyWidth + valueWidth]
    let attended = memory.attended.prefix(n)  // [n, outputWidth]
    self.qkv(input, into: qkv, on: queue, kernels)
    try layer.forward(AttentionInputs(fusedQKV: qkv), metadata: metadata, output: AttentionOutput(values: attended), on: queue)
    self.output(attended, into: output, on: queue, kernels)
  }
}

/// The token embedding and its counterpart at the end, which many models share.
struct Vocabulary {
  let embedding: Projection
  /// Multiplies embeddings.
  let scale: Float
  let norm: RMSNorm
  let output: Projection

  init(_ loader: inout WeightLoader, configuration: ModelConfiguration, scale: Float = 1) throws {
    let rows = configuration.vocabularySize
    let columns = configuration.hiddenSize
    embedding = try loader.projection("token_embd", rows: rows, columns: columns)
    self.scale = scale
    norm = try loader.norm("output_norm.weight", count: columns, epsilon: configuration.normEpsilon)
    if try loader.source.sharesEmbedding() {
      output = embedding
      try loader.skip("output.weight")
    } else {
      output = try loader.projection("output", rows: rows, columns: columns)
    }
  }

  func embed(_ tokens: Tensor, into output: Tensor, on queue: any DeviceQueue, _ kernels: any TensorKernels) {
    kernels.embed(tokens: tokens, weight: embedding.weight, scale: scale, output: output, on: queue)
  }

  func logits(
    of hidden: Tensor, rows: Tensor, into output: Tensor, _ memory: StepMemory, on queue: any DeviceQueue, _ kernels: any TensorKernels
  ) {
    let chosen = memory.chosen.prefix(rows.count)
    kernels.gatherRows(hidden, rows: rows, output: chosen, on: queue)
    norm(chosen, into: chosen, on: queue, kernels)
    self.output(chosen, into: output, on: queue, kernels)
  }
}

/// A model's working memory for one step, made once for the largest.
struct StepMemory {
  /// `[maxNumTokens, hiddenSize]`: the residual stream.
  let hidden: Tensor
  /// `[maxNumTokens, hiddenSize]`: what a block reads.
  let normed: Tensor
  /// `[maxNumTokens, hiddenSize]`: what a block adds.
  let added: Tensor
  let qkv: Tensor
  let attended: Tensor
  let gateUp: Tensor
  let activated: Tensor
  /// `[maxLogitRows, hiddenSize]`.
  let chosen: Tensor

  init(_ configuration: ModelConfiguration, layers: [AttentionLayerSpec], in context: ModelContext) throws {
    let n = context.maxNumTokens
    func make(_ columns: Int, rows: Int? = nil) throws -> Tensor { try context.device.makeTensor(Shape(rows ?? n, columns), .f32) }
    hidden = try make(configuration.hiddenSize)
    normed = try make(configuration.hiddenSize)
    added = try make(configuration.hiddenSize)
    qkv = try make(layers.map(\.fusedWidth).max() ?? 1)
    attended = try make(layers.map(\.outputWidth).max() ?? 1)
    gateUp = try make(2 * configuration.feedForwardSize)
    activated = try make(configuration.feedForwardSize)
    chosen = try make(configuration.hiddenSize, rows: context.maxLogitRows)
  }
}
