// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Qwen 3, dense (`general.architecture = qwen3`; arXiv 2505.09388).
///
/// ```
/// x = embed(token)
/// for each layer:
///   x += W_o · attention(rope(norm(W_q · n)), rope(norm(W_k · n)), W_v · n)    with n = norm(x)
///   x += W_down · (silu(W_gate · n) ⊙ (W_up · n))                              with n = norm(x)
/// logits = W_out · norm(x)
/// ```
///
/// Llama with a norm on every query and key head; the heads' dims are not hiddenSize / numHeads.
public enum Qwen3: DecoderArchitecture {
  public static let name = "qwen3"

  public static let checkpoints = [
    CheckpointTranslation(
      modelType: "qwen3", settings: [.fixed("hidden_act", .string("silu")), .fixed("attention_bias", .bool(false))], windows: .fromLayer,
      defaults: [
        "hidden_size": 4096, "intermediate_size": 22016, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
        "head_dim": 128, "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "sliding_window": 4096, "max_window_layers": 28,
      ],
      layerTensors: CheckpointTranslation.decoderLayer.merging([
        "self_attn.q_norm.weight": "attn_q_norm.weight", "self_attn.k_norm.weight": "attn_k_norm.weight",
      ]) { $1 })
  ]

  public static func describe(_ reader: inout DecoderReader) throws -> DecoderDescription {
    _ = try reader.integer("attention.key_length")  // nothing else says it
    let rope = try reader.rope(), windows = try reader.windows()
    return try DecoderDescription(reader.configuration) { layer in
      DecoderLayer(
        attention: try reader.attention(
          layer, window: windows[layer], rope: rope, queryNorm: try reader.headNorm("attn_q_norm", layer: layer),
          keyNorm: try reader.headNorm("attn_k_norm", layer: layer)))
    }
  }
}
