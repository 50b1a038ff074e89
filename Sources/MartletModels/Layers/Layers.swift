// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletAttention
public import MartletCore

// The pieces of which models are made. Each holds its weights and writes into memory that the caller hands in.

/// y = x / √(mean(x²) + ε) · weight, row by row.
public struct RMSNorm {
  public let weight: Tensor
  public let epsilon: Float

  public func callAsFunction(_ input: Tensor, into output: Tensor, on queue: any DeviceQueue, _ kernels: any TensorKernels) {
    kernels.rmsNorm(input, weight: weight, epsilon: epsilon, output: output, on: queue)
  }

  /// y as what a product reads: it is made on the way.
  public func of(_ input: Tensor) -> ProductInput { .normalized(input, weight: weight, epsilon: epsilon) }
}

/// y = (x − mean(x)) / √(variance(x) + ε) · weight + bias, row by row.
public struct LayerNorm {
  public let weight: Tensor
  public let bias: Tensor
  public let epsilon: Float

  public func callAsFunction(_ input: Tensor, into output: Tensor, on queue: any DeviceQueue, _ kernels: any TensorKernels) {
    kernels.layerNorm(input, weight: weight, bias: bias, epsilon: epsilon, output: output, on: queue)
  }
}

/// y = x · Wᵀ + b, for one weight or several that are stacked by rows; most have no b.
public struct Projection {
  public let weight: any PreparedWeight
  public let bias: Tensor?

  public func callAsFunction(_ input: Tensor, into output: Tensor, on queue: any DeviceQueue, _ kernels: any TensorKernels) {
    self(.rows(input), into: ProductOutput(output), on: queue, kernels)
  }

  /// - Parameter output: without a bias: this one's is added.
  public func callAsFunction(_ input: ProductInput, into output: ProductOutput, on queue: any DeviceQueue, _ kernels: any TensorKernels) {
    var output = output
    output.bias = bias
    kernels.product(input, weight, output: output, on: queue)
  }
}

/// y = W_down · (activation(W_gate · x) ⊙ (W_up · x)).
public struct GatedMLP {
  public let activation: GatedActivation
  /// Values between the two products.
  public let width: Int
  public let gateUp: Projection
  public let down: Projection

  /// Reads `<prefix>.ffn_gate`, `.ffn_up` and `.ffn_down`, each with the suffix. A file whose `ffn_up` has the rows of both and no `ffn_gate` has the
  /// gate's first.
  public init(
    _ loader: inout WeightLoader, prefix: String, suffix: String = "", hiddenSize: Int, width: Int, activation: GatedActivation
  ) throws {
    self.activation = activation
    self.width = width
    gateUp = try loader.projection(
      ["gate", "up"].map { (name: "\(prefix).ffn_\($0)\(suffix)", rows: width) }, orOne: "\(prefix).ffn_up\(suffix)", columns: hiddenSize)
    down = try loader.projection("\(prefix).ffn_down\(suffix)", rows: hiddenSize, columns: width)
  }

  public func callAsFunction(
    _ input: Tensor, into output: Tensor, _ memory: StepMemory, on queue: any DeviceQueue, _ kernels: any TensorKernels
  ) {
    self(.rows(input), into: ProductOutput(output), memory, on: queue, kernels)
  }

  public func callAsFunction(
    _ input: ProductInput, into output: ProductOutput, _ memory: StepMemory, on queue: any DeviceQueue, _ kernels: any TensorKernels
  ) {
    let gateUp = memory.gateUp(input.rowCount, columns: 2 * width)  // [n, 2·width]
    self.gateUp(input, into: ProductOutput(gateUp), on: queue, kernels)
    down(.gated(activation, gateUp: gateUp), into: output, on: queue, kernels)
  }
}

/// y = W_o · attention(W_qkv · x + b_qkv) + b_o: q/k norm, positions and the cache are the attention layer's business.
public struct SelfAttention {
  public let layer: AttentionLayer
  public let qkv: Projection
  public let output: Projection
  /// `[positions]`: multiplies the queries at each position; nil = 1.
  let queryFactors: Tensor?
  /// Which keys a query sees.
  let mask: AttentionMask

  /// Reads `blk.<layer>.attn_q`, `.attn_k` and `.attn_v`, or `.attn_qkv` with the rows of all three, and `.attn_output`.
  ///
  /// - Parameters:
  ///   - queryFactors: multiplies the queries at each position, which is the same before rotation and after it; nil = 1.
  ///   - mask: which keys a query sees.
  public init(
    _ loader: inout WeightLoader, spec: AttentionLayerSpec, configuration: ModelConfiguration, biases: ProjectionBiases = [],
    queryFactors: Tensor? = nil, mask: AttentionMask = .causal, in context: ModelContext
  ) throws {
    let prefix = "blk.\(spec.layerIndex)"
    layer = try AttentionLayer(spec, backend: context.attentionBackend, in: context.attention)
    qkv = try loader.projection(
      [
        ("\(prefix).attn_q", spec.queryWidth), ("\(prefix).attn_k", spec.keyWidth), ("\(prefix).attn_v", spec.valueWidth),
      ], orOne: "\(prefix).attn_qkv", columns: configuration.hiddenSize, hasBias: biases.contains(.queryKeyValue))
    output = try loader.projection(
      [("\(prefix).attn_output", configuration.hiddenSize)], columns: spec.outputWidth, hasBias: biases.contains(.output))
    self.queryFactors = queryFactors
    self.mask = mask
  }

  public func callAsFunction(
    _ input: Tensor, into output: Tensor, metadata: AttentionMetadata, _ memory: StepMemory, on queue: any DeviceQueue,
    _ kernels: any TensorKernels
  ) throws {
    try self(.rows(input), into: ProductOutput(output), metadata: metadata, memory, on: queue, kernels)
  }

  public func callAsFunction(
    _ input: ProductInput, into output: ProductOutput, metadata: AttentionMetadata, _ memory: StepMemory, on queue: any DeviceQueue,
    _ kernels: any TensorKernels
  ) throws {
    let n = input.rowCount
    let spec = layer.spec
    let qkv = memory.qkv(n, columns: spec.fusedWidth)  // [n, queryWidth + keyWidth + valueWidth]
    let attended = memory.attended(n, columns: spec.outputWidth)  // [n, outputWidth]
    self.qkv(input, into: ProductOutput(qkv), on: queue, kernels)
    if let queryFactors {
      kernels.scaleRows(qkv, columns: spec.queryWidth, by: queryFactors, rows: metadata.ragged.firstPositionIDs, on: queue)
    }
    try layer.forward(AttentionInputs(fusedQKV: qkv, mask: mask), metadata: metadata, output: AttentionOutput(values: attended), on: queue)
    self.output(.rows(attended), into: output, on: queue, kernels)
  }
}

/// The token embedding and its counterpart at the end, which many models share.
public struct Vocabulary {
  public let embedding: Projection
  /// Multiplies embeddings.
  public let embeddingScale: Float
  public let norm: RMSNorm
  public let output: Projection
  /// Multiplies logits.
  public let logitScale: Float
  /// cap · tanh(logit / cap) on scaled logits; nil = none.
  public let logitCap: Float?

  /// Reads `token_embd`, `output_norm` and, if it is not the embedding once more, `output`.
  /// - Parameter makesLogits: false where nobody will ask for logits: the output matrix is then left in its file.
  public init(
    _ loader: inout WeightLoader, configuration: ModelConfiguration, embeddingScale: Float = 1, logitScale: Float = 1,
    logitCap: Float? = nil, makesLogits: Bool = true
  ) throws {
    let rows = configuration.vocabularySize
    let columns = configuration.hiddenSize
    embedding = try loader.projection("token_embd", rows: rows, columns: columns)
    norm = try loader.norm("output_norm.weight", count: columns, epsilon: configuration.normEpsilon)
    if try !makesLogits || loader.source.sharesEmbedding() {
      output = embedding
      try loader.skip("output.weight")
    } else {
      output = try loader.projection("output", rows: rows, columns: columns)
    }
    self.embeddingScale = embeddingScale
    self.logitScale = logitScale
    self.logitCap = logitCap
  }

  public func embed(_ tokens: Tensor, into output: Tensor, on queue: any DeviceQueue, _ kernels: any TensorKernels) {
    kernels.embed(tokens: tokens, weight: embedding.weight, scale: embeddingScale, output: output, on: queue)
  }

  public func logits(
    of hidden: Tensor, rows: Tensor, into output: Tensor, _ memory: StepMemory, on queue: any DeviceQueue, _ kernels: any TensorKernels
  ) {
    let chosen = memory.chosen.prefix(rows.count)
    kernels.gatherRows(hidden, rows: rows, output: chosen, on: queue)
    norm(chosen, into: chosen, on: queue, kernels)
    self.output(chosen, into: output, on: queue, kernels)
    if logitScale != 1 || logitCap != nil { kernels.scale(output, by: logitScale, softCap: logitCap, on: queue) }
  }
}

/// A model's working memory for one step, made once for the largest.
public struct StepMemory {
  /// `[maxNumTokens, hiddenSize]`: the residual stream.
  public let hidden: Tensor
  /// `[maxNumTokens, hiddenSize]`: what a block reads.
  public let normed: Tensor
  /// `[maxNumTokens, hiddenSize]`: what a block adds.
  public let added: Tensor
  private let qkv: Tensor
  private let attended: Tensor
  private let gateUp: Tensor
  /// `[maxLogitRows, hiddenSize]`.
  let chosen: Tensor
  /// For layers with experts.
  let experts: ExpertMemory?
  /// For layers of latent attention.
  let latent: LatentMemory?

  /// - Parameters:
  ///   - widths: of the feed-forward blocks that compute every row.
  ///   - experts: the layers with experts, of which one is computed at a time.
  public init(
    _ configuration: ModelConfiguration, layers: [AttentionLayerSpec], widths: [Int], experts: [ExpertDescription] = [],
    in context: ModelContext
  ) throws {
    let n = context.maxNumTokens
    func make(_ columns: Int) throws -> Tensor { try context.makeStepTensor(Shape(n, columns)) }
    hidden = try make(configuration.hiddenSize)
    normed = try make(configuration.hiddenSize)
    added = try make(configuration.hiddenSize)
    let latentLayer = layers.first { $0.mla != nil }
    enforce(
      layers.allSatisfy {
        $0.mla == nil
          || $0.mla == latentLayer?.mla && $0.numHeads == latentLayer?.numHeads && $0.scale == latentLayer?.scale
            && $0.positionalEmbedding == latentLayer?.positionalEmbedding
      },
      "layers of latent attention of several sizes, scales or positions")
    latent = try latentLayer.flatMap { layer in try layer.mla.map { try LatentMemory(layer, $0, in: context) } }
    let plain = layers.filter { $0.mla == nil }
    qkv = try make(plain.map(\.fusedWidth).max() ?? 1)
    attended = try make(plain.map(\.outputWidth).max() ?? 1)
    gateUp = try make(2 * (widths.max() ?? 1))
    chosen = try context.device.makeTensor(Shape(context.maxLogitRows, configuration.hiddenSize), .f32)
    self.experts = try experts.isEmpty ? nil : ExpertMemory(experts, hiddenSize: configuration.hiddenSize, in: context)
  }

  /// The first n rows of a layer's queries, keys and values, whose widths may differ from layer to layer.
  func qkv(_ n: Int, columns: Int) -> Tensor { rows(n, columns, of: qkv) }
  func attended(_ n: Int, columns: Int) -> Tensor { rows(n, columns, of: attended) }

  /// What lies between the products of a feed-forward block.
  func gateUp(_ n: Int, columns: Int) -> Tensor { rows(n, columns, of: gateUp) }

  private func rows(_ n: Int, _ columns: Int, of memory: Tensor) -> Tensor { memory.rows(n, columns: columns) }
}

extension Tensor {
  /// The beginning of this memory as n rows.
  func rows(_ n: Int, columns: Int) -> Tensor { reshaped(Shape(count)).prefix(n * columns).reshaped(Shape(n, columns)) }
}
