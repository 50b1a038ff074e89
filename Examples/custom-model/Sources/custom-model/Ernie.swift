// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletModels

/// ERNIE 4.5, dense (`general.architecture = ernie4_5`): an architecture from outside the house.
///
/// Llama, whose RoPE turns neighbouring dims in Hugging Face's directories, too.
enum Ernie: DecoderArchitecture {
  static let name = "ernie4_5"

  static let checkpoints = [
    CheckpointTranslation(
      modelType: "ernie4_5", settings: [.fixed("hidden_act", .string("silu")), .fixed("use_bias", .bool(false))], tiesEmbeddings: true,
      ropeTheta: 500_000,
      defaults: [
        "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 18, "num_attention_heads": 16, "num_key_value_heads": 2,
        "head_dim": 128, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5,
      ])
  ]

  static func describe(_ reader: inout DecoderReader) throws -> DecoderDescription {
    let rope = try reader.rope()
    return try DecoderDescription(reader.configuration) { layer in
      DecoderLayer(attention: try reader.attention(layer, rope: rope, isNeoX: false))
    }
  }
}
