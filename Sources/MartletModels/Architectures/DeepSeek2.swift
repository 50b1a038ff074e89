// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletLibc
import MartletAttention
import MartletCore

/// DeepSeek V2, V3 and R1 (`general.architecture = deepseek2`; arXiv 2405.04434, 2412.19437).
///
/// Llama with latent attention (``LatentAttention``), and with experts beside one that computes every row, behind a few dense layers. V2 chooses by
/// softmax and, where experts have groups, by a group's best; V3 by sigmoid with a bias for the choice, and by the sum of a group's best two. Weights
/// of the chosen are divided by their sum in V3 only. RoPE stretches by YaRN, which multiplies scores as well.
public enum DeepSeek2: DecoderArchitecture {
  public static let name = "deepseek2"

  public static let checkpoints = [
    CheckpointTranslation(
      modelType: "deepseek_v2",
      settings: settings + [
        .implied("expert_gating_func", 1), .string("topk_method", as: "expert_choice", default: "greedy"),
        .fixed("scoring_func", .string("softmax")),
        .unread("norm_topk_prob"), .unread("rope_interleave"),
      ],
      defaults: defaults.merging(["num_hidden_layers": 32, "n_routed_experts": 64, "n_shared_experts": 2]) { $1 },
      layerTensors: tensors),
    CheckpointTranslation(
      modelType: "deepseek_v3",
      settings: settings + [
        .implied("expert_gating_func", 2), .fixed("topk_method", .string("noaux_tc")), .fixed("scoring_func", .string("sigmoid")),
        .bool("norm_topk_prob", as: "expert_weights_norm", default: true),
        .bool("rope_interleave", as: "rope.is_interleaved", default: true),
      ],
      defaults: defaults.merging([
        "hidden_size": 7168, "intermediate_size": 18432, "num_attention_heads": 128, "max_position_embeddings": 4096,
        "moe_intermediate_size": 2048, "num_hidden_layers": 61, "n_routed_experts": 256, "num_experts_per_tok": 8, "n_shared_experts": 1,
        "first_k_dense_replace": 3,
        "n_group": 8, "topk_group": 4, "routed_scaling_factor": 2.5,
      ]) { $1 },
      layerTensors: tensors),
  ]

  private static let settings: [CheckpointTranslation.Setting] = [
    .fixed("hidden_act", .string("silu")), .fixed("attention_bias", .bool(false)), .fixed("mlp_bias", .bool(false)),
    .integer("q_lora_rank", as: "attention.q_lora_rank"), .integer("kv_lora_rank", as: "attention.kv_lora_rank"),
    .integer("qk_nope_head_dim", as: "attention.key_length_nope"), .integer("qk_rope_head_dim", as: "rope.dimension_count"),
    .unread("qk_head_dim"), .integer("v_head_dim", as: "attention.value_length_mla"),
    .integer("n_routed_experts", as: "expert_count"), .integer("num_experts", as: "expert_count"),
    .integer("num_local_experts", as: "expert_count"), .integer("num_experts_per_tok", as: "expert_used_count"),
    .integer("n_shared_experts", as: "expert_shared_count"), .integer("moe_intermediate_size", as: "expert_feed_forward_length"),
    .integer("first_k_dense_replace", as: "leading_dense_block_count"), .float("routed_scaling_factor", as: "expert_weights_scale"),
    .integer("n_group", as: "expert_group_count"), .integer("topk_group", as: "expert_group_used_count"),
    .integer("moe_layer_freq", as: "expert_layer_step"), .integer("num_nextn_predict_layers", as: "nextn_predict_layers"),
    .integer("num_mtp_layers", as: "nextn_predict_layers"), .unread("aux_loss_alpha"), .unread("seq_aux"), .unread("ep_size"),
  ]
  private static let defaults: [String: Double] = [
    "hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6,
    "head_dim": 64, "kv_lora_rank": 512, "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
    "moe_intermediate_size": 1407, "first_k_dense_replace": 0, "routed_scaling_factor": 1,
  ]
  private static let tensors = CheckpointTranslation.decoderLayer.merging([
    "self_attn.q_a_proj.weight": "attn_q_a.weight", "self_attn.q_a_layernorm.weight": "attn_q_a_norm.weight",
    "self_attn.q_b_proj.weight": "attn_q_b.weight", "self_attn.kv_a_proj_with_mqa.weight": "attn_kv_a_mqa.weight",
    "self_attn.kv_a_layernorm.weight": "attn_kv_a_norm.weight", "self_attn.kv_b_proj.weight": "attn_kv_b.weight",
    "mlp.gate.weight": "ffn_gate_inp.weight", "mlp.gate.e_score_correction_bias": "exp_probs_b.bias",
    "mlp.experts.#.gate_proj.weight": "ffn_gate.#.weight", "mlp.experts.#.up_proj.weight": "ffn_up.#.weight",
    "mlp.experts.#.down_proj.weight": "ffn_down.#.weight", "mlp.shared_experts.gate_proj.weight": "ffn_gate_shexp.weight",
    "mlp.shared_experts.up_proj.weight": "ffn_up_shexp.weight", "mlp.shared_experts.down_proj.weight": "ffn_down_shexp.weight",
  ]) { $1 }

  public static func describe(_ reader: inout DecoderReader) throws -> DecoderDescription {
    let mla = try latents(reader)
    // Files say a head's dims in several ways.
    reader.configuration.headDim = mla.headDim
    reader.configuration.valueHeadDim = mla.kvLoraRank
    reader.configuration.numKVHeads = 1
    var rope = try reader.rope()
    let scale = try stretch(&rope, mla, reader)
    let isNeoX = try reader.bool(ifPresent: "rope.is_interleaved").map { !$0 } ?? false
    guard let experts = try experts(reader) else { throw reader.source.missingKey(reader.key("expert_count")) }
    let firstDense = try reader.integer(ifPresent: "leading_dense_block_count") ?? 0
    if let step = try reader.integer(ifPresent: "expert_layer_step"), step != 1 {
      throw reader.invalid("expert_layer_step", step, "this build computes 1 only")
    }
    try reader.skipLayers(behind: reader.configuration.numLayers)
    let numHeads = reader.configuration.numHeads
    return DecoderDescription(reader.configuration) { layer in
      DecoderLayer(
        attention: AttentionLayerSpec(layerIndex: layer, numHeads: numHeads, mla: mla, scale: scale, rope: rope, isNeoX: isNeoX),
        feedForward: layer < firstDense ? .gated(.silu) : .experts(experts))
    }
  }

  private static func latents(_ reader: DecoderReader) throws -> MLAParams {
    func size(_ key: String, _ value: Int) throws -> Int {
      guard value >= 1, value <= ModelConfiguration.largestSize else {
        throw reader.invalid(key, value, "it must be within 1…\(ModelConfiguration.largestSize)")
      }
      return value
    }
    func needed(_ key: String) throws -> Int { try size(key, reader.integer(key)) }
    let rope = try needed("rope.dimension_count")
    let queryRank = try reader.integer(ifPresent: "attention.q_lora_rank").map { try size("attention.q_lora_rank", $0) }
    // GGUF says a query's dims before absorption with those of its position.
    let nope =
      try reader.integer(ifPresent: "attention.key_length_nope").map { try size("attention.key_length_nope", $0) }
      ?? size("attention.key_length_mla", needed("attention.key_length_mla") - rope)
    return MLAParams(
      qLoraRank: queryRank, kvLoraRank: try needed("attention.kv_lora_rank"), qkNopeHeadDim: nope, qkRopeHeadDim: rope,
      vHeadDim: try needed("attention.value_length_mla"))
  }

  /// What YaRN does to RoPE beyond what its own keys say, and to scores: these are multiplied by the square of 0.1 · mscaleAllDim · ln(factor) + 1.
  private static func stretch(_ rope: inout RopeParams, _ mla: MLAParams, _ reader: DecoderReader) throws -> Float {
    let usual = 1 / Double(mla.qkNopeHeadDim + mla.qkRopeHeadDim).squareRoot()
    guard case .yarn(let factor, let original, let fast, let slow, _, _, let truncates) = rope.scaling, factor > 1 else {
      return Float(usual)
    }
    var allDim = try reader.float(ifPresent: "rope.scaling.mscale_all_dim").map(Double.init) ?? 0
    // A GGUF has a tenth of it, and means that both multipliers are equal.
    if let tenth = try reader.float(ifPresent: "rope.scaling.yarn_log_multiplier") {
      allDim = 10 * Double(tenth)
      rope.scaling = .yarn(
        factor: factor, originalMaxPositions: original, betaFast: fast, betaSlow: slow, mscale: allDim, mscaleAllDim: allDim,
        truncates: truncates)
    }
    let magnitude = allDim == 0 ? 1 : 0.1 * allDim * log(factor) + 1
    return Float(usual * magnitude * magnitude)
  }

  private static func experts(_ reader: DecoderReader) throws -> ExpertDescription? {
    let gating = try reader.integer(ifPresent: "expert_gating_func") ?? 1
    guard gating == 1 || gating == 2 else {
      throw reader.invalid("expert_gating_func", gating, "this build knows 1, softmax, and 2, sigmoid")
    }
    guard var experts = try reader.experts(scoring: gating == 1 ? .softmax : .sigmoid, normalizes: false) else { return nil }
    let groups = try reader.integer(ifPresent: "expert_group_count") ?? 1
    let choice = try reader.string(ifPresent: "expert_choice")
    if let choice, choice != "greedy", choice != "group_limited_greedy" {
      throw reader.invalid("expert_choice", choice, "this build knows greedy and group_limited_greedy")
    }
    if groups > 1 && choice != "greedy" {
      experts.routing.groups = ExpertRouting.Groups(
        count: groups, used: try reader.integer("expert_group_used_count"), score: gating == 1 ? .best : .bestTwo)
      if let problem = experts.routing.problem { throw reader.invalid("expert_group_count", groups, problem) }
    }
    let shared = try reader.integer(ifPresent: "expert_shared_count") ?? 0
    guard shared >= 0, shared <= ExpertRouting.mostExperts else {
      throw reader.invalid("expert_shared_count", shared, "it must be within 0…\(ExpertRouting.mostExperts)")
    }
    experts.sharedWidth = shared > 0 ? shared * experts.width : nil
    experts.hasChoiceBias = gating == 2
    return experts
  }
}
