// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletAttention
public import MartletCore
import MartletKVCache

/// What a backend is run on: a layer as numbers, requests, and the steps that take them through it.
///
/// The same scenario serves every backend, page size and form of input, so that its float64 truth is computed once.
public struct ConformanceScenario: Sendable {
  /// The layer; `spec` has no tensors.
  public var layer: ReferenceLayer
  /// By id.
  public var requests: [Int: RequestRows]
  public var steps: [[AttentionHarness.Piece]]
  public var mask: AttentionMask
  /// Whether keys and values are an encoder's.
  public var isCross: Bool
  /// Whether steps use the cache.
  public var usesCache: Bool
  public var maxSequenceLength: Int
  /// Multiplies e4m3 output.
  public var outputScale: Float
  /// Of the custom bits.
  public var seed: UInt64

  public init(
    layer: ReferenceLayer, requests: [Int: RequestRows], steps: [[AttentionHarness.Piece]], mask: AttentionMask = .causal,
    isCross: Bool = false, usesCache: Bool = true, maxSequenceLength: Int, outputScale: Float = 1, seed: UInt64 = 1
  ) {
    self.layer = layer
    self.requests = requests
    self.steps = steps
    self.mask = mask
    self.isCross = isCross
    self.usesCache = usesCache
    self.maxSequenceLength = maxSequenceLength
    self.outputScale = outputScale
    self.seed = seed
  }
}

// MARK: - From a case

extension ConformanceScenario {
  /// Everything that is drawn comes from the case's seed; backend, page size and form of input play no part.
  public init(_ example: ConformanceCase) {
    var random = SeededNumbers(seed: example.seed, 1)
    self.init(outlineOf: example, &random)
    let (queries, keys) = Self.lengths(steps)
    // Queries of an encoder's keys have no cache positions of their own; now and then others have positions that are not the cache's.
    let shift = isCross ? 1 : example.rope == .neoX || example.rope == .yarn ? 2 * random.index(below: 2) : 0
    for id in queries.keys.sorted() {
      var positions =
        shift > 0 && layer.spec.positionalEmbedding != nil ? (0..<queries[id]!).map { RequestRows.Position(repeating: $0 + shift) } : nil
      // Of three requests one is a text, which has one position a token.
      if example.rope.hasAxes && id % 3 != 2 {
        positions = (0..<queries[id]!).map { RequestRows.Position($0 / 3, $0 % 7, random.index(below: $0 + 1)) }
      }
      requests[id] = drawRows(id, queries: queries[id]!, keys: keys[id]!, positions: positions)
    }
  }

  /// The same without requests: enough to ask whether somebody serves it.
  init(outlineOf example: ConformanceCase) {
    var random = SeededNumbers(seed: example.seed, 1)
    self.init(outlineOf: example, &random)
  }

  private init(outlineOf example: ConformanceCase, _ random: inout SeededNumbers) {
    let (numHeads, numKVHeads) = example.heads.counts
    let headDim = example.headDim
    // Now and then a sequence crosses the chunk of 512 keys, where that costs little.
    let isLong = numHeads * headDim <= 768 && random.index(below: 4) == 0
    let steps = Self.steps(example.phase, isLong: isLong, &random)
    let longest = Self.lengths(steps).keys.values.max() ?? 1
    let maxSequenceLength = (longest + 4 + 63) / 64 * 64
    let qScaling: Float = [1, 1.5, 0.75][random.index(below: 3)]
    var spec: AttentionLayerSpec
    if let mla = example.mla {
      spec = AttentionLayerSpec(layerIndex: 3, numHeads: numHeads, mla: mla, qScaling: qScaling, rope: nil)
    } else {
      spec = AttentionLayerSpec(
        layerIndex: 3, numHeads: numHeads, headDim: headDim, numKVHeads: numKVHeads,
        valueHeadDim: example.values == .narrower ? headDim - 16 : nil, qScaling: qScaling)
    }
    if example.mask.hasWindow { spec.window = isLong ? 70 : 3 + random.index(below: 30) }
    if example.mask.hasSoftCap { spec.softCap = [1.5, 4, 30][random.index(below: 3)] }
    let rotated = example.mla.map { (dim: $0.qkRopeHeadDim, first: $0.kvLoraRank) } ?? (dim: headDim, first: 0)
    spec.positionalEmbedding = Self.positions(example.rope, headDim: rotated.dim, maxSequenceLength: maxSequenceLength, &random)
    spec.positionalEmbedding?.firstDim = rotated.first
    // Scales of no round number; the greatest input, about 3.5, stays within 448 of them.
    let scales = example.kvType == .f8e4m3 ? KVScales(key: 0.0231, value: example.mla == nil ? 0.0173 : 0.0231) : KVScales()
    spec.quantConfig = QuantConfig(kvScales: scales, fp8Inputs: example.fp8.hasInputs, fp8Output: example.fp8.hasOutput)
    var layer = ReferenceLayer(
      spec, kvType: example.kvType, kvScales: scales, maxSequenceLength: maxSequenceLength,
      queryRounding: example.fp8.hasInputs ? .e4m3 : .float32)
    if example.mask.hasSinks { layer.sinks = (0..<numHeads).map { _ in random.normal() + 0.5 } }
    if example.norm == .heads {
      layer.queryNorm = ((0..<headDim).map { _ in 1 + random.normal() / 4 }, 1e-6)
      layer.keyNorm = ((0..<headDim).map { _ in 1 + random.normal() / 4 }, 1e-5)
    }
    self.init(
      layer: layer, requests: [:], steps: steps, mask: example.mask.attentionMask,
      isCross: example.phase == .cross, usesCache: example.phase != .noCache, maxSequenceLength: maxSequenceLength,
      outputScale: 37.5, seed: example.seed)
    if isCross && mask == .causal { mask = .full }
  }

  private static func steps(_ phase: ConformanceCase.Phase, isLong: Bool, _ random: inout SeededNumbers) -> [[AttentionHarness.Piece]] {
    func some(_ least: Int, _ spread: Int) -> Int { least + random.index(below: spread) }
    switch phase {
    case .context:
      return [[.context(1, isLong ? some(515, 20) : some(65, 40)), .context(2, some(2, 40)), .context(3, 1)]]
    case .chunk:
      return [
        [.context(1, isLong ? some(490, 20) : some(33, 20)), .context(2, some(5, 10))],
        [.context(1, some(35, 30)), .context(2, 64)],
        [.context(1, some(2, 9))],
      ]
    case .generation:
      let first: [AttentionHarness.Piece] = [.context(1, isLong ? some(508, 4) : some(60, 4)), .context(2, some(13, 3))]
      return [first] + Array(repeating: [.generation(1), .generation(2)], count: 5)
    case .mixed:
      return [
        [.context(1, isLong ? some(500, 20) : some(40, 20))],
        [.context(2, some(3, 12)), .generation(1)],
        [.context(2, some(60, 40)), .context(3, 1), .generation(1, 3)],
        [.generation(1), .generation(2), .generation(3)],
        [.context(4, some(20, 20)), .generation(2, 4), .generation(1), .generation(3, 2)],
      ]
    case .drafts:
      return [
        [.context(1, isLong ? some(507, 5) : some(59, 5)), .context(2, some(12, 4))],
        [.generation(1, 4), .generation(2, 3)],
        [.generation(1), .generation(2, 8)],
        [.generation(1, 7), .generation(2, 2)],
      ]
    case .cross:
      return [
        [.context(1, some(3, 9), keys: isLong ? some(513, 20) : some(65, 30)), .context(2, some(20, 20), keys: some(2, 9))],
        [.context(3, 1, keys: some(30, 9)), .generation(1, keys: 0), .generation(2, 3, keys: 0)],
      ]
    case .noCache:
      return [
        [.context(1, isLong ? some(515, 20) : some(65, 40)), .context(2, some(2, 40))],
        [.context(3, some(2, 9)), .context(4, some(65, 20))],
      ]
    }
  }

  private static func lengths(_ steps: [[AttentionHarness.Piece]]) -> (queries: [Int: Int], keys: [Int: Int]) {
    var queries: [Int: Int] = [:]
    var keys: [Int: Int] = [:]
    for piece in steps.joined() {
      queries[piece.id, default: 0] += piece.newTokens
      keys[piece.id, default: 0] += piece.keyCount
    }
    return (queries, keys)
  }

  private static func positions(
    _ rope: ConformanceCase.Rope, headDim: Int, maxSequenceLength: Int, _ random: inout SeededNumbers
  ) -> PositionalEmbeddingParams? {
    func params(_ scaling: RopeParams.Scaling, theta: Double = 10000) -> PositionalEmbeddingParams {
      PositionalEmbeddingParams(RopeParams(dim: headDim, theta: theta, scaling: scaling), isNeoX: true)
    }
    switch rope {
    case .none: return nil
    case .neoX: return params(.none)
    case .gptJ: return PositionalEmbeddingParams(RopeParams(dim: headDim, theta: 500_000), isNeoX: false)
    case .partial: return PositionalEmbeddingParams(RopeParams(dim: headDim / 2), isNeoX: random.index(below: 2) == 0)
    case .linear: return params(.linear(factor: 4))
    case .dynamic: return params(.dynamic(alpha: 3))
    case .llama3: return params(.llama3(factor: 8, originalMaxPositions: 64), theta: 500_000)
    case .yarn: return params(.yarn(factor: 4, originalMaxPositions: 64))
    case .longRope:
      let pairs = 0..<headDim / 2
      // One below every sequence's length, one above: both lists are met.
      let original = random.index(below: 2) == 0 ? 32 : 4096
      return params(
        .longRope(
          shortFactors: pairs.map { 1 + Double($0) / 64 }, longFactors: pairs.map { 1 + Double($0) / 4 }, originalMaxPositions: original,
          maxPositions: original * 8))
    case .deferred:
      let isNeoX = random.index(below: 2) == 0
      return PositionalEmbeddingParams(RopeParams(dim: headDim), isNeoX: isNeoX, kind: .deferred)
    case .mrope, .interleavedMRope:
      let spatial = headDim / 2 * 3 / 10
      return PositionalEmbeddingParams(
        RopeParams(dim: headDim, theta: 1_000_000), isNeoX: random.index(below: 3) > 0,
        mrope: MRopeSections(pairs: [headDim / 2 - 2 * spatial, spatial, spatial], isInterleaved: rope == .interleavedMRope))
    }
  }
}

// MARK: - Inputs

extension ConformanceScenario {
  /// A request's rows. A token with a finished head that float32 and float64 may round apart is drawn again, so that what is compared is the
  /// backend's arithmetic and not the luck of a tie.
  func drawRows(_ id: Int, queries: Int, keys: Int, firstQuery: Int = 0, positions: [RequestRows.Position]? = nil) -> RequestRows {
    let spec = layer.spec
    let rope = spec.positionalEmbedding.map { ReferenceRope($0, maxSequenceLength: layer.maxSequenceLength) }
    let keyRope = spec.positionalEmbedding?.kind == .deferred ? nil : rope
    let (queryTies, keyTies) = (layer.computedQueryRounding, layer.keyRounding)
    var rows = RequestRows(q: [], k: [], v: [], positions: positions, rotatesKeysByPositions: !isCross)
    rows.q.reserveCapacity(queries * spec.queryWidth)
    rows.k.reserveCapacity(keys * spec.keyWidth)
    rows.v.reserveCapacity(keys * spec.valueWidth)
    for token in firstQuery..<firstQuery + queries {
      var random = SeededNumbers(seed: seed, id, token, 0)
      for _ in 0..<spec.numHeads { rows.q += drawHead(layer.queryNorm, rope, rows.queryPosition(token), queryTies, &random) }
    }
    for token in 0..<keys {
      var random = SeededNumbers(seed: seed, id, token, 1)
      for _ in 0..<spec.numKVHeads { rows.k += drawHead(layer.keyNorm, keyRope, rows.keyPosition(token), keyTies, &random) }
      rows.v += random.normals(spec.valueWidth)
    }
    return rows
  }

  private func drawHead(
    _ norm: (weight: [Float], epsilon: Float)?, _ rope: ReferenceRope?, _ position: RequestRows.Position,
    _ ties: ReferenceLayer.TieRounding,
    _ random: inout SeededNumbers
  ) -> [Float] {
    while true {
      let head = random.normals(layer.spec.headDim)
      if case .none = ties { return head }
      var x = head.map(Double.init)
      let isDoubtful = x.withUnsafeMutableBufferPointer { x in
        if let norm { ReferenceLayer.normalise(x.baseAddress!, norm) }
        if let rope { rope.rotate(x.baseAddress!, position: position) }
        return ReferenceLayer.isDoubtful(x.baseAddress!, count: x.count, rounding: ties)
      }
      if !isDoubtful { return head }
    }
  }

  /// The scenario's layer on a device: its sinks and norms as tensors.
  /// - Throws: `DeviceError` where the memory is not available.
  public func spec(on device: any Device) throws(DeviceError) -> AttentionLayerSpec {
    var spec = layer.spec
    func tensor(_ values: [Float]) throws(DeviceError) -> Tensor {
      let host = try device.makeHostBuffer(of: Float.self, count: values.count)
      for (index, value) in values.enumerated() { host[index] = value }
      let tensor = try device.makeTensor(Shape(values.count), .f32)
      let queue = device.makeQueue()
      queue.copy(host, count: values.count, to: tensor)
      queue.wait()
      return tensor
    }
    if let sinks = layer.sinks { spec.sinks = try tensor(sinks) }
    if let norm = layer.queryNorm { spec.queryNorm = HeadNorm(weight: try tensor(norm.weight), epsilon: norm.epsilon) }
    if let norm = layer.keyNorm { spec.keyNorm = HeadNorm(weight: try tensor(norm.weight), epsilon: norm.epsilon) }
    return spec
  }
}

// MARK: - Masks

extension ConformanceCase.Mask {
  /// What a forward is asked for.
  var attentionMask: AttentionMask {
    switch self {
    case .full: .full
    case .custom: .custom
    case .around: .bidirectional
    case .causal, .window, .softCap, .sinks, .all: .causal
    }
  }
}

extension ConformanceScenario {
  /// Whether a request has custom bits; those that have none are causal, which an encoder's keys cannot be.
  func hasBits(_ id: Int) -> Bool { mask == .custom && (isCross || id % 3 != 0) }

  /// The custom bit of a (query, key): its own key and about two of three others, later ones too; query 5 of request 1 sees nothing.
  func bit(_ id: Int, query: Int, key: Int) -> Bool {
    if id == 1 && query == 5 { return false }
    if key == query { return true }
    var random = SeededNumbers(seed: seed, id, query, key)
    return random.next() % 3 != 0
  }

  /// The bits of a request's step, as the metadata takes them.
  func maskBits(_ id: Int, firstQuery: Int, queries: Int, keys: Int) -> CustomAttentionMask? {
    guard hasBits(id) else { return nil }
    return CustomAttentionMask(queryLength: queries, keyLength: keys) { bit(id, query: firstQuery + $0, key: $1) }
  }

  /// What a query of a request sees, in a step that ends with `keys` keys.
  func visible(_ id: Int, query: Int, keys: Int) -> VisibleKeys {
    if hasBits(id) { return VisibleKeys(0..<keys, bits: (0..<keys).map { bit(id, query: query, key: $0) }) }
    if mask == .full || isCross { return VisibleKeys(0..<keys) }
    let window = layer.spec.window ?? Int.max
    if mask == .bidirectional {
      return VisibleKeys(max(0, query >= window ? query - window + 1 : 0)..<min(keys, query + min(window, keys)))
    }
    return VisibleKeys(max(0, query >= window ? query - window + 1 : 0)..<query + 1)
  }
}
