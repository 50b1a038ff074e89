// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletAttention
public import MartletCore

/// Llama and its family under `general.architecture = llama`: Llama 2 and 3, SmolLM2, TinyLlama, Mistral, Ministral.
///
/// ```
/// x = embed(token)
/// for each layer:
///   x += W_o · attention(rope(W_q · n), rope(W_k · n), W_v · n)    with n = norm(x)
///   x += W_down · (silu(W_gate · n) ⊙ (W_up · n))                  with n = norm(x)
/// logits = W_out · norm(x)
/// ```
///
/// GGUF files store the rows of W_q and W_k so that RoPE turns neighbouring pairs (GPT-J); Hugging Face's directories so that it turns halves.
public final class Llama: LanguageModel {
  public static let architecture = "llama"

  public static let checkpoints = [
    CheckpointTranslation(
      modelType: "llama", settings: withoutBias,
      defaults: [
        "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
        "max_position_embeddings": 2048, "rms_norm_eps": 1e-6,
      ]),
    CheckpointTranslation(modelType: "mistral", settings: withoutBias, windows: .all, defaults: mistralDefaults),
    // What Transformers calls a Mistral whose layers differ.
    CheckpointTranslation(modelType: "ministral", settings: withoutBias, windows: .all, defaults: mistralDefaults),
  ]
  private static let mistralDefaults: [String: Double] = [
    "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "max_position_embeddings": 131072, "rms_norm_eps": 1e-6, "sliding_window": 4096,
  ]
  private static let withoutBias: [CheckpointTranslation.Setting] = [
    .fixed("hidden_act", .string("silu")), .fixed("attention_bias", .bool(false)), .fixed("mlp_bias", .bool(false)),
    // As programs write it that are not Transformers.
    .fixed("bias", .bool(false)), .fixed("use_bias", .bool(false)), .fixed("qkv_bias", .bool(false)),
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
          attention: try SelfAttention(&loader, spec: spec, configuration: configuration, in: context),
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
    let source = loader.source
    var rope = try RopeParams(source, configuration, defaultTheta: 10000)
    if loader.has("rope_freqs.weight") {  // Llama 3.1's stretching, worked out by whoever made the file
      rope.frequencyDivisors = try loader.floats("rope_freqs.weight", count: rope.dim / 2).map(Double.init)
      if let problem = rope.problem { throw source.invalid("rope_freqs.weight", "a tensor", problem) }
    }
    let isNeoX = try source.bool(ifPresent: "\(architecture).rope.is_neox") ?? false
    let windows = try source.windows(configuration)
    let scale = try source.float(ifPresent: "\(architecture).attention.scale")
    return (0..<configuration.numLayers).map {
      AttentionLayerSpec(
        layerIndex: $0, numHeads: configuration.numHeads, headDim: configuration.headDim, numKVHeads: configuration.numKVHeads,
        valueHeadDim: configuration.valueHeadDim, scale: scale, window: windows[$0],
        positionalEmbedding: PositionalEmbeddingParams(rope, isNeoX: isNeoX))
    }
  }
}
