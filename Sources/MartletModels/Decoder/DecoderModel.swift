// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletLibc
public import MartletAttention
public import MartletCore

/// The model that most decoders are, by their description.
///
/// ```
/// x = embeddingScale · embed(token)
/// for each layer:
///   x += residualScale · norm(attention(norm(x)))
///   x += residualScale · norm(feedForward(norm(x)))
/// logits = cap(logitScale · W_out · norm(x))
/// ```
///
/// Each outer norm is there if the layer has post norms; multipliers are 1 and the cap is none unless the description says otherwise. A decoder that
/// was made with a pooling has no output matrix: its answer is a vector of the states after the last norm.
public final class DecoderModel: LanguageModel, EmbeddingModel {
  struct Layer {
    let attentionNorm: RMSNorm
    let attention: AttentionBlock
    let postAttentionNorm: RMSNorm?
    let feedForwardNorm: RMSNorm
    let feedForward: FeedForwardBlock
    let postFeedForwardNorm: RMSNorm?
  }

  public let configuration: ModelConfiguration
  let vocabulary: Vocabulary
  let layers: [Layer]
  let residualScale: Float
  public let mask: AttentionMask
  /// nil where the model writes text.
  let head: PoolingHead?
  let memory: StepMemory
  let kernels: any TensorKernels

  public var attention: [AttentionLayer] { layers.map(\.attention.layer) }

  public var expertLoads: [Tensor] { layers.compactMap { if case .experts(let experts) = $0.feedForward { experts.load } else { nil } } }

  public func forward(tokens: Tensor, metadata: AttentionMetadata, on queue: any DeviceQueue) throws -> Tensor {
    let n = tokens.count
    let x = memory.hidden.prefix(n)
    let normed = memory.normed.prefix(n)
    let added = memory.added.prefix(n)

    vocabulary.embed(tokens, into: x, on: queue, kernels)
    /// x += residualScale · postNorm(block(norm(x))); a block that can adds to x itself.
    func add(_ block: (ProductOutput) throws -> Void, _ postNorm: RMSNorm?, addsItself: Bool) rethrows {
      if addsItself && postNorm == nil { return try block(.adding(to: x, scaledBy: residualScale)) }
      try block(ProductOutput(added))
      postNorm?(added, into: added, on: queue, kernels)
      kernels.add(added, scaledBy: residualScale, to: x, on: queue)
    }
    for layer in layers {
      switch layer.attention {
      case .plain(let attention):
        try add(
          { try attention(layer.attentionNorm.of(x), into: $0, metadata: metadata, memory, on: queue, kernels) },
          layer.postAttentionNorm, addsItself: true)
      case .latent(let attention):
        layer.attentionNorm(x, into: normed, on: queue, kernels)
        try add(
          { try attention(normed, into: $0.tensor, metadata: metadata, memory, on: queue, kernels) },
          layer.postAttentionNorm, addsItself: false)
      }
      switch layer.feedForward {
      case .gated(let mlp):
        add({ mlp(layer.feedForwardNorm.of(x), into: $0, memory, on: queue, kernels) }, layer.postFeedForwardNorm, addsItself: true)
      case .experts(let mlp):
        layer.feedForwardNorm(x, into: normed, on: queue, kernels)
        add({ mlp(normed, into: $0.tensor, memory, on: queue, kernels) }, layer.postFeedForwardNorm, addsItself: false)
      }
    }
    return x
  }

  public func logits(of hidden: Tensor, rows: Tensor, output: Tensor, on queue: any DeviceQueue) {
    vocabulary.logits(of: hidden, rows: rows, into: output, memory, on: queue, kernels)
  }

  public var embeddingSize: Int { head?.width ?? configuration.hiddenSize }

  public func embed(tokens: Tensor, metadata: AttentionMetadata, output: Tensor, on queue: any DeviceQueue) throws {
    guard let head else { fatalError("a decoder that was made without a pooling is asked for vectors") }
    let states = try forward(tokens: tokens, metadata: metadata, on: queue)
    vocabulary.norm(states, into: states, on: queue, kernels)
    head(states, metadata: metadata, output: output, on: queue, kernels)
  }

  init(
    _ description: DecoderDescription, _ loader: inout WeightLoader, pooling: Pooling? = nil, in context: ModelContext
  ) throws {
    let configuration = description.configuration
    let queryFactors = try description.queryScaling.map { try loader.vector($0.factors(count: context.attention.maxSequenceLength)) }
    layers = try description.layers.map { layer in
      let prefix = "blk.\(layer.attention.layerIndex)"
      func norm(_ name: String) throws -> RMSNorm {
        try loader.norm("\(prefix).\(name).weight", count: configuration.hiddenSize, epsilon: configuration.normEpsilon)
      }
      func feedForward() throws -> FeedForwardBlock {
        switch layer.feedForward {
        case .gated(let activation):
          .gated(
            try GatedMLP(
              &loader, prefix: prefix, hiddenSize: configuration.hiddenSize, width: configuration.feedForwardSize, activation: activation))
        case .experts(let experts): .experts(try ExpertMLP(&loader, prefix: prefix, hiddenSize: configuration.hiddenSize, experts))
        }
      }
      func attention(_ layer: DecoderLayer) throws -> AttentionBlock {
        if let mla = layer.attention.mla {
          return .latent(try LatentAttention(&loader, spec: layer.attention, mla: mla, configuration: configuration, in: context))
        }
        return .plain(
          try SelfAttention(
            &loader, spec: layer.attention, configuration: configuration, biases: layer.biases, queryFactors: queryFactors,
            mask: description.mask, in: context))
      }
      return Layer(
        attentionNorm: try norm("attn_norm"),
        attention: try attention(layer),
        postAttentionNorm: layer.hasPostNorms ? try norm("post_attention_norm") : nil,
        feedForwardNorm: try norm(layer.feedForwardNorm),
        feedForward: try feedForward(),
        postFeedForwardNorm: layer.hasPostNorms ? try norm("post_ffw_norm") : nil)
    }
    vocabulary = try Vocabulary(
      &loader, configuration: configuration, embeddingScale: description.embeddingScale, logitScale: description.logitScale,
      logitCap: description.logitCap, makesLogits: pooling == nil)
    head = try pooling.map { try PoolingHead(&loader, $0, configuration, in: context) }
    try loader.finish()
    mask = description.mask
    self.configuration = configuration
    residualScale = description.residualScale
    let experts = description.experts
    let isDense = experts.count < description.layers.count
    memory = try StepMemory(
      configuration, layers: description.layers.map(\.attention),
      widths: (isDense ? [configuration.feedForwardSize] : []) + experts.compactMap(\.sharedWidth), experts: experts, in: context)
    kernels = context.device.tensorKernels
  }
}

/// What a layer attends with.
enum AttentionBlock {
  case plain(SelfAttention)
  case latent(LatentAttention)

  var layer: AttentionLayer {
    switch self {
    case .plain(let attention): attention.layer
    case .latent(let attention): attention.layer
    }
  }
}

/// What a layer computes behind attention.
enum FeedForwardBlock {
  case gated(GatedMLP)
  case experts(ExpertMLP)
}

extension QueryScaling {
  /// What multiplies the queries of positions 0..<count.
  func factors(count: Int) -> [Float] {
    (0..<count).map { Float(1 + Double(beta) * log(Double(1 + $0 / originalLength))) }
  }
}
