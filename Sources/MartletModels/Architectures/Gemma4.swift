// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletAttention
public import MartletCore

/// Gemma 4, text (`general.architecture = gemma4`).
///
/// ```
/// x = √hiddenSize · embed(token)
/// p = (norm(W_p · x / √hiddenSize) + √d · embed_p(token)) / √2        an input of d values for each layer
/// for each layer:
///   x += norm(W_o · attention(rope(norm(W_q · n)), rope(norm(W_k · n)), norm(W_v · n)))    with n = norm(x)
///   x += norm(W_down · (gelu(W_gate · m) ⊙ (W_up · m)))                                     with m = norm(x)
///   x += norm(W_b · (gelu(W_a · x) ⊙ p[layer]))
///   x *= scalar
/// logits = cap(W_out · norm(x))
/// ```
///
/// Scores are not scaled, and the norm of values has no weight. Local layers see a window; global ones have heads of other dims, and RoPE turns a
/// part of their pairs only. Where keys serve as values, a value is W_k · n before its norm. The last layers have no keys and values of their own:
/// they read those of the last layer of their kind that has. Models with experts add norm(experts(norm(x))), which are routed by x, to the norm of the
/// dense block's answer; those without an input for each layer leave p out.
public enum Gemma4: ModelArchitecture {
  public static let name = "gemma4"

  public static let checkpoints = [
    CheckpointTranslation(
      modelType: "gemma4_text",
      settings: [
        .fixed("hidden_activation", .string("gelu_pytorch_tanh")), .fixed("attention_bias", .bool(false)),
        .integer("head_dim", as: "attention.key_length_swa"), .integer("global_head_dim", as: "attention.key_length"),
        .layerIntegers("per_layer_config", "head_dim", as: "attention.key_lengths"),
        .integer("num_global_key_value_heads", as: "attention.global_head_count_kv"),
        .layerIntegers("per_layer_config", "num_key_value_heads", as: "attention.head_counts_kv"),
        .bool("attention_k_eq_v", as: "attention.keys_are_values", default: false),
        .integer("num_kv_shared_layers", as: "attention.shared_kv_layers"),
        .bool("use_double_wide_mlp", as: "feed_forward_doubles", default: false),
        .integer("hidden_size_per_layer_input", as: "embedding_length_per_layer_input"), .unread("vocab_size_per_layer_input"),
        .float("final_logit_softcapping", as: "final_logit_softcapping"), .bool("enable_moe_block", as: "has_experts", default: false),
        .integer("num_experts", as: "expert_count"), .integer("top_k_experts", as: "expert_used_count"),
        .integer("moe_intermediate_size", as: "expert_feed_forward_length"),
        .string("use_bidirectional_attention", as: "attention.bidirectional"),
      ],
      windows: .pattern(6), tiesEmbeddings: true, needsRopeSettings: true,
      defaults: [
        "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 30, "num_attention_heads": 8, "num_key_value_heads": 4,
        "head_dim": 256, "global_head_dim": 512, "max_position_embeddings": 131072, "rms_norm_eps": 1e-6, "sliding_window": 512,
        "hidden_size_per_layer_input": 256,
      ],
      tensors: CheckpointTranslation.decoderTensors.merging([
        "model.embed_tokens_per_layer.weight": "per_layer_token_embd.weight",
        "model.per_layer_model_projection.weight": "per_layer_model_proj.weight",
        "model.per_layer_projection_norm.weight": "per_layer_proj_norm.weight",
      ]) { $1 },
      layerTensors: CheckpointTranslation.decoderLayer.merging([
        "self_attn.q_norm.weight": "attn_q_norm.weight", "self_attn.k_norm.weight": "attn_k_norm.weight",
        "post_attention_layernorm.weight": "post_attention_norm.weight", "pre_feedforward_layernorm.weight": "ffn_norm.weight",
        "post_feedforward_layernorm.weight": "post_ffw_norm.weight", "post_feedforward_layernorm_1.weight": "post_ffw_norm_1.weight",
        "post_feedforward_layernorm_2.weight": "post_ffw_norm_2.weight", "pre_feedforward_layernorm_2.weight": "pre_ffw_norm_2.weight",
        "layer_scalar": "layer_output_scale.weight", "per_layer_input_gate.weight": "inp_gate.weight",
        "per_layer_projection.weight": "proj.weight", "post_per_layer_input_norm.weight": "post_norm.weight",
        "router.proj.weight": "ffn_gate_inp.weight", "router.scale": "ffn_gate_inp.scale",
        "router.per_expert_scale": "ffn_down_exps.scale", "experts.gate_up_proj": "ffn_gate_up_exps.weight",
        "experts.down_proj": "ffn_down_exps.weight",
        // Quantised ones have a matrix for each expert.
        "experts.#.gate_proj.weight": "ffn_gate.#.weight", "experts.#.up_proj.weight": "ffn_up.#.weight",
        "experts.#.down_proj.weight": "ffn_down.#.weight",
      ]) { $1 })
  ]

  public static func attentionLayers(of source: any ModelSource, on device: any Device) throws -> [AttentionLayerSpec] {
    var reader = try DecoderReader(source, loader: WeightLoader(source, architecture: name, on: device), layersDiffer: true)
    return try Gemma4Description(&reader).layers.filter { !$0.sharesCache }.map(\.attention)
  }

  public static func workingByteCount(of source: any ModelSource, maxNumTokens: Int, on device: any Device) throws -> Int {
    var reader = try DecoderReader(source, loader: WeightLoader(source, architecture: name, on: device), layersDiffer: true)
    let description = try Gemma4Description(&reader)
    return ExpertMemory.byteCount(
      description.experts.map { [$0] } ?? [], hiddenSize: description.configuration.hiddenSize, maxNumTokens: maxNumTokens)
  }

  public static func load(_ source: any ModelSource, in context: ModelContext) throws -> any LanguageModel {
    let loader = WeightLoader(source, architecture: name, in: context)
    var reader = try DecoderReader(source, loader: loader, layersDiffer: true)
    let description = try Gemma4Description(&reader)
    return try Gemma4Model(description, &reader.loader, in: context)
  }
}

/// The sizes of a Gemma 4, which differ from layer to layer.
struct Gemma4Description {
  struct Layer {
    /// Its number is that of the layer whose cache it reads.
    var attention: AttentionLayerSpec
    /// Whether that is another layer's.
    var sharesCache: Bool
    var keysAreValues: Bool
    var feedForwardSize: Int
  }

  var configuration: ModelConfiguration
  var layers: [Layer] = []
  /// Values of each layer's own input; 0 = there is none.
  let inputSize: Int
  let experts: ExpertDescription?
  let logitCap: Float?

  init(_ reader: inout DecoderReader) throws {
    let windows = try reader.windows(usualPattern: 6), count = windows.count
    let global = try reader.integer(ifPresent: "attention.key_length"), local = try reader.integer(ifPresent: "attention.key_length_swa")
    let ownDims = try reader.source.integerList(ifPresent: reader.key("attention.key_lengths"))
    let keysAreValues = try reader.bool(ifPresent: "attention.keys_are_values")
    let kvHeads = try Self.kvHeads(reader, windows, keysAreValues ?? false)
    let widthKey = reader.key("feed_forward_length")
    let widths = try reader.source.isList(widthKey) ? reader.source.integerList(ifPresent: widthKey) : nil
    let doubles = try reader.bool(ifPresent: "feed_forward_doubles") ?? false
    let shared = try reader.integer(ifPresent: "attention.shared_kv_layers") ?? 0
    guard shared >= 0, shared < count else {
      throw reader.invalid("attention.shared_kv_layers", shared, "it must be within 0..<\(count), the layers")
    }
    if let direction = try reader.string(ifPresent: "attention.bidirectional"), direction == "all" {
      throw reader.invalid("attention.bidirectional", direction, "this build reads Gemma 4 as a decoder only")
    }
    func headDim(_ layer: Int) throws -> Int {
      let usual = (windows[layer] == nil && ownDims == nil ? global : local ?? global) ?? reader.configuration.headDim
      let own = ownDims.map { layer < $0.count ? $0[layer] : 0 } ?? 0
      let dim = own > 0 ? own : usual
      guard dim >= 2, dim % 2 == 0, dim <= ModelConfiguration.largestSize else {
        throw reader.invalid("attention.key_length", dim, "it must be even and above 0")
      }
      return dim
    }
    let ropes = try (0..<count).map { layer in try Self.rope(&reader, isGlobal: windows[layer] == nil, headDim: headDim(layer)) }

    let firstShared = count - shared
    for layer in 0..<count {
      let isGlobal = windows[layer] == nil, sharesCache = layer >= firstShared
      let owner = sharesCache ? (0..<firstShared).last { (windows[$0] == nil) == isGlobal } : layer
      guard let owner else {
        throw reader.invalid("attention.shared_kv_layers", shared, "layer \(layer) has no layer of its kind before it to share with")
      }
      let dim = try headDim(layer), heads = reader.configuration.numHeads
      guard heads % kvHeads[layer] == 0 else {
        throw reader.invalid("attention.head_count_kv", kvHeads[layer], "it must divide the \(heads) query heads")
      }
      func norm(_ name: String) throws -> HeadNorm {
        try reader.loader.headNorm("blk.\(layer).\(name).weight", count: dim, epsilon: reader.configuration.normEpsilon)
      }
      let spec = AttentionLayerSpec(
        layerIndex: owner, numHeads: heads, headDim: dim, numKVHeads: kvHeads[layer], scale: 1, window: windows[layer],
        positionalEmbedding: PositionalEmbeddingParams(ropes[layer]), queryNorm: try norm("attn_q_norm"),
        keyNorm: sharesCache ? nil : try norm("attn_k_norm"))
      layers.append(
        Layer(
          attention: spec, sharesCache: sharesCache,
          // A file that does not say it has no tensor for them.
          keysAreValues: isGlobal && (keysAreValues ?? !reader.hasTensor("blk.\(layer).attn_v.weight")),
          feedForwardSize: widths.map { layer < $0.count ? $0[layer] : 0 }
            ?? reader.configuration.feedForwardSize * (doubles && sharesCache ? 2 : 1)))
      guard layers[layer].feedForwardSize >= 1 else {
        throw reader.invalid("feed_forward_length", "a list of \(widths?.count ?? 0)", "there are \(count) layers, each with 1 or more")
      }
    }
    inputSize = try reader.integer(ifPresent: "embedding_length_per_layer_input") ?? 0
    guard inputSize >= 0, inputSize <= ModelConfiguration.largestSize else {
      throw reader.invalid("embedding_length_per_layer_input", inputSize, "it must be within 0…\(ModelConfiguration.largestSize)")
    }
    var experts = try reader.bool(ifPresent: "has_experts") == false ? nil : reader.experts(normalizes: true)
    experts?.activation = .geluTanh
    self.experts = experts
    logitCap = try reader.positive(ifPresent: "final_logit_softcapping")
    configuration = reader.configuration
    configuration.headDim = layers.map(\.attention.headDim).max() ?? configuration.headDim
    configuration.valueHeadDim = configuration.headDim
  }

  /// Of each layer: a list for all; or one number, and another for global layers, which counts where keys serve as values.
  private static func kvHeads(_ reader: DecoderReader, _ windows: [Int?], _ keysAreValues: Bool) throws -> [Int] {
    let key = "attention.head_count_kv", own = try reader.source.integerList(ifPresent: reader.key("attention.head_counts_kv"))
    let list = try reader.source.isList(reader.key(key)) ? reader.source.integerList(ifPresent: reader.key(key)) : nil
    let global = try keysAreValues ? reader.integer(ifPresent: "attention.global_head_count_kv") : nil
    return try windows.indices.map { layer in
      let usual = (windows[layer] == nil ? global : nil) ?? reader.configuration.numKVHeads
      let stated =
        list.map { layer < $0.count ? $0[layer] : 0 } ?? own.map { layer < $0.count && $0[layer] > 0 ? $0[layer] : usual } ?? usual
      guard stated >= 1 else { throw reader.invalid(key, stated, "layer \(layer) needs at least 1") }
      return stated
    }
  }

  /// Local layers turn all pairs. Global ones turn the first share of them, by frequencies over all dims; files of one kind say the share, those of the
  /// other a divisor for each frequency, which is without bound for pairs that do not turn.
  private static func rope(_ reader: inout DecoderReader, isGlobal: Bool, headDim: Int) throws -> RopeParams {
    let key = isGlobal ? "rope.freq_base" : "rope.freq_base_swa"
    let theta = try reader.float(ifPresent: key) ?? (isGlobal ? 1_000_000 : 10000)
    var rope = RopeParams(dim: headDim, theta: Double(theta))
    if let problem = rope.problem { throw reader.invalid(key, theta, problem) }
    guard isGlobal else { return rope }
    if let share = try reader.float(ifPresent: "rope.proportional_share") {
      guard share >= 0, share <= 1 else { throw reader.invalid("rope.proportional_share", share, "it must be within 0…1") }
      let turned = Int(Double(share) * Double(headDim) / 2)
      rope.frequencyDivisors = (0..<headDim / 2).map { $0 < turned ? 1 : 1e30 }
    } else if reader.hasTensor("rope_freqs.weight") {
      rope.frequencyDivisors = try reader.floats("rope_freqs.weight", count: headDim / 2).map(Double.init)
      if let problem = rope.problem { throw reader.source.invalid("rope_freqs.weight", "a tensor", problem) }
    }
    return rope
  }
}
