// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore

/// Llama and its family under `general.architecture = llama`: Llama 2 and 3, SmolLM2, TinyLlama, Mistral, Ministral, Mixtral.
///
/// ```
/// x = embed(token)
/// for each layer:
///   x += W_o · attention(rope(W_q · n), rope(W_k · n), W_v · n)    with n = norm(x)
///   x += W_down · (silu(W_gate · n) ⊙ (W_up · n))                  with n = norm(x)
/// logits = W_out · norm(x)
/// ```
///
/// Mixtral (arXiv 2401.04088) has experts in place of the feed-forward block.
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
    // A Mistral with experts, of which w1 is the gate, w3 goes up and w2 down.
    CheckpointTranslation(
      modelType: "mixtral",
      settings: settings + [
        .integer("num_local_experts", as: "expert_count"), .integer("num_experts_per_tok", as: "expert_used_count"),
      ], windows: .all, ropeTheta: 1_000_000,
      defaults: [
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "num_local_experts": 8, "num_experts_per_tok": 2,
      ],
      layerTensors: CheckpointTranslation.decoderLayer.merging([
        "block_sparse_moe.gate.weight": "ffn_gate_inp.weight", "block_sparse_moe.experts.#.w1.weight": "ffn_gate.#.weight",
        "block_sparse_moe.experts.#.w3.weight": "ffn_up.#.weight", "block_sparse_moe.experts.#.w2.weight": "ffn_down.#.weight",
      ]) { $1 }),
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
    // Mixtral's files are Llama's, with experts of the feed-forward block's size.
    let experts = try reader.experts(normalizes: true, usualWidth: reader.configuration.feedForwardSize)
    return try DecoderDescription(reader.configuration) { layer in
      DecoderLayer(
        attention: try reader.attention(layer, window: windows[layer], rope: rope, isNeoX: isNeoX), biases: biases,
        feedForward: experts.map { .experts($0) } ?? .gated(.silu))
    }
  }
}
