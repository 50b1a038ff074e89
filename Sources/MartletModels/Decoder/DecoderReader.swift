// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletAttention
public import MartletCore

/// What an architecture reads to describe its model: settings under its own prefix, RoPE, windows, and the small tensors that belong to attention.
///
/// A key is given without the prefix: `attention.scale` is `qwen3.attention.scale` in the file. Whatever a file says wrongly is an error that spells
/// the key as the file does.
public struct DecoderReader {
  public let source: any ModelSource
  /// The sizes that every decoder has; an architecture whose files spell them otherwise corrects them.
  public var configuration: ModelConfiguration
  var loader: WeightLoader

  /// - Parameter layersDiffer: whether sizes may be lists with a value for each layer, which the architecture then reads itself.
  init(_ source: any ModelSource, loader: WeightLoader, layersDiffer: Bool = false) throws {
    self.source = source
    self.loader = loader
    configuration = try ModelConfiguration(source, layersDiffer: layersDiffer)
  }

  // MARK: Settings

  /// The full name of a key.
  public func key(_ suffix: String) -> String { "\(configuration.architecture).\(suffix)" }

  public func integer(ifPresent suffix: String) throws -> Int? { try source.integer(ifPresent: key(suffix)) }
  public func float(ifPresent suffix: String) throws -> Float? { try source.float(ifPresent: key(suffix)) }
  public func bool(ifPresent suffix: String) throws -> Bool? { try source.bool(ifPresent: key(suffix)) }
  public func string(ifPresent suffix: String) throws -> String? { try source.string(ifPresent: key(suffix)) }
  public func integer(_ suffix: String) throws -> Int { try source.integer(key(suffix)) }
  public func float(_ suffix: String) throws -> Float { try source.float(key(suffix)) }

  /// A number above 0; nil without the key, and where it is 0, by which some files say that there is none.
  public func positive(ifPresent suffix: String) throws -> Float? {
    guard let value = try float(ifPresent: suffix), value != 0 else { return nil }
    guard value > 0 else { throw invalid(suffix, value, "it must be above 0") }
    return value
  }

  /// The error for a setting that contradicts itself, others, or what the architecture computes.
  public func invalid(_ suffix: String, _ value: Any, _ reason: String) -> ModelError { source.invalid(key(suffix), value, reason) }

  /// RoPE as the file has it, with every kind of scaling: by settings, or by the tensors in which some files have its factors.
  /// - Parameters:
  ///   - defaultTheta: the base where the file does not say.
  ///   - truncatesYarn: whether YaRN's ramp begins and ends at whole pairs, where the file does not say.
  public mutating func rope(defaultTheta: Double = 10000, truncatesYarn: Bool = true) throws -> RopeParams {
    let pairs = try (integer(ifPresent: "rope.dimension_count") ?? configuration.headDim) / 2
    var longRope: (short: [Double], long: [Double])?
    if hasTensor("rope_factors_long.weight") {
      func factors(_ name: String) throws -> [Double] { try floats("rope_factors_\(name).weight", count: pairs).map(Double.init) }
      longRope = try (factors("short"), factors("long"))
    }
    var rope = try RopeParams(source, configuration, defaultTheta: defaultTheta, longRope: longRope, truncatesYarn: truncatesYarn)
    if hasTensor("rope_freqs.weight") {  // Llama 3.1's stretching, worked out by whoever made the file
      rope.frequencyDivisors = try floats("rope_freqs.weight", count: pairs).map(Double.init)
      if let problem = rope.problem { throw source.invalid("rope_freqs.weight", "a tensor", problem) }
    }
    return rope
  }

  /// The sections of pairs that turn by time, height and width.
  ///
  /// - Parameters:
  ///   - usual: where the file does not say.
  ///   - isInterleaved: as ``MRopeSections/isInterleaved``, which a file never says.
  public func mropeSections(usual: [Int], isInterleaved: Bool) throws -> MRopeSections {
    let key = "rope.dimension_sections"
    let pairs = try source.integerList(ifPresent: self.key(key)) ?? usual
    // Files have a fourth axis, which the models themselves do not.
    guard pairs.count == 3 || pairs.count == 4 && pairs[3] == 0 else {
      throw invalid(key, pairs, "three numbers are wanted, or a fourth of 0")
    }
    let sections = MRopeSections(pairs: Array(pairs.prefix(3)), isInterleaved: isInterleaved)
    if let problem = sections.problem(dim: try integer(ifPresent: "rope.dimension_count") ?? configuration.headDim) {
      throw invalid(key, pairs, problem)
    }
    return sections
  }

  /// The sliding window of each layer; nil where a layer sees everything.
  /// - Parameter usualPattern: where the file does not say: all layers but every n-th have the window; nil: all have.
  public func windows(usualPattern: Int? = nil) throws -> [Int?] { try source.windows(configuration, usualPattern: usualPattern) }

  // MARK: Tensors

  public func hasTensor(_ name: String) -> Bool { loader.has(name) }

  /// The values of a small tensor.
  public mutating func floats(_ name: String, count: Int) throws -> [Float] { try loader.floats(name, count: count) }

  /// `blk.<layer>.<name>.weight`: the norm of a layer's query or key heads.
  public mutating func headNorm(_ name: String, layer: Int) throws -> HeadNorm {
    try loader.headNorm("blk.\(layer).\(name).weight", count: configuration.headDim, epsilon: configuration.normEpsilon)
  }

  /// Which of attention's projections have biases: all or none, where the file says it, and otherwise those of which there are tensors.
  public func attentionBiases() throws -> ProjectionBiases {
    let all: ProjectionBiases = [.queryKeyValue, .output]
    if let hasThem = try bool(ifPresent: "attention.bias") { return hasThem ? all : [] }
    var biases: ProjectionBiases = []
    if hasTensor("blk.0.attn_q.bias") || hasTensor("blk.0.attn_qkv.bias") { biases.insert(.queryKeyValue) }
    if hasTensor("blk.0.attn_output.bias") { biases.insert(.output) }
    return biases
  }

  /// The experts of a file, by the keys that all architectures have in common; nil where it has none.
  ///
  /// - Parameters:
  ///   - normalizes: whether the weights of the chosen are divided by their sum, where the file does not say.
  ///   - usualWidth: of an expert, where the file does not say; nil: the file must.
  public func experts(scoring: ExpertRouting.Scoring = .softmax, normalizes: Bool, usualWidth: Int? = nil) throws -> ExpertDescription? {
    guard let count = try integer(ifPresent: "expert_count"), count > 0 else { return nil }
    let width = try integer(ifPresent: "expert_feed_forward_length") ?? usualWidth ?? integer("expert_feed_forward_length")
    guard width >= 1, width <= ModelConfiguration.largestSize else {
      throw invalid("expert_feed_forward_length", width, "it must be within 1…\(ModelConfiguration.largestSize)")
    }
    let routing = ExpertRouting(
      numExperts: count, numUsed: try integer("expert_used_count"), scoring: scoring,
      normalizes: try bool(ifPresent: "expert_weights_norm") ?? normalizes, scale: try positive(ifPresent: "expert_weights_scale") ?? 1)
    if let problem = routing.problem { throw invalid("expert_used_count", routing.numUsed, problem) }
    return ExpertDescription(routing: routing, width: width)
  }

  /// Passes over the tensors of layers behind the last: heads that guess several tokens at once, which nobody needs to generate.
  public mutating func skipLayers(behind count: Int) throws { try loader.skip { $0 >= count } }

  /// `blk.<layer>.attn_sinks.weight`: the logit of each head that is in every denominator.
  public mutating func sinks(layer: Int) throws -> Tensor {
    try loader.vector("blk.\(layer).attn_sinks.weight", count: configuration.numHeads)
  }

  /// The scales that a file has for a layer's keys and values in a cache of e4m3; nil where it has none.
  mutating func cacheScales(layer: Int) throws -> KVScales? {
    func scale(_ name: String) throws -> Float? {
      let name = "blk.\(layer).\(name)"
      guard hasTensor(name) else { return nil }
      let scale = try floats(name, count: 1)[0]
      guard scale > 0, scale.isFinite else { throw source.invalid(name, scale, "a scale must be above 0") }
      return scale
    }
    guard let key = try scale("attn_k.cache_scale") else { return try scale("attn_v.cache_scale").map { KVScales(value: $0) } }
    return KVScales(key: key, value: try scale("attn_v.cache_scale") ?? 1)
  }

  // MARK: Descriptions

  /// A layer's attention, with the configuration's heads.
  ///
  /// - Parameters:
  ///   - scale: multiplies scores; nil: the file's `attention.scale`, or 1/√headDim.
  ///   - rope: nil: the layer does not rotate.
  ///   - isNeoX: whether RoPE turns halves, or neighbours.
  ///   - mrope: where tokens have three positions, which of them each pair turns by.
  public mutating func attention(
    _ layer: Int, scale: Float? = nil, softCap: Float? = nil, window: Int? = nil, sinks: Tensor? = nil, rope: RopeParams?,
    isNeoX: Bool = true, mrope: MRopeSections? = nil, queryNorm: HeadNorm? = nil, keyNorm: HeadNorm? = nil
  ) throws -> AttentionLayerSpec {
    var spec = AttentionLayerSpec(
      layerIndex: layer, numHeads: configuration.numHeads, headDim: configuration.headDim, numKVHeads: configuration.numKVHeads,
      valueHeadDim: configuration.valueHeadDim, scale: try scale ?? positive(ifPresent: "attention.scale"), softCap: softCap,
      window: window,
      sinks: sinks, positionalEmbedding: rope.map { PositionalEmbeddingParams($0, isNeoX: isNeoX, mrope: mrope) }, queryNorm: queryNorm,
      keyNorm: keyNorm)
    spec.kvScales = try cacheScales(layer: layer)
    return spec
  }
}
