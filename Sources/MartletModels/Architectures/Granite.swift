// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Granite 3, dense (`general.architecture = granite`).
///
/// ```
/// x = embedding_multiplier · embed(token)
/// for each layer:
///   x += residual_multiplier · W_o · attention(rope(W_q · n), rope(W_k · n), W_v · n)    with n = norm(x)
///   x += residual_multiplier · W_down · (silu(W_gate · n) ⊙ (W_up · n))                  with n = norm(x)
/// logits = W_out · norm(x) / logits_scaling
/// ```
///
/// Llama with four multipliers; that of attention stands in place of 1/√headDim. As in Llama's files, GGUF has the rows of W_q and W_k for RoPE in pairs.
public enum Granite: DecoderArchitecture {
  public static let name = "granite"

  public static let checkpoints = [
    CheckpointTranslation(
      modelType: "granite",
      settings: [
        .fixed("hidden_act", .string("silu")), .bool("attention_bias", as: "attention.bias"), .fixed("mlp_bias", .bool(false)),
        .float("embedding_multiplier", as: "embedding_scale"), .float("residual_multiplier", as: "residual_scale"),
        .float("attention_multiplier", as: "attention.scale"), .float("logits_scaling", as: "logit_scale"),
      ],
      defaults: [
        "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
        "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "embedding_multiplier": 1, "residual_multiplier": 1,
        "attention_multiplier": 1, "logits_scaling": 1,
      ],
      layerTensors: CheckpointTranslation.decoderLayer.merging(CheckpointTranslation.attentionBiases) { $1 })
  ]

  public static func describe(_ reader: inout DecoderReader) throws -> DecoderDescription {
    let isNeoX = try reader.bool(ifPresent: "rope.is_neox") ?? false
    // Files of the family's other models say by this key that they do not rotate at all.
    let rope = try reader.bool(ifPresent: "rope.scaling.finetuned") ?? true ? reader.rope() : nil
    let biases = try reader.attentionBiases()
    var description = try DecoderDescription(reader.configuration) { layer in
      DecoderLayer(attention: try reader.attention(layer, rope: rope, isNeoX: isNeoX), biases: biases)
    }
    description.embeddingScale = try reader.positive(ifPresent: "embedding_scale") ?? 1
    description.residualScale = try reader.positive(ifPresent: "residual_scale") ?? 1
    description.logitScale = try 1 / (reader.positive(ifPresent: "logit_scale") ?? 1)
    return description
  }
}
