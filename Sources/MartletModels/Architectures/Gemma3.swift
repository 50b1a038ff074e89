// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletAttention
import MartletCore

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
public enum Gemma3: DecoderArchitecture {
  public static let name = "gemma3"

  public static let checkpoints = [
    CheckpointTranslation(
      modelType: "gemma3_text",
      settings: [
        .fixed("hidden_activation", .string("gelu_pytorch_tanh")), .fixed("hidden_act", .string("gelu_pytorch_tanh")),
        .fixed("attention_bias", .bool(false)), .bool("use_bidirectional_attention", as: "attention.bidirectional"),
        .fixed("attn_logit_softcapping", .null), .fixed("final_logit_softcapping", .null),
        .float("query_pre_attn_scalar", as: "attention.query_pre_attn_scalar"),
      ],
      windows: .pattern(6), tiesEmbeddings: true, ropeTheta: 1_000_000,
      defaults: [
        "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26, "num_attention_heads": 8, "num_key_value_heads": 4,
        "head_dim": 256, "max_position_embeddings": 131072, "rms_norm_eps": 1e-6, "sliding_window": 4096, "query_pre_attn_scalar": 256,
      ],
      tensors: CheckpointTranslation.decoderTensors.merging(["model.norm.weight": .gemmaNorm("output_norm")]) { $1 },
      layerTensors: CheckpointTranslation.decoderLayer.merging([
        "input_layernorm.weight": .gemmaNorm("attn_norm"), "self_attn.q_norm.weight": .gemmaNorm("attn_q_norm"),
        "self_attn.k_norm.weight": .gemmaNorm("attn_k_norm"), "post_attention_layernorm.weight": .gemmaNorm("post_attention_norm"),
        "pre_feedforward_layernorm.weight": .gemmaNorm("ffn_norm"), "post_feedforward_layernorm.weight": .gemmaNorm("post_ffw_norm"),
      ]) { $1 })
  ]

  public static func describe(_ reader: inout DecoderReader) throws -> DecoderDescription {
    try describe(&reader, isBidirectional: reader.bool(ifPresent: "attention.bidirectional") ?? false)
  }

  /// - Parameter isBidirectional: whether tokens see both sides: EmbeddingGemma, which answers with vectors.
  static func describe(_ reader: inout DecoderReader, isBidirectional: Bool) throws -> DecoderDescription {
    let configuration = reader.configuration
    for cap in ["attn_logit_softcapping", "final_logit_softcapping"] {
      if let value = try reader.float(ifPresent: cap), value != 0 { throw reader.invalid(cap, value, "Gemma 3 has no soft caps") }
    }
    _ = try reader.integer("attention.sliding_window")  // a Gemma 3 without is no Gemma 3
    // A window to both sides has its tokens half on each, the one in its middle included.
    let windows = try reader.windows(usualPattern: 6).map { $0.map { isBidirectional ? $0 / 2 + 1 : $0 } }
    let global = try reader.rope(defaultTheta: 1_000_000)
    // Stretching is for the global layers: the local ones never see a distance beyond their window.
    let localTheta = try reader.float(ifPresent: "rope.freq_base_swa") ?? 10000
    let local = RopeParams(dim: global.dim, theta: Double(localTheta))
    if let problem = local.problem { throw reader.invalid("rope.freq_base_swa", localTheta, problem) }
    // Only the 27B model, known by its 62 layers, scales by the width of its heads in the residual stream instead of by headDim.
    let scale = try reader.gemmaScale(usualDim: configuration.numLayers == 62 ? configuration.hiddenSize / configuration.numHeads : nil)
    var description = try DecoderDescription(configuration) { layer in
      DecoderLayer(
        attention: try reader.attention(
          layer, scale: scale, window: windows[layer], rope: windows[layer] == nil ? global : local,
          queryNorm: try reader.headNorm("attn_q_norm", layer: layer), keyNorm: try reader.headNorm("attn_k_norm", layer: layer)),
        feedForward: .gated(.geluTanh), hasPostNorms: true)
    }
    description.embeddingScale = Float(configuration.hiddenSize).squareRoot()
    if isBidirectional { description.mask = .bidirectional }
    return description
  }
}

extension DecoderReader {
  /// What multiplies Gemma's scores: 1/√`query_pre_attn_scalar`.
  /// - Parameter usualDim: the scalar where the file has none; nil: the dims of a head.
  func gemmaScale(usualDim: Int?) throws -> Float {
    let scalar = try float(ifPresent: "attention.query_pre_attn_scalar") ?? Float(usualDim ?? configuration.headDim)
    guard scalar > 0 else { throw invalid("attention.query_pre_attn_scalar", scalar, "it must be above 0") }
    return try positive(ifPresent: "attention.scale") ?? 1 / scalar.squareRoot()
  }
}

extension CheckpointTranslation.TensorName {
  /// A norm of Gemma's, whose directories hold weights less 1.
  static func gemmaNorm(_ name: String) -> Self { Self("\(name).weight", addend: 1) }
}
