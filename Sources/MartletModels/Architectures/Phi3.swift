// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Phi-3 and Phi-4, dense (`general.architecture = phi3`; arXiv 2404.14219).
///
/// ```
/// x = embed(token)
/// for each layer:
///   x += W_o · attention(rope(q), rope(k), v)       with (q, k, v) = W_qkv · norm(x)
///   x += W_down · (silu(gate) ⊙ up)                 with (gate, up) = W_gate_up · norm(x)
/// logits = W_out · norm(x)
/// ```
///
/// Llama with fused matrices. RoPE may turn a part of each head, and stretch by LongRoPE's lists. Models that were trained with a window have it in every
/// layer.
public enum Phi3: DecoderArchitecture {
  public static let name = "phi3"

  public static let checkpoints = [
    CheckpointTranslation(
      modelType: "phi3",
      settings: [
        .fixed("hidden_act", .string("silu")), .fixed("attention_bias", .bool(false)),
        .fixed("embd_layer_norm", .bool(false)),
      ],
      windows: .all, rotatesPart: true, ropeTypes: ["su": "longrope", "yarn": "longrope"],
      defaults: [
        "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32, "num_attention_heads": 32,
        "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "original_max_position_embeddings": 4096,
      ],
      layerTensors: CheckpointTranslation.decoderLayer.merging([
        "self_attn.qkv_proj.weight": "attn_qkv.weight", "mlp.gate_up_proj.weight": "ffn_up.weight",
      ]) { $1 })
  ]

  public static func describe(_ reader: inout DecoderReader) throws -> DecoderDescription {
    let rope = try reader.rope(), windows = try reader.windows()
    return try DecoderDescription(reader.configuration) { layer in
      DecoderLayer(attention: try reader.attention(layer, window: windows[layer], rope: rope))
    }
  }
}
