// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// SmolLM3 (`general.architecture = smollm3`).
///
/// Llama, of whose layers some, every fourth unless the file says otherwise, do not rotate.
public enum SmolLM3: DecoderArchitecture {
  public static let name = "smollm3"

  public static let checkpoints = [
    CheckpointTranslation(
      modelType: "smollm3",
      settings: [
        .fixed("hidden_act", .string("silu")), .bool("attention_bias", as: "attention.bias"), .fixed("mlp_bias", .bool(false)),
        // The list counts, in which 1 means with rotation; without it the interval.
        .flags("no_rope_layers", as: "rope.layers"), .integer("no_rope_layer_interval", as: "rope.layer_interval"),
      ],
      windows: .named, tiesEmbeddings: true, ropeTheta: 2_000_000,
      defaults: [
        "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16, "num_key_value_heads": 4,
        "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "no_rope_layer_interval": 4,
      ],
      layerTensors: CheckpointTranslation.decoderLayer.merging(CheckpointTranslation.attentionBiases) { $1 })
  ]

  public static func describe(_ reader: inout DecoderReader) throws -> DecoderDescription {
    let numLayers = reader.configuration.numLayers
    let isNeoX = try reader.bool(ifPresent: "rope.is_neox") ?? false
    let rope = try reader.rope(), windows = try reader.windows()
    let interval = try reader.integer(ifPresent: "rope.layer_interval") ?? 4
    guard interval >= 1 else { throw reader.invalid("rope.layer_interval", interval, "it must be at least 1") }
    let rotates = try reader.source.boolList(ifPresent: reader.key("rope.layers")) ?? (1...numLayers).map { $0 % interval != 0 }
    guard rotates.count >= numLayers else {
      throw reader.invalid("rope.layers", "a list of \(rotates.count)", "there are \(numLayers) layers")
    }
    let biases = try reader.attentionBiases()
    return try DecoderDescription(reader.configuration) { layer in
      DecoderLayer(
        attention: try reader.attention(layer, window: windows[layer], rope: rotates[layer] ? rope : nil, isNeoX: isNeoX), biases: biases)
    }
  }
}
