// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

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
public enum Llama: DecoderArchitecture {
  public static let name = "llama"

  public static let checkpoints = [
    CheckpointTranslation(
      modelType: "llama", settings: settings,
      defaults: [
        "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
        "max_position_embeddings": 2048, "rms_norm_eps": 1e-6,
      ], layerTensors: CheckpointTranslation.decoderLayer.merging(CheckpointTranslation.attentionBiases) { $1 }),
    CheckpointTranslation(modelType: "mistral", settings: settings, windows: .all, defaults: mistralDefaults),
    // What Transformers calls a Mistral whose layers differ.
    CheckpointTranslation(modelType: "ministral", settings: settings, windows: .all, defaults: mistralDefaults),
  ]
  private static let mistralDefaults: [String: Double] = [
    "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "max_position_embeddings": 131072, "rms_norm_eps": 1e-6, "sliding_window": 4096,
  ]
  private static let settings: [CheckpointTranslation.Setting] = [
    .fixed("hidden_act", .string("silu")), .bool("attention_bias", as: "attention.bias"), .fixed("mlp_bias", .bool(false)),
    // As programs write it that are not Transformers.
    .fixed("bias", .bool(false)), .fixed("use_bias", .bool(false)), .fixed("qkv_bias", .bool(false)),
  ]

  public static func describe(_ reader: inout DecoderReader) throws -> DecoderDescription {
    let rope = try reader.rope(), windows = try reader.windows()
    let isNeoX = try reader.bool(ifPresent: "rope.is_neox") ?? false
    let biases = try reader.attentionBiases()
    return try DecoderDescription(reader.configuration) { layer in
      DecoderLayer(attention: try reader.attention(layer, window: windows[layer], rope: rope, isNeoX: isNeoX), biases: biases)
    }
  }
}
