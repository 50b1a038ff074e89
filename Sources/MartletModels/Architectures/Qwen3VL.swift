// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// The text model of Qwen3-VL, dense (`general.architecture = qwen3vl`; arXiv 2511.21631).
///
/// Qwen 3 whose heads turn by time, height and width, pair after pair in turn. Images are another model's, as with ``Qwen2VL``.
public enum Qwen3VL: DecoderArchitecture {
  public static let name = "qwen3vl"

  public static let checkpoints = [
    CheckpointTranslation(
      modelType: "qwen3_vl_text", settings: [.fixed("hidden_act", .string("silu")), .fixed("attention_bias", .bool(false))],
      ropeTheta: 500_000,
      ropeSettings: [
        .integers("mrope_section", as: "rope.dimension_sections"), .fixed("mrope_interleaved", .bool(true)),
      ], ropeTypes: ["mrope": "default"],
      defaults: [
        "hidden_size": 4096, "intermediate_size": 22016, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
        "head_dim": 128, "max_position_embeddings": 128000, "rms_norm_eps": 1e-6,
      ],
      layerTensors: Qwen3.checkpoints[0].layerTensors)
  ]

  public static func describe(_ reader: inout DecoderReader) throws -> DecoderDescription {
    _ = try reader.integer("attention.key_length")  // nothing else says it
    let rope = try reader.rope(defaultTheta: 500_000)
    let sections = try reader.mropeSections(usual: [24, 20, 20], isInterleaved: true)
    return try DecoderDescription(reader.configuration) { layer in
      DecoderLayer(
        attention: try reader.attention(
          layer, rope: rope, mrope: sections, queryNorm: try reader.headNorm("attn_q_norm", layer: layer),
          keyNorm: try reader.headNorm("attn_k_norm", layer: layer)))
    }
  }
}
