// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletAttention
public import MartletCore

/// Qwen 2 and 2.5 (`general.architecture = qwen2`; arXiv 2407.10671).
///
/// ```
/// x = embed(token)
/// for each layer:
///   x += W_o · attention(rope(W_q · n + b_q), rope(W_k · n + b_k), W_v · n + b_v)    with n = norm(x)
///   x += W_down · (silu(W_gate · n) ⊙ (W_up · n))                                    with n = norm(x)
/// logits = W_out · norm(x)
/// ```
///
/// Llama with biases on queries, keys and values.
public final class Qwen2: LanguageModel {
  public static let architecture = "qwen2"

  public static let checkpoints = [
    CheckpointTranslation(
      modelType: "qwen2", settings: [.fixed("hidden_act", .string("silu"))], windows: .fromLayer,
      defaults: [
        "hidden_size": 4096, "intermediate_size": 22016, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
        "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "sliding_window": 4096, "max_window_layers": 28,
      ],
      layerTensors: CheckpointTranslation.decoderLayer.merging([
        "self_attn.q_proj.bias": "attn_q.bias", "self_attn.k_proj.bias": "attn_k.bias", "self_attn.v_proj.bias": "attn_v.bias",
      ]) { $1 })
  ]

  struct Layer {
    let attentionNorm: RMSNorm
    let attention: SelfAttention
    let feedForwardNorm: RMSNorm
    let feedForward: GatedMLP
  }

  public let configuration: ModelConfiguration
  let vocabulary: Vocabulary
  let layers: [Layer]
  let memory: StepMemory
  let kernels: any TensorKernels

  public var attention: [AttentionLayer] { layers.map(\.attention.layer) }

  public func forward(tokens: Tensor, metadata: AttentionMetadata, on queue: any DeviceQueue) throws -> Tensor {
    let n = tokens.count
    let x = memory.hidden.prefix(n)
    let normed = memory.normed.prefix(n)
    let added = memory.added.prefix(n)

    vocabulary.embed(tokens, into: x, on: queue, kernels)
    for layer in layers {
      layer.attentionNorm(x, into: normed, on: queue, kernels)
      try layer.attention(normed, into: added, metadata: metadata, memory, on: queue, kernels)
      kernels.add(added, to: x, on: queue)

      layer.feedForwardNorm(x, into: normed, on: queue, kernels)
      layer.feedForward(normed, into: added, memory, on: queue, kernels)
      kernels.add(added, to: x, on: queue)
    }
    return x
  }

  public func logits(of hidden: Tensor, rows: Tensor, output: Tensor, on queue: any DeviceQueue) {
    vocabulary.logits(of: hidden, rows: rows, into: output, memory, on: queue, kernels)
  }

  public init(_ source: any ModelSource, in context: ModelContext) throws {
    let configuration = try ModelConfiguration(source)
    var loader = WeightLoader(source, architecture: Self.architecture, on: context.device, progress: context.progress)
    let specs = try Self.specs(configuration, &loader)
    let epsilon = configuration.normEpsilon
    var layers: [Layer] = []
    for spec in specs {
      let prefix = "blk.\(spec.layerIndex)"
      layers.append(
        Layer(
          attentionNorm: try loader.norm("\(prefix).attn_norm.weight", count: configuration.hiddenSize, epsilon: epsilon),
          attention: try SelfAttention(&loader, spec: spec, configuration: configuration, hasBias: true, in: context),
          feedForwardNorm: try loader.norm("\(prefix).ffn_norm.weight", count: configuration.hiddenSize, epsilon: epsilon),
          feedForward: try GatedMLP(&loader, layer: spec.layerIndex, configuration: configuration, activation: .silu)))
    }
    vocabulary = try Vocabulary(&loader, configuration: configuration)
    try loader.finish()
    self.configuration = configuration
    self.layers = layers
    memory = try StepMemory(configuration, layers: specs, in: context)
    kernels = context.device.tensorKernels
  }

  public static func attentionLayers(of source: any ModelSource, on device: any Device) throws -> [AttentionLayerSpec] {
    var loader = WeightLoader(source, architecture: architecture, on: device)
    return try specs(ModelConfiguration(source), &loader)
  }

  private static func specs(_ configuration: ModelConfiguration, _ loader: inout WeightLoader) throws -> [AttentionLayerSpec] {
    let rope = try RopeParams(loader.source, configuration, defaultTheta: 10000)
    let windows = try loader.source.windows(configuration)
    return (0..<configuration.numLayers).map {
      AttentionLayerSpec(
        layerIndex: $0, numHeads: configuration.numHeads, headDim: configuration.headDim, numKVHeads: configuration.numKVHeads,
        valueHeadDim: configuration.valueHeadDim, window: windows[$0], positionalEmbedding: PositionalEmbeddingParams(rope, isNeoX: true))
    }
  }
}
