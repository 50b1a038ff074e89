// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletAttention
public import MartletCore

/// Gemma 4, text (`general.architecture = gemma4`).
///
/// ```
/// x = √hiddenSize · embed(token)
/// p = (norm(W_p · x / √hiddenSize) + √d · embed_p(token)) / √2        an input of d values for each layer
/// for each layer:
///   x += norm(W_o · attention(rope(norm(W_q · n)), rope(norm(W_k · n)), norm(W_v · n)))    with n = norm(x)
///   x += norm(W_down · (gelu(W_gate · m) ⊙ (W_up · m)))                                     with m = norm(x)
///   x += norm(W_b · (gelu(W_a · x) ⊙ p[layer]))
///   x *= scalar
/// logits = cap(W_out · norm(x))
/// ```
///
/// Scores are not scaled, and the norm of values has no weight. Local layers see a window; global ones have heads of other dims, and RoPE turns a
/// part of their pairs only. Where keys serve as values, a value is W_k · n before its norm. The last layers have no keys and values of their own:
/// they read those of the last layer of their kind that has. Models with experts add norm(experts(norm(x))), which are routed by x, to the norm of the
/// dense block's answer; those without an input for each layer leave p out.
public enum Gemma4: ModelArchitecture {
  public static let name = "gemma4"

  public static let checkpoints = [
    CheckpointTranslation(
      modelType: "gemma4_text",
      settings: [
        .fixed("hidden_activation", .string("gelu_pytorch_tanh")), .fixed("attention_bias", .bool(false)),
        .integer("head_dim", as: "attention.key_length_swa"), .integer("global_head_dim", as: "attention.key_length"),
        .layerIntegers("per_layer_config", "head_dim", as: "attention.key_lengths"),
        .integer("num_global_key_value_heads", as: "attention.global_head_count_kv"),
        .layerIntegers("per_layer_config", "num_key_value_heads", as: "attention.head_counts_kv"),
        .bool("attention_k_eq_v", as: "attention.keys_are_values", default: false),
        .integer("num_kv_shared_layers", as: "attention.shared_kv_layers"),
        .bool("use_double_wide_mlp", as: "feed_forward_doubles", default: false),
        .integer("hidden_size_per_layer_input", as: "embedding_length_per_layer_input"), .unread("vocab_size_per_layer_input"),
        .float("final_logit_softcapping", as: "final_logit_softcapping"), .bool("enable_moe_block", as: "has_experts", default: false),
        .integer("num_experts", as: "expert_count"), .integer("top_k_experts", as: "expert_used_count"),
        .integer("moe_intermediate_size", as: "expert_feed_forward_length"),
        .string("use_bidirectional_attention", as: "attention.bidirectional"),
      ],
      windows: .pattern(6), tiesEmbeddings: true, needsRopeSettings: true,
      defaults: [
        "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 30, "num_attention_heads": 8, "num_key_value_heads": 4,
        "head_dim": 256, "global_head_dim": 512, "max_position_embeddings": 131072, "rms_norm_eps": 1e-6, "sliding_window": 512,
        "hidden_size_per_layer_input": 256,
      ],
      tensors: CheckpointTranslation.decoderTensors.merging([
        "model.embed_tokens_per_layer.weight": "per_layer_token_embd.weight",
        "model.per_layer_model_projection.weight": "per_layer_model_proj.weight",
        "model.per_layer_projection_norm.weight": "per_layer_proj_norm.weight",
      ]) { $1 },
      layerTensors: CheckpointTranslation.decoderLayer.merging([
        "self_attn.q_norm.weight": "attn_q_norm.weight", "self_attn.k_norm.weight": "attn_k_norm.weight",
        "post_attention_layernorm.weight": "post_attention_norm.weight", "pre_feedforward_layernorm.weight": "ffn_norm.weight",
        "post_feedforward_layernorm.weight": "post_ffw_norm.weight", "post_feedforward_layernorm_1.weight": "post_ffw_norm_1.weight",
        "post_feedforward_layernorm_2.weight": "post_ffw_norm_2.weight", "pre_feedforward_layernorm_2.weight": "pre_ffw_norm_2.weight",
        "layer_scalar": "layer_output_scale.weight", "per_layer_input_gate.weight": "inp_gate.weight",
        "per_layer_projection.weight": "proj.weight", "post_per_layer_input_norm.weight": "post_norm.weight",
        "router.proj.weight": "ffn_gate_inp.weight", "router.scale": "ffn_gate_inp.scale",
        "router.per_expert_scale": "ffn_down_exps.scale", "experts.gate_up_proj": "ffn_gate_up_exps.weight",
        "experts.down_proj": "ffn_down_exps.weight",
      ]) { $1 })
  ]

  public static func attentionLayers(of source: any ModelSource, on device: any Device) throws -> [AttentionLayerSpec] {
    var reader = try DecoderReader(source, loader: WeightLoader(source, architecture: name, on: device), layersDiffer: true)
    return try Gemma4Description(&reader).layers.filter { !$0.sharesCache }.map(\.attention)
  }

  public static func expertByteCount(of source: any ModelSource, maxNumTokens: Int, on device: any Device) throws -> Int {
    var reader = try DecoderReader(source, loader: WeightLoader(source, architecture: name, on: device), layersDiffer: true)
    let description = try Gemma4Description(&reader)
    return ExpertMemory.byteCount(
      description.experts.map { [$0] } ?? [], hiddenSize: description.configuration.hiddenSize, maxNumTokens: maxNumTokens)
  }

  public static func load(_ source: any ModelSource, in context: ModelContext) throws -> any LanguageModel {
    let loader = WeightLoader(source, architecture: name, on: context.device, progress: context.progress)
    var reader = try DecoderReader(source, loader: loader, layersDiffer: true)
    let description = try Gemma4Description(&reader)
    return try Gemma4Model(description, &reader.loader, in: context)
  }
}

/// The sizes of a Gemma 4, which differ from layer to layer.
struct Gemma4Description {
  struct Layer {
    /// Its number is that of the layer whose cache it reads.
    var attention: AttentionLayerSpec
    /// Whether that is another layer's.
    var sharesCache: Bool
    var keysAreValues: Bool
    var feedForwardSize: Int
  }

  var configuration: ModelConfiguration
  var layers: [Layer] = []
  /// Values of each layer's own input; 0 = there is none.
  let inputSize: Int
  let experts: ExpertDescription?
  let logitCap: Float?

  init(_ reader: inout DecoderReader) throws {
    let windows = try reader.windows(usualPattern: 6), count = windows.count
    let global = try reader.integer(ifPresent: "attention.key_length"), local = try reader.integer(ifPresent: "attention.key_length_swa")
    let ownDims = try reader.source.integerList(ifPresent: reader.key("attention.key_lengths"))
    let keysAreValues = try reader.bool(ifPresent: "attention.keys_are_values")
    let kvHeads = try Self.kvHeads(reader, windows, keysAreValues ?? false)
    let widthKey = reader.key("feed_forward_length")
    let widths = try reader.source.isList(widthKey) ? reader.source.integerList(ifPresent: widthKey) : nil
    let doubles = try reader.bool(ifPresent: "feed_forward_doubles") ?? false
    let shared = try reader.integer(ifPresent: "attention.shared_kv_layers") ?? 0
    guard shared >= 0, shared < count else {
      throw reader.invalid("attention.shared_kv_layers", shared, "it must be within 0..<\(count), the layers")
    }
    if let direction = try reader.string(ifPresent: "attention.bidirectional"), direction == "all" {
      throw reader.invalid("attention.bidirectional", direction, "this build reads Gemma 4 as a decoder only")
    }
    func headDim(_ layer: Int) throws -> Int {
      let usual = (windows[layer] == nil && ownDims == nil ? global : local ?? global) ?? reader.configuration.headDim
      let own = ownDims.map { layer < $0.count ? $0[layer] : 0 } ?? 0
      let dim = own > 0 ? own : usual
      guard dim >= 2, dim % 2 == 0, dim <= ModelConfiguration.largestSize else {
        throw reader.invalid("attention.key_length", dim, "it must be even and above 0")
      }
      return dim
    }
    let ropes = try (0..<count).map { layer in try Self.rope(&reader, isGlobal: windows[layer] == nil, headDim: headDim(layer)) }

    let firstShared = count - shared
    for layer in 0..<count {
      let isGlobal = windows[layer] == nil, sharesCache = layer >= firstShared
      let owner = sharesCache ? (0..<firstShared).last { (windows[$0] == nil) == isGlobal } : layer
      guard let owner else {
        throw reader.invalid("attention.shared_kv_layers", shared, "layer \(layer) has no layer of its kind before it to share with")
      }
      let dim = try headDim(layer), heads = reader.configuration.numHeads
      guard heads % kvHeads[layer] == 0 else {
        throw reader.invalid("attention.head_count_kv", kvHeads[layer], "it must divide the \(heads) query heads")
      }
      func norm(_ name: String) throws -> HeadNorm {
        try reader.loader.headNorm("blk.\(layer).\(name).weight", count: dim, epsilon: reader.configuration.normEpsilon)
      }
      let spec = AttentionLayerSpec(
        layerIndex: owner, numHeads: heads, headDim: dim, numKVHeads: kvHeads[layer], scale: 1, window: windows[layer],
        positionalEmbedding: PositionalEmbeddingParams(ropes[layer]), queryNorm: try norm("attn_q_norm"),
        keyNorm: sharesCache ? nil : try norm("attn_k_norm"))
      layers.append(
        Layer(
          attention: spec, sharesCache: sharesCache,
          // A file that does not say it has no tensor for them.
          keysAreValues: isGlobal && (keysAreValues ?? !reader.hasTensor("blk.\(layer).attn_v.weight")),
          feedForwardSize: widths.map { layer < $0.count ? $0[layer] : 0 }
            ?? reader.configuration.feedForwardSize * (doubles && sharesCache ? 2 : 1)))
      guard layers[layer].feedForwardSize >= 1 else {
        throw reader.invalid("feed_forward_length", "a list of \(widths?.count ?? 0)", "there are \(count) layers, each with 1 or more")
      }
    }
    inputSize = try reader.integer(ifPresent: "embedding_length_per_layer_input") ?? 0
    guard inputSize >= 0, inputSize <= ModelConfiguration.largestSize else {
      throw reader.invalid("embedding_length_per_layer_input", inputSize, "it must be within 0…\(ModelConfiguration.largestSize)")
    }
    var experts = try reader.bool(ifPresent: "has_experts") == false ? nil : reader.experts(normalizes: true)
    experts?.activation = .geluTanh
    self.experts = experts
    logitCap = try reader.positive(ifPresent: "final_logit_softcapping")
    configuration = reader.configuration
    configuration.headDim = layers.map(\.attention.headDim).max() ?? configuration.headDim
    configuration.valueHeadDim = configuration.headDim
  }

  /// Of each layer: a list for all; or one number, and another for global layers, which counts where keys serve as values.
  private static func kvHeads(_ reader: DecoderReader, _ windows: [Int?], _ keysAreValues: Bool) throws -> [Int] {
    let key = "attention.head_count_kv", own = try reader.source.integerList(ifPresent: reader.key("attention.head_counts_kv"))
    let list = try reader.source.isList(reader.key(key)) ? reader.source.integerList(ifPresent: reader.key(key)) : nil
    let global = try keysAreValues ? reader.integer(ifPresent: "attention.global_head_count_kv") : nil
    return try windows.indices.map { layer in
      let usual = (windows[layer] == nil ? global : nil) ?? reader.configuration.numKVHeads
      let stated =
        list.map { layer < $0.count ? $0[layer] : 0 } ?? own.map { layer < $0.count && $0[layer] > 0 ? $0[layer] : usual } ?? usual
      guard stated >= 1 else { throw reader.invalid(key, stated, "layer \(layer) needs at least 1") }
      return stated
    }
  }

  /// Local layers turn all pairs. Global ones turn the first share of them, by frequencies over all dims; files of one kind say the share, those of the
  /// other a divisor for each frequency, which is without bound for pairs that do not turn.
  private static func rope(_ reader: inout DecoderReader, isGlobal: Bool, headDim: Int) throws -> RopeParams {
    let key = isGlobal ? "rope.freq_base" : "rope.freq_base_swa"
    let theta = try reader.float(ifPresent: key) ?? (isGlobal ? 1_000_000 : 10000)
    var rope = RopeParams(dim: headDim, theta: Double(theta))
    if let problem = rope.problem { throw reader.invalid(key, theta, problem) }
    guard isGlobal else { return rope }
    if let share = try reader.float(ifPresent: "rope.proportional_share") {
      guard share >= 0, share <= 1 else { throw reader.invalid("rope.proportional_share", share, "it must be within 0…1") }
      let turned = Int(Double(share) * Double(headDim) / 2)
      rope.frequencyDivisors = (0..<headDim / 2).map { $0 < turned ? 1 : 1e30 }
    } else if reader.hasTensor("rope_freqs.weight") {
      rope.frequencyDivisors = try reader.floats("rope_freqs.weight", count: headDim / 2).map(Double.init)
      if let problem = rope.problem { throw reader.source.invalid("rope_freqs.weight", "a tensor", problem) }
    }
    return rope
  }
}

/// The model of ``Gemma4``.
final class Gemma4Model: LanguageModel {
  struct Layer {
    let attentionNorm: RMSNorm
    let attention: Gemma4Attention
    let postAttentionNorm: RMSNorm
    let feedForwardNorm: RMSNorm
    let feedForward: GatedMLP
    let experts: Gemma4Experts?
    let postFeedForwardNorm: RMSNorm
    let input: Gemma4LayerInput?
    /// Multiplies the layer's result, the residual stream included.
    let scale: Float
  }

  let configuration: ModelConfiguration
  let attention: [AttentionLayer]
  var expertLoads: [Tensor] { layers.compactMap(\.experts?.experts.load) }
  let vocabulary: Vocabulary
  let inputs: Gemma4Inputs?
  let layers: [Layer]
  let memory: StepMemory
  /// `[maxNumTokens, hiddenSize]` in a model with experts.
  let expertAnswer: Tensor
  let kernels: any TensorKernels

  func forward(tokens: Tensor, metadata: AttentionMetadata, on queue: any DeviceQueue) throws -> Tensor {
    let n = tokens.count
    let x = memory.hidden.prefix(n), normed = memory.normed.prefix(n), added = memory.added.prefix(n)
    vocabulary.embed(tokens, into: x, on: queue, kernels)
    inputs?(tokens, x, on: queue, kernels)
    for (index, layer) in layers.enumerated() {
      layer.attentionNorm(x, into: normed, on: queue, kernels)
      try layer.attention(normed, into: added, metadata: metadata, memory, on: queue, kernels)
      layer.postAttentionNorm(added, into: added, on: queue, kernels)
      kernels.add(added, to: x, on: queue)

      layer.feedForwardNorm(x, into: normed, on: queue, kernels)
      layer.feedForward(normed, into: added, memory, on: queue, kernels)
      layer.experts?(x, addingTo: added, normed: normed, answer: expertAnswer.prefix(n), memory, on: queue, kernels)
      layer.postFeedForwardNorm(added, into: added, on: queue, kernels)
      kernels.add(added, to: x, on: queue)

      if let input = layer.input, let inputs {
        input(x, inputs, layer: index, into: added, on: queue, kernels)
        kernels.add(added, to: x, on: queue)
      }
      if layer.scale != 1 { kernels.scale(x, by: layer.scale, softCap: nil, on: queue) }
    }
    return x
  }

  func logits(of hidden: Tensor, rows: Tensor, output: Tensor, on queue: any DeviceQueue) {
    vocabulary.logits(of: hidden, rows: rows, into: output, memory, on: queue, kernels)
  }

  init(_ description: Gemma4Description, _ loader: inout WeightLoader, in context: ModelContext) throws {
    let configuration = description.configuration, hiddenSize = configuration.hiddenSize
    let inputs =
      try description.inputSize == 0
      ? nil : Gemma4Inputs(&loader, configuration, size: description.inputSize, in: context)
    layers = try description.layers.enumerated().map { index, layer in
      let prefix = "blk.\(index)"
      func norm(_ name: String) throws -> RMSNorm {
        try loader.norm("\(prefix).\(name).weight", count: hiddenSize, epsilon: configuration.normEpsilon)
      }
      return Layer(
        attentionNorm: try norm("attn_norm"),
        attention: try Gemma4Attention(&loader, layer, prefix: prefix, configuration, in: context),
        postAttentionNorm: try norm("post_attention_norm"), feedForwardNorm: try norm("ffn_norm"),
        feedForward: try GatedMLP(
          &loader, prefix: prefix, hiddenSize: hiddenSize, width: layer.feedForwardSize, activation: .geluTanh),
        experts: try description.experts.map { try Gemma4Experts(&loader, prefix: prefix, configuration, $0) },
        postFeedForwardNorm: try norm("post_ffw_norm"),
        input: try inputs.map { try Gemma4LayerInput(&loader, prefix: prefix, configuration, size: $0.size) },
        scale: try loader.floats("\(prefix).layer_output_scale.weight", count: 1)[0])
    }
    attention = layers.compactMap { $0.attention.sharesCache ? nil : $0.attention.layer }
    self.inputs = inputs
    vocabulary = try Vocabulary(
      &loader, configuration: configuration, embeddingScale: Float(hiddenSize).squareRoot(), logitCap: description.logitCap)
    try loader.finish()
    self.configuration = configuration
    memory = try StepMemory(
      configuration, layers: description.layers.map(\.attention), widths: description.layers.map(\.feedForwardSize),
      experts: description.experts.map { [$0] } ?? [], in: context)
    expertAnswer = try context.device.makeTensor(Shape(description.experts == nil ? 0 : context.maxNumTokens, hiddenSize), .f32)
    kernels = context.device.tensorKernels
  }
}

/// Attention whose values are normalised without a weight, and which may read another layer's cache.
struct Gemma4Attention {
  let layer: AttentionLayer
  let sharesCache: Bool
  /// W_q, or W_q, W_k and W_v; where keys serve as values, W_k once more.
  let projection: Projection
  let output: Projection
  /// Ones: the norm of values has no weight.
  let valueNorm: RMSNorm

  init(
    _ loader: inout WeightLoader, _ description: Gemma4Description.Layer, prefix: String, _ configuration: ModelConfiguration,
    in context: ModelContext
  ) throws {
    let spec = description.attention
    layer = try AttentionLayer(spec, backend: context.attentionBackend, in: context.attention)
    sharesCache = description.sharesCache
    let value = description.keysAreValues ? "\(prefix).attn_k" : "\(prefix).attn_v"
    projection = try loader.projection(
      [("\(prefix).attn_q", spec.queryWidth)]
        + (sharesCache ? [] : [("\(prefix).attn_k", spec.keyWidth), (value, spec.valueWidth)]), columns: configuration.hiddenSize)
    output = try loader.projection("\(prefix).attn_output", rows: configuration.hiddenSize, columns: spec.outputWidth)
    valueNorm = RMSNorm(
      weight: try loader.vector([Float](repeating: 1, count: spec.valueHeadDim)), epsilon: configuration.normEpsilon)
  }

  func callAsFunction(
    _ input: Tensor, into output: Tensor, metadata: AttentionMetadata, _ memory: StepMemory, on queue: any DeviceQueue,
    _ kernels: any TensorKernels
  ) throws {
    let n = input.shape[0], spec = layer.spec
    let attended = memory.attended(n, columns: spec.outputWidth)
    let projected = memory.qkv(n, columns: sharesCache ? spec.queryWidth : spec.fusedWidth)
    projection(input, into: projected, on: queue, kernels)
    if !sharesCache {
      // Until attention writes there, its output has room for the values, which are no more.
      let values = attended.rows(n * spec.numKVHeads, columns: spec.valueHeadDim)
      let inProjected = HeadPlace(
        projected, column: spec.queryWidth + spec.keyWidth, rowStride: spec.fusedWidth, headStride: spec.valueHeadDim)
      let apart = HeadPlace(values, rowStride: spec.valueWidth, headStride: spec.valueHeadDim)
      kernels.copyHeads(inProjected, to: apart, rows: n, heads: spec.numKVHeads, width: spec.valueHeadDim, on: queue)
      valueNorm(values, into: values, on: queue, kernels)
      kernels.copyHeads(apart, to: inProjected, rows: n, heads: spec.numKVHeads, width: spec.valueHeadDim, on: queue)
    }
    let inputs = sharesCache ? AttentionInputs(queries: projected) : AttentionInputs(fusedQKV: projected)
    try layer.forward(inputs, metadata: metadata, output: AttentionOutput(values: attended), on: queue)
    self.output(attended, into: output, on: queue, kernels)
  }
}

/// Experts beside the dense block: the dense answer becomes its norm, and the norm of the experts' is added.
struct Gemma4Experts {
  let routerNorm: RMSNorm
  let inputNorm: RMSNorm
  let experts: ExpertMLP
  let postDenseNorm: RMSNorm
  let postExpertsNorm: RMSNorm

  init(_ loader: inout WeightLoader, prefix: String, _ configuration: ModelConfiguration, _ description: ExpertDescription) throws {
    let hiddenSize = configuration.hiddenSize, epsilon = configuration.normEpsilon
    func norm(_ name: String) throws -> RMSNorm { try loader.norm("\(prefix).\(name).weight", count: hiddenSize, epsilon: epsilon) }
    let scale = try loader.floats("\(prefix).ffn_gate_inp.scale", count: hiddenSize), root = 1 / Float(hiddenSize).squareRoot()
    routerNorm = RMSNorm(weight: try loader.vector(scale.map { $0 * root }), epsilon: epsilon)
    inputNorm = try norm("pre_ffw_norm_2")
    let factors = try loader.vector(loader.floats("\(prefix).ffn_down_exps.scale", count: description.routing.numExperts))
    experts = try ExpertMLP(&loader, prefix: prefix, hiddenSize: hiddenSize, description, factors: factors)
    postDenseNorm = try norm("post_ffw_norm_1")
    postExpertsNorm = try norm("post_ffw_norm_2")
  }

  /// - Parameters:
  ///   - x: the residual stream.
  ///   - added: what the dense block answered.
  ///   - normed, answer: room for `[n, hiddenSize]` each.
  func callAsFunction(
    _ x: Tensor, addingTo added: Tensor, normed: Tensor, answer: Tensor, _ memory: StepMemory, on queue: any DeviceQueue,
    _ kernels: any TensorKernels
  ) {
    postDenseNorm(added, into: added, on: queue, kernels)
    routerNorm(x, into: answer, on: queue, kernels)
    inputNorm(x, into: normed, on: queue, kernels)
    experts(normed, routedBy: answer, into: answer, memory, on: queue, kernels)
    postExpertsNorm(answer, into: answer, on: queue, kernels)
    kernels.add(answer, to: added, on: queue)
  }
}

/// What each layer is given of a token beside the residual stream.
struct Gemma4Inputs {
  let size: Int
  let embedding: Projection
  let projection: Projection
  let norm: RMSNorm
  /// Multiplies what is projected from the residual stream.
  let projectionScale: Float
  /// `[maxNumTokens, layers · size]`.
  let values: Tensor
  private let projected: Tensor
  /// `[maxNumTokens, size]`, and twice as wide.
  let gate: Tensor, gateUp: Tensor

  init(_ loader: inout WeightLoader, _ configuration: ModelConfiguration, size: Int, in context: ModelContext) throws {
    let width = configuration.numLayers * size, n = context.maxNumTokens
    self.size = size
    embedding = try loader.projection("per_layer_token_embd", rows: configuration.vocabularySize, columns: width)
    projection = try loader.projection("per_layer_model_proj", rows: width, columns: configuration.hiddenSize)
    norm = try loader.norm("per_layer_proj_norm.weight", count: size, epsilon: configuration.normEpsilon)
    projectionScale = 1 / Float(configuration.hiddenSize).squareRoot()
    func make(_ columns: Int) throws -> Tensor { try context.device.makeTensor(Shape(n, columns), .f32) }
    values = try make(width)
    projected = try make(width)
    gate = try make(size)
    gateUp = try make(2 * size)
  }

  /// (norm(W · x / √hiddenSize) + √size · embed(token)) / √2
  func callAsFunction(_ tokens: Tensor, _ x: Tensor, on queue: any DeviceQueue, _ kernels: any TensorKernels) {
    let n = tokens.count, values = values.prefix(n), projected = projected.prefix(n)
    kernels.embed(tokens: tokens, weight: embedding.weight, scale: Float(size).squareRoot(), output: values, on: queue)
    projection(x, into: projected, on: queue, kernels)
    kernels.scale(projected, by: projectionScale, softCap: nil, on: queue)
    let parts = projected.rows(projected.count / size, columns: size)
    norm(parts, into: parts, on: queue, kernels)
    kernels.add(projected, to: values, on: queue)
    kernels.scale(values, by: Float(0.5).squareRoot(), softCap: nil, on: queue)
  }
}

/// What a layer makes of its own input: norm(W_b · (gelu(W_a · x) ⊙ p)).
struct Gemma4LayerInput {
  let gate: Projection
  let projection: Projection
  let norm: RMSNorm

  init(_ loader: inout WeightLoader, prefix: String, _ configuration: ModelConfiguration, size: Int) throws {
    gate = try loader.projection("\(prefix).inp_gate", rows: size, columns: configuration.hiddenSize)
    projection = try loader.projection("\(prefix).proj", rows: configuration.hiddenSize, columns: size)
    norm = try loader.norm("\(prefix).post_norm.weight", count: configuration.hiddenSize, epsilon: configuration.normEpsilon)
  }

  func callAsFunction(
    _ x: Tensor, _ inputs: Gemma4Inputs, layer: Int, into output: Tensor, on queue: any DeviceQueue, _ kernels: any TensorKernels
  ) {
    let n = x.shape[0], size = inputs.size
    let gate = inputs.gate.prefix(n), gateUp = inputs.gateUp.prefix(n), width = inputs.values.shape[1]
    self.gate(x, into: gate, on: queue, kernels)
    kernels.copyHeads(
      HeadPlace(gate, rowStride: size, headStride: 0), to: HeadPlace(gateUp, rowStride: 2 * size, headStride: 0), rows: n, heads: 1,
      width: size, on: queue)
    kernels.copyHeads(
      HeadPlace(inputs.values, column: layer * size, rowStride: width, headStride: 0),
      to: HeadPlace(gateUp, column: size, rowStride: 2 * size, headStride: 0), rows: n, heads: 1, width: size, on: queue)
    kernels.gatedActivation(.geluTanh, gateUp: gateUp, output: gate, on: queue)
    projection(gate, into: output, on: queue, kernels)
    norm(output, into: output, on: queue, kernels)
  }
}
