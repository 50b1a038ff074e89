// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore

/// Gemma 2 (`general.architecture = gemma2`; arXiv 2408.00118).
///
/// ```
/// x = √hiddenSize · embed(token)
/// for each layer:
///   x += norm(W_o · attention(rope(W_q · n), rope(W_k · n), W_v · n))    with n = norm(x), scores softly capped
///   x += norm(W_down · (gelu(W_gate · n) ⊙ (W_up · n)))                  with n = norm(x)
/// logits = cap · tanh(W_out · norm(x) / cap)
/// ```
///
/// Every second layer sees everything, the others a window. Norms as in ``Gemma3``: GGUF files hold 1 + weight, Hugging Face's directories the weight.
public enum Gemma2: DecoderArchitecture {
  public static let name = "gemma2"

  public static let checkpoints = [
    CheckpointTranslation(
      modelType: "gemma2",
      settings: [
        .fixed("hidden_activation", .string("gelu_pytorch_tanh")), .fixed("hidden_act", .string("gelu_pytorch_tanh")),
        .fixed("attention_bias", .bool(false)), .fixed("use_bidirectional_attention", .bool(false)),
        .float("query_pre_attn_scalar", as: "attention.query_pre_attn_scalar"),
        .float("attn_logit_softcapping", as: "attn_logit_softcapping"), .float("final_logit_softcapping", as: "final_logit_softcapping"),
      ],
      windows: .pattern(2), tiesEmbeddings: true,
      defaults: [
        "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26, "num_attention_heads": 8, "num_key_value_heads": 4,
        "head_dim": 256, "max_position_embeddings": 8192, "rms_norm_eps": 1e-6, "sliding_window": 4096, "query_pre_attn_scalar": 256,
        "attn_logit_softcapping": 50, "final_logit_softcapping": 30,
      ],
      tensors: CheckpointTranslation.decoderTensors.merging(["model.norm.weight": .gemmaNorm("output_norm")]) { $1 },
      layerTensors: CheckpointTranslation.decoderLayer.merging([
        "input_layernorm.weight": .gemmaNorm("attn_norm"), "post_attention_layernorm.weight": .gemmaNorm("post_attention_norm"),
        "pre_feedforward_layernorm.weight": .gemmaNorm("ffn_norm"), "post_feedforward_layernorm.weight": .gemmaNorm("post_ffw_norm"),
      ]) { $1 })
  ]

  public static func describe(_ reader: inout DecoderReader) throws -> DecoderDescription {
    let configuration = reader.configuration
    _ = try reader.integer("attention.sliding_window")  // a Gemma 2 without is no Gemma 2
    let rope = try reader.rope(), windows = try reader.windows(usualPattern: 2)
    let softCap = try reader.positive(ifPresent: "attn_logit_softcapping")
    // Only the 27B model, known by its 46 layers, scales by the width of its heads in the residual stream instead of by headDim.
    let scale = try reader.gemmaScale(usualDim: configuration.numLayers == 46 ? configuration.hiddenSize / configuration.numHeads : nil)
    var description = try DecoderDescription(configuration) { layer in
      DecoderLayer(
        attention: try reader.attention(layer, scale: scale, softCap: softCap, window: windows[layer], rope: rope),
        feedForward: .gated(.geluTanh), hasPostNorms: true)
    }
    description.embeddingScale = Float(configuration.hiddenSize).squareRoot()
    description.logitCap = try reader.positive(ifPresent: "final_logit_softcapping")
    return description
  }
}
