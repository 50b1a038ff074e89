// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore

/// gpt-oss (`general.architecture = gpt-oss`; arXiv 2508.10925).
///
/// ```
/// x = embed(token)
/// for each layer:
///   x += W_o · attention(rope(W_q · n), rope(W_k · n), W_v · n)             with n = norm(x)
///   x += Σⱼ wⱼ · (W_down · (gate · σ(1.702 · gate) ⊙ (1 + up)))             with n = norm(x), over the chosen experts j,
///        gate = min(W_gate · n, 7), up = W_up · n within ±7
/// logits = W_out · norm(x)
/// ```
///
/// Every projection has a bias. Every head has a sink: a logit that is in the denominator of its softmax only. Every other layer has a window, the first
/// one does. YaRN's ramp begins and ends between pairs. The softmax of the chosen experts' outputs is that of all, divided by its sum over the chosen.
///
/// GGUF files say nothing of the ramp and of the limit.
public enum GptOss: DecoderArchitecture {
  public static let name = "gpt-oss"

  public static let checkpoints = [
    CheckpointTranslation(
      modelType: "gpt_oss",
      settings: [
        .fixed("hidden_act", .string("silu")), .bool("attention_bias", as: "attention.bias", default: true),
        .integer("num_experts", as: "expert_count"), .integer("num_local_experts", as: "expert_count"),
        .integer("experts_per_token", as: "expert_used_count"), .integer("num_experts_per_tok", as: "expert_used_count"),
        .float("swiglu_alpha", as: "expert_gate_slope"), .float("swiglu_limit", as: "expert_gate_limit"),
        // RoPE's settings have it once more, and count.
        .integer("initial_context_length", as: "initial_context_length"),
      ], windows: .pattern(2), ropeTheta: 150_000, needsRopeSettings: true,
      defaults: [
        "hidden_size": 2880, "intermediate_size": 2880, "num_hidden_layers": 36, "num_attention_heads": 64, "num_key_value_heads": 8,
        "head_dim": 64, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "sliding_window": 128, "num_local_experts": 128,
        "num_experts_per_tok": 4,
      ],
      layerTensors: CheckpointTranslation.decoderLayer.merging(CheckpointTranslation.attentionBiases) { $1 }.merging([
        "post_attention_layernorm.weight": "post_attention_norm.weight", "self_attn.sinks": "attn_sinks.weight",
        "mlp.router.weight": "ffn_gate_inp.weight", "mlp.router.bias": "ffn_gate_inp.bias",
        // Gates and what they multiply take turns. In bfloat16 matrices are [in, out]; MXFP4's are [out, in], in blocks and exponents.
        "mlp.experts.gate_up_proj": CheckpointTranslation.TensorName(
          "ffn_gate_exps.weight", alternatingWith: "ffn_up_exps.weight", isTransposed: true),
        "mlp.experts.gate_up_proj_blocks": CheckpointTranslation.TensorName("ffn_gate_exps.weight", alternatingWith: "ffn_up_exps.weight"),
        "mlp.experts.gate_up_proj_bias": CheckpointTranslation.TensorName("ffn_gate_exps.bias", alternatingWith: "ffn_up_exps.bias"),
        "mlp.experts.down_proj": CheckpointTranslation.TensorName("ffn_down_exps.weight", isTransposed: true),
        "mlp.experts.down_proj_blocks": "ffn_down_exps.weight", "mlp.experts.down_proj_bias": "ffn_down_exps.bias",
      ]) { $1 })
  ]

  public static func describe(_ reader: inout DecoderReader) throws -> DecoderDescription {
    let rope = try reader.rope(defaultTheta: 150_000, truncatesYarn: false), windows = try reader.windows(usualPattern: 2)
    let biases = try reader.attentionBiases()
    guard var experts = try reader.experts(normalizes: true, usualWidth: reader.configuration.feedForwardSize) else {
      throw reader.source.missingKey(reader.key("expert_count"))
    }
    experts.activation = .clamped(
      alpha: try reader.positive(ifPresent: "expert_gate_slope") ?? 1.702, limit: try reader.positive(ifPresent: "expert_gate_limit") ?? 7)
    experts.hasBiases = true
    return try DecoderDescription(reader.configuration) { layer in
      let sinks = try reader.sinks(layer: layer)
      var description = DecoderLayer(
        attention: try reader.attention(layer, window: windows[layer], sinks: sinks, rope: rope), biases: biases,
        feedForward: .experts(experts))
      description.feedForwardNorm = "post_attention_norm"
      return description
    }
  }
}
