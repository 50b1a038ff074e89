// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// The text model of Qwen2-VL and Qwen2.5-VL (`general.architecture = qwen2vl`; arXiv 2409.12191).
///
/// Qwen 2 whose heads turn by time, height and width, each a section of pairs. Images are another model's, which this build does not have: their
/// tokens can be given places, and have the embeddings of the vocabulary.
public enum Qwen2VL: DecoderArchitecture {
  public static let name = "qwen2vl"

  public static let checkpoints = ["qwen2_vl_text", "qwen2_5_vl_text"].map { modelType in
    CheckpointTranslation(
      modelType: modelType, settings: [.fixed("hidden_act", .string("silu"))], windows: .fromLayer, ropeTheta: 1_000_000,
      ropeSettings: [.integers("mrope_section", as: "rope.dimension_sections")], ropeTypes: ["mrope": "default"],
      defaults: [
        "hidden_size": 8192, "intermediate_size": 29568, "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8,
        "max_position_embeddings": 32768, "rms_norm_eps": 1e-5, "sliding_window": 4096, "max_window_layers": 80,
      ],
      layerTensors: Qwen2.checkpoints[0].layerTensors)
  }

  public static func describe(_ reader: inout DecoderReader) throws -> DecoderDescription {
    let rope = try reader.rope(defaultTheta: 1_000_000), windows = try reader.windows()
    let sections = try reader.mropeSections(usual: [16, 24, 24], isInterleaved: false)
    return try DecoderDescription(reader.configuration) { layer in
      DecoderLayer(attention: try reader.attention(layer, window: windows[layer], rope: rope, mrope: sections), biases: .queryKeyValue)
    }
  }
}
