// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore

/// Qwen 3 with experts (`general.architecture = qwen3moe`; arXiv 2505.09388).
///
/// ``Qwen3``, whose feed-forward blocks are experts chosen by softmax. Some layers may have one block for all rows: those that `mlp_only_layers` names, and all but every
/// `decoder_sparse_step`-th.
public enum Qwen3MoE: DecoderArchitecture {
  public static let name = "qwen3moe"

  public static let checkpoints = [
    CheckpointTranslation(
      modelType: "qwen3_moe",
      settings: [
        .fixed("hidden_act", .string("silu")), .fixed("attention_bias", .bool(false)), .integer("num_experts", as: "expert_count"),
        .integer("num_local_experts", as: "expert_count"), .integer("num_experts_per_tok", as: "expert_used_count"),
        .integer("moe_intermediate_size", as: "expert_feed_forward_length"),
        .bool("norm_topk_prob", as: "expert_weights_norm", default: false),
        .integer("decoder_sparse_step", as: "expert_layer_step"), .integers("mlp_only_layers", as: "dense_layers"),
      ],
      defaults: [
        "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 24, "num_attention_heads": 32, "num_key_value_heads": 4,
        "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "num_experts": 128, "num_experts_per_tok": 8,
        "moe_intermediate_size": 768, "decoder_sparse_step": 1,
      ],
      layerTensors: CheckpointTranslation.decoderLayer.merging([
        "self_attn.q_norm.weight": "attn_q_norm.weight", "self_attn.k_norm.weight": "attn_k_norm.weight",
        "mlp.gate.weight": "ffn_gate_inp.weight", "mlp.experts.#.gate_proj.weight": "ffn_gate.#.weight",
        "mlp.experts.#.up_proj.weight": "ffn_up.#.weight", "mlp.experts.#.down_proj.weight": "ffn_down.#.weight",
      ]) { $1 })
  ]

  public static func describe(_ reader: inout DecoderReader) throws -> DecoderDescription {
    let rope = try reader.rope()
    // GGUF files do not say it: llama.cpp divides for this architecture.
    guard let experts = try reader.experts(normalizes: true) else { throw reader.source.missingKey(reader.key("expert_count")) }
    let step = try reader.integer(ifPresent: "expert_layer_step") ?? 1
    guard step >= 1 else { throw reader.invalid("expert_layer_step", step, "it must be at least 1") }
    let dense = Set(try reader.source.integerList(ifPresent: reader.key("dense_layers")) ?? [])
    return try DecoderDescription(reader.configuration) { layer in
      DecoderLayer(
        attention: try reader.attention(
          layer, rope: rope, queryNorm: try reader.headNorm("attn_q_norm", layer: layer),
          keyNorm: try reader.headNorm("attn_k_norm", layer: layer)),
        feedForward: dense.contains(layer) || (layer + 1) % step != 0 ? .gated(.silu) : .experts(experts))
    }
  }
}
