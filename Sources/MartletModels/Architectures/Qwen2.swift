// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

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
public enum Qwen2: DecoderArchitecture {
  public static let name = "qwen2"

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

  public static func describe(_ reader: inout DecoderReader) throws -> DecoderDescription {
    let rope = try reader.rope(), windows = try reader.windows()
    return try DecoderDescription(reader.configuration) { layer in
      DecoderLayer(attention: try reader.attention(layer, window: windows[layer], rope: rope), biases: .queryKeyValue)
    }
  }
}
