// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletAttention
public import MartletCore
public import MartletFormats

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
/// 1 + weight; its files hold that sum.
public final class Gemma3: LanguageModel {
  public static let architecture = "gemma3"

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

  public init(_ file: GGUFFile, in context: ModelContext) throws {
    let configuration = try ModelConfiguration(file)
    var loader = WeightLoader(file, architecture: Self.architecture, on: context.device, progress: context.progress)
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

  public static func attentionLayers(of file: GGUFFile, on device: any Device) throws -> [AttentionLayerSpec] {
    var loader = WeightLoader(file, architecture: architecture, on: device)
    return try specs(ModelConfiguration(file), &loader)
  }

  private static func specs(_ configuration: ModelConfiguration, _ loader: inout WeightLoader) throws -> [AttentionLayerSpec] {
    let file = loader.file
    for cap in ["attn_logit_softcapping", "final_logit_softcapping"] {
      if let value = try file.float(ifPresent: "\(architecture).\(cap)"), value != 0 {
        throw ModelError.invalid(key: "\(architecture).\(cap)", value: "\(value)", reason: "Gemma 3 has no soft caps")
      }
    }
    let window = try file.integer(architecture + ".attention.sliding_window")
    guard window >= 1 else {
      throw ModelError.invalid(key: "\(architecture).attention.sliding_window", value: "\(window)", reason: "it must be at least 1")
    }
    let global = try RopeParams(file, configuration, defaultTheta: 1_000_000)
    // Stretching is for the global layers: the local ones never see a distance beyond their window.
    let localTheta = try file.float(ifPresent: "\(architecture).rope.freq_base_swa") ?? 10000
    let local = RopeParams(dim: global.dim, theta: Double(localTheta))
    if let problem = local.problem {
      throw ModelError.invalid(key: "\(architecture).rope.freq_base_swa", value: "\(localTheta)", reason: problem)
    }
    let patternKey = "\(architecture).attention.sliding_window_pattern"
    let pattern = try file.integer(ifPresent: patternKey) ?? 6
    guard pattern >= 1 else { throw ModelError.invalid(key: patternKey, value: "\(pattern)", reason: "it must be at least 1") }
    // Only the 27B model, known by its 62 layers, scales by the width of its heads in the residual stream instead of by headDim.
    let scaledDim = configuration.numLayers == 62 ? configuration.hiddenSize / configuration.numHeads : configuration.headDim
    let scale = try file.float(ifPresent: "\(architecture).attention.scale") ?? 1 / Float(scaledDim).squareRoot()
    var specs: [AttentionLayerSpec] = []
    for layer in 0..<configuration.numLayers {
      let isGlobal = (layer + 1) % pattern == 0
      func norm(_ name: String) throws -> HeadNorm {
        try loader.headNorm("blk.\(layer).\(name).weight", count: configuration.headDim, epsilon: configuration.normEpsilon)
      }
      specs.append(
        AttentionLayerSpec(
          layerIndex: layer, numHeads: configuration.numHeads, headDim: configuration.headDim, numKVHeads: configuration.numKVHeads,
          valueHeadDim: configuration.valueHeadDim, scale: scale, window: isGlobal ? nil : window,
          positionalEmbedding: PositionalEmbeddingParams(isGlobal ? global : local, isNeoX: true),
          queryNorm: try norm("attn_q_norm"), keyNorm: try norm("attn_k_norm")))
    }
    return specs
  }
}
