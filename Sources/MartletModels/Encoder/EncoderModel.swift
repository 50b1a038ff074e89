// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletAttention
public import MartletCore

/// What is an encoder's own: its sizes and the heads of its layers.
public struct EncoderDescription: Sendable {
  public var configuration: ModelConfiguration
  public var layers: [AttentionLayerSpec]

  public init(_ configuration: ModelConfiguration, layers: [AttentionLayerSpec]) {
    self.configuration = configuration
    self.layers = layers
  }
}

/// An encoder as BERT is one: every token sees every other, there is no cache, and norms follow what they norm.
///
/// ```
/// x = norm(embed(token) + embed(position) + embed(type 0))
/// for each layer:
///   x = norm(x + W_o · attention(W_q · x, W_k · x, W_v · x))
///   x = norm(x + W_down · gelu(W_up · x))
/// ```
///
/// Norms are LayerNorm, with weight and bias, and every product has a bias.
public final class EncoderModel: EmbeddingModel {
  struct Layer {
    let attention: SelfAttention
    let attentionNorm: LayerNorm
    let up: Projection
    let down: Projection
    let outputNorm: LayerNorm
  }

  public let configuration: ModelConfiguration
  public let mask = AttentionMask.full
  public var embeddingSize: Int { head.width }
  public var attention: [AttentionLayer] { layers.map(\.attention.layer) }
  let layers: [Layer]
  let tokens: Projection
  /// `[contextLength, hiddenSize]`: of each position, with the embedding of type 0 added, which is that of every token of a text on its own.
  let positions: Tensor
  let embeddingNorm: LayerNorm
  let head: PoolingHead
  let memory: StepMemory
  let kernels: any TensorKernels

  public func embed(tokens: Tensor, metadata: AttentionMetadata, output: Tensor, on queue: any DeviceQueue) throws {
    let n = tokens.count
    let x = memory.hidden.prefix(n)

    kernels.embed(tokens: tokens, weight: self.tokens.weight, scale: 1, output: x, on: queue)
    kernels.addChosenRows(of: positions, rows: metadata.ragged.firstPositionIDs, to: x, on: queue)
    embeddingNorm(x, into: x, on: queue, kernels)
    for layer in layers {
      try layer.attention(.rows(x), into: .adding(to: x), metadata: metadata, memory, on: queue, kernels)
      layer.attentionNorm(x, into: x, on: queue, kernels)

      let inner = memory.gateUp(n, columns: configuration.feedForwardSize)
      kernels.product(x, layer.up.weight, output: inner, on: queue)
      kernels.gelu(inner, bias: layer.up.bias, on: queue)
      layer.down(.rows(inner), into: .adding(to: x), on: queue, kernels)
      layer.outputNorm(x, into: x, on: queue, kernels)
    }
    head(x, metadata: metadata, output: output, on: queue, kernels)
  }

  /// Reads `token_embd`, `position_embd`, `token_types`, `token_embd_norm`, and of each layer `attn_…`, `attn_output_norm`, `ffn_up`, `ffn_down`
  /// and `layer_output_norm`.
  init(_ description: EncoderDescription, _ loader: inout WeightLoader, pooling: Pooling, in context: ModelContext) throws {
    let configuration = description.configuration, hiddenSize = configuration.hiddenSize, width = configuration.feedForwardSize
    func norm(_ name: String) throws -> LayerNorm {
      try loader.layerNorm(name, count: hiddenSize, epsilon: configuration.normEpsilon)
    }
    layers = try description.layers.map { spec in
      let prefix = "blk.\(spec.layerIndex)"
      return Layer(
        attention: try SelfAttention(
          &loader, spec: spec, configuration: configuration, biases: [.queryKeyValue, .output], mask: .full, in: context),
        attentionNorm: try norm("\(prefix).attn_output_norm"),
        up: try loader.projection([("\(prefix).ffn_up", width)], columns: hiddenSize, hasBias: true),
        down: try loader.projection([("\(prefix).ffn_down", hiddenSize)], columns: width, hasBias: true),
        outputNorm: try norm("\(prefix).layer_output_norm"))
    }
    tokens = try loader.projection("token_embd", rows: configuration.vocabularySize, columns: hiddenSize)
    var table = try loader.floats("position_embd.weight", count: configuration.contextLength * hiddenSize)
    // Models without types have no such tensor.
    if loader.has("token_types.weight") {
      let types =
        try loader.source.integer(ifPresent: "\(configuration.architecture).token_type_count") ?? loader.rows(of: "token_types.weight")
      guard types >= 1, types <= ModelConfiguration.largestSize else {
        throw loader.source.invalid("\(configuration.architecture).token_type_count", types, "there is at least one type of tokens")
      }
      let first = try loader.floats("token_types.weight", count: types * hiddenSize)[..<hiddenSize]
      for index in table.indices { table[index] += first[index % hiddenSize] }
    }
    positions = try loader.vector(table).reshaped(Shape(configuration.contextLength, hiddenSize))
    embeddingNorm = try norm("token_embd_norm")
    head = try PoolingHead(&loader, pooling, configuration, in: context)
    try loader.finish()
    self.configuration = configuration
    memory = try StepMemory(configuration, layers: description.layers, widths: [width], in: context)
    kernels = context.device.tensorKernels
  }
}
