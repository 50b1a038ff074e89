// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletFormats

/// How one `model_type` of Hugging Face's directories is said in GGUF's names: tables, which stand in the architecture's file.
///
/// ```swift
/// CheckpointTranslation(
///   modelType: "qwen3", settings: [.fixed("attention_bias", .bool(false))], windows: .fromLayer,
///   layerTensors: CheckpointTranslation.decoderLayer.merging(["self_attn.q_norm.weight": "attn_q_norm.weight", …]) { $1 })
/// ```
///
/// What every decoder has need not be listed: ``decoderSettings``, RoPE, windows, tied embeddings.
///
/// A setting of `config.json` that is in no table is an error, because it may change what the model computes, unless
/// - it is known to be without effect: how the model was trained, how it is sampled, who wrote it; or
/// - it says nothing: null, "", [] or {}; or
/// - its name says that it concerns training, outputs or token ids (`resid_pdrop`, `output_router_logits`, `image_token_id`); or
/// - it says that there is none of something that this build does not have: false of a name such as `use_memory`, 0 of one such as `num_experts`.
///
/// Off is not always without effect: `use_qk_norm` is on in some classes where it is missing, and a multiplier of 0 is no multiplier. False is
/// passed over only where the name is of a switch, and does not speak of what a decoder has: biases, norms, gates, positions.
///
/// What is passed over for the last three reasons is told by ``ModelSource/ignoredSettings``.
public struct CheckpointTranslation: Sendable {
  /// What a setting means.
  public enum Setting: Sendable {
    /// The integer of `config.json` under the first name is `<architecture>.` and the second.
    case integer(String, as: String)
    /// The same for a number that may have a fraction.
    case float(String, as: String)
    /// The same for a Boolean; `default` is what Transformers' class takes without it.
    case bool(String, as: String, default: Bool? = nil)
    /// The same for a list of integers.
    case integers(String, as: String)
    /// The same for a list of Booleans, or of zeros and ones, with one for each layer.
    case flags(String, as: String)
    /// The same for a string.
    case string(String, as: String, default: String? = nil)
    /// A list of integers, one for each layer, from an object whose members are layers' numbers: of each the integer under the second name, 0 where
    /// there is none.
    case layerIntegers(String, String, as: String)
    /// A key that the model type itself implies.
    case implied(String, Int)
    /// A setting that Transformers' class does not read, whatever it says.
    case unread(String)
    /// A setting for which this build computes one value only; it may be missing, or null.
    case fixed(String, Value)

    public enum Value: Sendable { case bool(Bool), string(String), null }
  }

  /// Which layers see a window.
  public enum Windows: Sendable {
    /// None: there is no `sliding_window`.
    case none
    /// All, if `sliding_window` is not null.
    case all
    /// `layer_types`, or all but every n-th layer: `sliding_window_pattern`, or this.
    case pattern(Int)
    /// If `use_sliding_window`: `layer_types`, or the layers from `max_window_layers` on.
    case fromLayer
    /// If `use_sliding_window`: those that `layer_types` names.
    case named
  }

  /// A tensor's name, and what its values become.
  public struct TensorName: Sendable, ExpressibleByStringLiteral {
    public var name: String
    /// Added to every value of a small tensor: Gemma's directories hold norms' weights less 1.
    public var addend: Float
    /// Where the outputs of two tensors take turns in one: the name of the other, which has the second.
    public var second: String?
    /// Whether matrices are [in, out].
    public var isTransposed: Bool

    public init(_ name: String, addend: Float = 0, alternatingWith second: String? = nil, isTransposed: Bool = false) {
      self.name = name
      self.addend = addend
      self.second = second
      self.isTransposed = isTransposed
    }

    public init(stringLiteral name: String) { self.init(name) }
  }

  public var modelType: String
  public var settings: [Setting]
  public var windows: Windows
  /// Whether the embedding is the output matrix, where `tie_word_embeddings` is missing.
  public var tiesEmbeddings: Bool
  /// The base of RoPE's frequencies, where the file does not say.
  public var ropeTheta: Double
  /// Whether `partial_rotary_factor` may be below 1: the share of a head's dims, the first ones, that RoPE turns.
  public var rotatesPart: Bool
  /// Whether RoPE's settings must be there, because no usual ones stand for this model type.
  public var needsRopeSettings: Bool
  /// What stands beside RoPE's own settings in `rope_parameters` or `rope_scaling`.
  public var ropeSettings: [Setting]
  /// Kinds of RoPE that this model type calls by another name than others do.
  public var ropeTypes: [String: String]
  /// What Transformers' class takes for a setting that `config.json` does not have. One that is null is none.
  public var defaults: [String: Double]
  /// Tensors outside layers.
  public var tensors: [String: TensorName]
  /// Tensors of layer n: what follows `model.layers.n.`, and what follows `blk.n.`. `#` in both is an expert's number.
  public var layerTensors: [String: TensorName]
  /// Where tensors stand.
  public var layout: Layout

  public init(
    modelType: String, settings: [Setting] = [], windows: Windows = .none, tiesEmbeddings: Bool = false, ropeTheta: Double = 10000,
    rotatesPart: Bool = false, needsRopeSettings: Bool = false, ropeSettings: [Setting] = [], ropeTypes: [String: String] = [:],
    defaults: [String: Double] = [:], tensors: [String: TensorName] = decoderTensors,
    layerTensors: [String: TensorName] = decoderLayer, layout: Layout = Layout()
  ) {
    self.modelType = modelType
    self.settings = Self.decoderSettings + settings
    self.windows = windows
    self.tiesEmbeddings = tiesEmbeddings
    self.ropeTheta = ropeTheta
    self.rotatesPart = rotatesPart
    self.needsRopeSettings = needsRopeSettings
    self.ropeSettings = ropeSettings
    self.ropeTypes = ropeTypes
    self.defaults = defaults
    self.tensors = tensors
    self.layerTensors = Self.cacheScales.merging(layerTensors) { $1 }
    self.layout = layout
  }

  /// What tensors' names begin with.
  public struct Layout: Sendable, Hashable {
    /// Before all names in directories of a model with a head; a directory of the model alone leaves it out.
    public var root: String
    /// Before a layer's number.
    public var layers: String
    /// Beginnings of names that no formula reads: heads of what a model was trained for.
    public var unread: [String]

    public init(root: String = "model.", layers: String = "layers.", unread: [String] = []) {
      self.root = root
      self.layers = layers
      self.unread = unread
    }
  }

  /// The settings of every decoder.
  public static let decoderSettings: [Setting] = [
    .integer("hidden_size", as: "embedding_length"), .integer("intermediate_size", as: "feed_forward_length"),
    .integer("num_hidden_layers", as: "block_count"), .integer("num_attention_heads", as: "attention.head_count"),
    .integer("num_key_value_heads", as: "attention.head_count_kv"), .integer("head_dim", as: "attention.key_length"),
    .integer("max_position_embeddings", as: "context_length"), .integer("vocab_size", as: "vocab_size"),
    .float("rms_norm_eps", as: "attention.layer_norm_rms_epsilon"), .fixed("is_encoder_decoder", .bool(false)),
    .fixed("add_cross_attention", .bool(false)), .fixed("use_mrope", .bool(false)),
    // Off is what would change something.
    .fixed("is_causal", .bool(true)), .fixed("use_rope", .bool(true)), .fixed("scale_attn_weights", .bool(true)),
  ]

  /// Tensors outside layers that every decoder has.
  public static let decoderTensors: [String: TensorName] = [
    "model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight", "lm_head.weight": "output.weight",
  ]

  /// Tensors of a layer as Llama has them.
  public static let decoderLayer: [String: TensorName] = [
    "input_layernorm.weight": "attn_norm.weight", "self_attn.q_proj.weight": "attn_q.weight", "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight", "self_attn.o_proj.weight": "attn_output.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight", "mlp.gate_proj.weight": "ffn_gate.weight", "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
  ]

  /// The scales of keys and values in a cache of e4m3, of a layer of any decoder.
  static let cacheScales: [String: TensorName] = [
    "self_attn.k_scale": "attn_k.cache_scale", "self_attn.v_scale": "attn_v.cache_scale", "self_attn.k_proj.k_scale": "attn_k.cache_scale",
    "self_attn.v_proj.v_scale": "attn_v.cache_scale",
  ]

  /// Biases of attention's projections, which some models have where `attention_bias` is true.
  public static let attentionBiases: [String: TensorName] = [
    "self_attn.q_proj.bias": "attn_q.bias", "self_attn.k_proj.bias": "attn_k.bias", "self_attn.v_proj.bias": "attn_v.bias",
    "self_attn.o_proj.bias": "attn_output.bias",
  ]

  /// A name with `#` in place of the number that it has as one of its parts, and the number; a name without one as it is, and "".
  static func pattern(of name: Substring) -> (name: String, expert: String) {
    var expert = ""
    let parts = name.split(separator: ".", omittingEmptySubsequences: false).map { part in
      guard expert.isEmpty, let number = Int(part), number >= 0, String(number) == part else { return part }
      expert = String(part)
      return "#"
    }
    return (parts.joined(separator: "."), expert)
  }

  /// Settings that do not change what a model computes from its tokens: how it was trained, how it is sampled, who wrote it.
  static let withoutEffect: Set<String> = [
    "architectures", "model_type", "name_or_path", "transformers_version", "torch_dtype", "dtype", "auto_map", "tokenizer_class", "prefix",
    "bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "unk_token_id", "cls_token_id", "mask_token_id",
    "decoder_start_token_id", "attention_dropout", "hidden_dropout",
    "initializer_range", "initializer_factor", "use_cache", "cache_implementation", "attn_implementation", "pretraining_tp", "is_decoder",
    "torchscript", "return_dict", "output_attentions", "output_hidden_states", "gradient_checkpointing", "use_bfloat16", "tf_legacy_loss",
    "chunk_size_feed_forward", "cross_attention_hidden_size", "tie_encoder_decoder", "pruned_heads", "finetuning_task", "id2label",
    "label2id", "num_labels", "problem_type", "task_specific_params", "max_length", "min_length", "do_sample", "early_stopping",
    "num_beams",
    "num_beam_groups", "num_return_sequences", "diversity_penalty", "temperature", "top_k", "top_p", "typical_p", "repetition_penalty",
    "length_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids", "begin_suppress_tokens", "suppress_tokens",
    "exponential_decay_length_penalty", "forced_bos_token_id", "forced_eos_token_id", "remove_invalid_values", "return_dict_in_generate",
    "output_scores", "is_llama_config", "transformers.js_config", "unsloth_version", "unsloth_fixed",
    "max_sequence_length", "max_seq_len", "max_seq_length", "seq_length", "model_max_length", "max_new_tokens", "use_flash_attn",
    "use_flash_attention", "use_flash_attention_2", "ffn_dim_multiplier", "multiple_of", "neftune_noise_alpha", "router_aux_loss_coef",
    "router_jitter_noise",
    "bos_token", "eos_token", "pad_token", "unk_token", "license", "language", "model_name", "base_model",
  ]

  /// Whether a setting that is in no table can be passed over.
  static func isHarmless(_ name: String, _ value: JSONValue) -> Bool {
    if concernsTokenIDs(name) || name.hasSuffix("_version") { return true }
    switch value.kind {
    case .null: return true
    case .string: return value.string == ""
    case .array, .object: return value.count == 0
    case .bool: return name.hasPrefix("output_") || value.bool == false && isOnlySwitch(name)
    case .number:
      // Nothing is dropped, and no loss computed, where a model is used.
      if name.contains("drop") || name.hasSuffix("_loss_coef") { return true }
      return value.double == 0 && (name.hasPrefix("num_") || name.hasPrefix("n_"))
    }
  }

  private static func concernsTokenIDs(_ name: String) -> Bool {
    ["_token_id", "_token_ids", "_token_index"].contains { name.hasSuffix($0) }
  }

  /// Whether a name is of something that is had or not, and of nothing that this build's decoders have.
  private static func isOnlySwitch(_ name: String) -> Bool {
    ["use_", "is_", "has_", "with_", "add_", "enable_"].contains { name.hasPrefix($0) }
      && !["bias", "causal", "gate", "glu", "norm", "position", "residual", "rope", "rotary", "scal", "mask"].contains { name.contains($0) }
  }
}
