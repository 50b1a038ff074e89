// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Ministral 3 (`general.architecture = mistral3`).
///
/// Llama whose queries grow with their position, so that attention stays sharp over long contexts.
public enum Ministral3: DecoderArchitecture {
  public static let name = "mistral3"

  public static let checkpoints = [
    CheckpointTranslation(
      modelType: "ministral3", settings: [.fixed("hidden_act", .string("silu"))], windows: .all, ropeTheta: 1_000_000,
      needsRopeSettings: true,
      ropeSettings: [.float("llama_4_scaling_beta", as: "attention.temperature_scale")],
      defaults: [
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 34, "num_attention_heads": 32, "num_key_value_heads": 8,
        "head_dim": 128, "max_position_embeddings": 262144, "rms_norm_eps": 1e-5,
      ])
  ]

  public static func describe(_ reader: inout DecoderReader) throws -> DecoderDescription {
    let isNeoX = try reader.bool(ifPresent: "rope.is_neox") ?? false
    let rope = try reader.rope(), windows = try reader.windows()
    var description = try DecoderDescription(reader.configuration) { layer in
      DecoderLayer(attention: try reader.attention(layer, window: windows[layer], rope: rope, isNeoX: isNeoX))
    }
    if let beta = try reader.positive(ifPresent: "attention.temperature_scale") {
      let length = try reader.integer("rope.scaling.original_context_length")
      guard length >= 1 else { throw reader.invalid("rope.scaling.original_context_length", length, "it must be at least 1") }
      description.queryScaling = QueryScaling(beta: beta, originalLength: length)
    }
    return description
  }
}
