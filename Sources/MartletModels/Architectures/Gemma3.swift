// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletAttention
public import MartletCore

/// Gemma 3, text (`general.architecture = gemma3`; arXiv 2503.19786).
///
/// ```
/// x = √hiddenSize · embed(token)
/// for each layer:
///   x += norm(W_o · attention(rope(norm(W_q · n)), rope(norm(W_k · n)), W_v · n))    with n = norm(x)
///   x += norm(W_down · (gelu(W_gate · n) ⊙ (W_up · n)))                              with n = norm(x)
/// logits = W_out · norm(x)
/// ```
///
/// Five local layers, which see a window and turn by the local base, are followed by one global layer. Gemma multiplies norms by
/// 1 + weight; GGUF files hold that sum, Hugging Face's directories the weight.
public final class Gemma3: LanguageModel {
  public static let architecture = "gemma3"

  public static let checkpoints = [
    CheckpointTranslation(
      modelType: "gemma3_text",
      settings: [
        .fixed("hidden_activation", .string("gelu_pytorch_tanh")), .fixed("hidden_act", .string("gelu_pytorch_tanh")),
        .fixed("attention_bias", .bool(false)), .fixed("use_bidirectional_attention", .bool(false)),
        .fixed("attn_logit_softcapping", .null), .fixed("final_logit_softcapping", .null),
        .float("query_pre_attn_scalar", as: "attention.query_pre_attn_scalar"),
      ],
      windows: .pattern(6), tiesEmbeddings: true, ropeTheta: 1_000_000,
      defaults: [
        "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26, "num_attention_heads": 8, "num_key_value_heads": 4,
        "head_dim": 256, "max_position_embeddings": 131072, "rms_norm_eps": 1e-6, "sliding_window": 4096, "query_pre_attn_scalar": 256,
      ],
      tensors: CheckpointTranslation.decoderTensors.merging(["model.norm.weight": norm("output_norm")]) { $1 },
      layerTensors: CheckpointTranslation.decoderLayer.merging([
        "input_layernorm.weight": norm("attn_norm"), "self_attn.q_norm.weight": norm("attn_q_norm"),
        "self_attn.k_norm.weight": norm("attn_k_norm"), "post_attention_layernorm.weight": norm("post_attention_norm"),
        "pre_feedforward_layernorm.weight": norm("ffn_norm"), "post_feedforward_layernorm.weight": norm("post_ffw_norm"),
      ]) { $1 })
  ]
  private static func norm(_ name: String) -> CheckpointTranslation.TensorName { .init("\(name).weight", addend: 1) }

  struct Layer {
    let attentionNorm: RMSNorm
    let attention: SelfAttention
    let postAttentionNorm: RMSNorm
    let feedForwardNorm: RMSNorm
    let feedForward: GatedMLP
    let postFeedForwardNorm: RMSNorm
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
      layer.postAttentionNorm(added, into: added, on: queue, kernels)
      kernels.add(added, to: x, on: queue)

      layer.feedForwardNorm(x, into: normed, on: queue, kernels)
      layer.feedForward(normed, into: added, memory, on: queue, kernels)
      layer.postFeedForwardNorm(added, into: added, on: queue, kernels)
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
    var layers: [Layer] = []
    for spec in specs {
      let prefix = "blk.\(spec.layerIndex)"
      func norm(_ name: String) throws -> RMSNorm {
        try loader.norm("\(prefix).\(name).weight", count: configuration.hiddenSize, epsilon: configuration.normEpsilon)
      }
      layers.append(
        Layer(
          attentionNorm: try norm("attn_norm"),
          attention: try SelfAttention(&loader, spec: spec, configuration: configuration, in: context),
          postAttentionNorm: try norm("post_attention_norm"),
          feedForwardNorm: try norm("ffn_norm"),
          feedForward: try GatedMLP(&loader, layer: spec.layerIndex, configuration: configuration, activation: .geluTanh),
          postFeedForwardNorm: try norm("post_ffw_norm")))
    }
    vocabulary = try Vocabulary(&loader, configuration: configuration, scale: Float(configuration.hiddenSize).squareRoot())
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
    for cap in ["attn_logit_softcapping", "final_logit_softcapping"] {
      if let value = try source.float(ifPresent: "\(architecture).\(cap)"), value != 0 {
        throw source.invalid("\(architecture).\(cap)", value, "Gemma 3 has no soft caps")
      }
    }
    _ = try source.integer(architecture + ".attention.sliding_window")  // a Gemma 3 without is no Gemma 3
    let windows = try source.windows(configuration, usualPattern: 6)
    let global = try RopeParams(source, configuration, defaultTheta: 1_000_000)
    // Stretching is for the global layers: the local ones never see a distance beyond their window.
    let localTheta = try source.float(ifPresent: "\(architecture).rope.freq_base_swa") ?? 10000
    let local = RopeParams(dim: global.dim, theta: Double(localTheta))
    if let problem = local.problem {
      throw source.invalid("\(architecture).rope.freq_base_swa", localTheta, problem)
    }
    // Only the 27B model, known by its 62 layers, scales by the width of its heads in the residual stream instead of by headDim.
    let scaledDim = configuration.numLayers == 62 ? configuration.hiddenSize / configuration.numHeads : configuration.headDim
    let scalarKey = "\(architecture).attention.query_pre_attn_scalar"
    let scalar = try source.float(ifPresent: scalarKey) ?? Float(scaledDim)
    guard scalar > 0 else { throw source.invalid(scalarKey, scalar, "it must be above 0") }
    let scale = try source.float(ifPresent: "\(architecture).attention.scale") ?? 1 / scalar.squareRoot()
    var specs: [AttentionLayerSpec] = []
    for layer in 0..<configuration.numLayers {
      func norm(_ name: String) throws -> HeadNorm {
        try loader.headNorm("blk.\(layer).\(name).weight", count: configuration.headDim, epsilon: configuration.normEpsilon)
      }
      specs.append(
        AttentionLayerSpec(
          layerIndex: layer, numHeads: configuration.numHeads, headDim: configuration.headDim, numKVHeads: configuration.numKVHeads,
          valueHeadDim: configuration.valueHeadDim, scale: scale, window: windows[layer],
          positionalEmbedding: PositionalEmbeddingParams(windows[layer] == nil ? global : local, isNeoX: true),
          queryNorm: try norm("attn_q_norm"), keyNorm: try norm("attn_k_norm")))
    }
    return specs
  }
}
