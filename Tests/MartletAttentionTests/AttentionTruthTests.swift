// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Every backend against float64, over the shapes, masks and batches it serves. Keys and values are taken as the cache stores them, so that
// the tolerance is the arithmetic's alone; what the cache stores is compared on its own.

import MartletAttention
import MartletCPU
import MartletCore
import MartletKVCache
import Testing

/// What a case varies.
struct TruthCase: Sendable, CustomTestStringConvertible {
  var name: String
  var heads = 4
  var kvHeads = 2
  var headDim = 32
  var valueHeadDim: Int?
  var type = DataType.f32
  var pageSize = KVCacheConfig.PageSize.tokens(16)
  var window: Int?
  var softCap: Float?
  var hasSinks = false
  var hasNorm = false
  var positional: PositionalEmbeddingParams?
  var scale: Float?
  var kvScales = KVScales()
  var fp8Inputs = false

  var testDescription: String { name }

  /// What every backend serves.
  static let common: [TruthCase] = [
    TruthCase(name: "plain f32"),
    TruthCase(name: "bf16", type: .bf16),
    TruthCase(name: "f16", type: .f16),
    TruthCase(name: "one key/value head", heads: 3, kvHeads: 1, headDim: 64, type: .bf16),
    TruthCase(name: "as many key/value heads", heads: 3, kvHeads: 3, headDim: 64),
    TruthCase(name: "groups of five", heads: 10, kvHeads: 2, headDim: 32, type: .bf16),
    TruthCase(name: "head of 256", heads: 4, kvHeads: 1, headDim: 256, type: .bf16),
    TruthCase(name: "pages of 64", type: .bf16, pageSize: .tokens(64)),
    TruthCase(name: "window of 20", type: .bf16, window: 20),
    TruthCase(name: "window of 1", window: 1),
    TruthCase(name: "NeoX rotation", positional: PositionalEmbeddingParams(RopeParams(dim: 32))),
    TruthCase(
      name: "GPT-J rotation", type: .bf16, positional: PositionalEmbeddingParams(RopeParams(dim: 32, theta: 500_000), isNeoX: false)),
    TruthCase(name: "norm and rotation", type: .bf16, hasNorm: true, positional: PositionalEmbeddingParams(RopeParams(dim: 32))),
    TruthCase(
      name: "Gemma's window layer", heads: 4, kvHeads: 1, headDim: 256, type: .bf16, window: 24, hasNorm: true,
      positional: PositionalEmbeddingParams(RopeParams(dim: 256)), scale: 0.0625),
    TruthCase(
      name: "yarn", positional: PositionalEmbeddingParams(RopeParams(dim: 32, scaling: .yarn(factor: 4, originalMaxPositions: 64)))),
  ]

  /// What has paths of its own somewhere.
  static let special: [TruthCase] = [
    TruthCase(name: "soft cap", softCap: 2),
    TruthCase(name: "sinks", type: .bf16, hasSinks: true),
    TruthCase(name: "sinks, soft cap and window", window: 9, softCap: 3, hasSinks: true),
    TruthCase(name: "narrow values", headDim: 32, valueHeadDim: 24, type: .bf16),
    TruthCase(name: "partial rotation", type: .bf16, positional: PositionalEmbeddingParams(RopeParams(dim: 20))),
    TruthCase(name: "deferred rotation", positional: PositionalEmbeddingParams(RopeParams(dim: 32), kind: .deferred)),
    TruthCase(name: "more heads than a task has rows", heads: 100, kvHeads: 1, headDim: 16, type: .bf16),
    TruthCase(name: "e4m3", type: .f8e4m3, hasNorm: true, positional: PositionalEmbeddingParams(RopeParams(dim: 32))),
    TruthCase(name: "e4m3 with scales", headDim: 64, type: .f8e4m3, window: 40, kvScales: KVScales(key: 0.0625, value: 0.5)),
    TruthCase(name: "e4m3 inputs", type: .f8e4m3, kvScales: KVScales(key: 0.25, value: 2), fp8Inputs: true),
    TruthCase(name: "int8", type: .i8, hasNorm: true, positional: PositionalEmbeddingParams(RopeParams(dim: 32))),
    TruthCase(name: "int8, sinks, soft cap and window", headDim: 64, type: .i8, window: 33, softCap: 5, hasSinks: true),
  ]

  /// What backends of packed pages do not serve.
  static let anyPage: [TruthCase] = [TruthCase(name: "pages of 1", type: .f16, pageSize: .tokens(1))]

  /// What only the golden backend serves.
  static let golden: [TruthCase] = [
    TruthCase(name: "odd heads", headDim: 30, valueHeadDim: 20),
    TruthCase(name: "linear cache", type: .bf16, pageSize: .linear, window: 30),
  ]

  func spec(_ device: CPUDevice) throws -> AttentionLayerSpec {
    func tensor(_ count: Int, _ value: (Int) -> Float) throws -> Tensor {
      let tensor = try device.makeTensor(Shape(count), .f32)
      for index in 0..<count { tensor.unsafeHostPointer(to: Float.self)![index] = value(index) }
      return tensor
    }
    return AttentionLayerSpec(
      layerIndex: 3, numHeads: heads, headDim: headDim, numKVHeads: kvHeads, valueHeadDim: valueHeadDim, scale: scale, softCap: softCap,
      window: window, sinks: hasSinks ? try tensor(heads) { Float($0) - 1.5 } : nil,
      quantConfig: QuantConfig(kvScales: kvScales, fp8Inputs: fp8Inputs), positionalEmbedding: positional,
      queryNorm: hasNorm ? HeadNorm(weight: try tensor(headDim) { 1 + Float($0 % 5) / 8 }, epsilon: 1e-6) : nil,
      keyNorm: hasNorm ? HeadNorm(weight: try tensor(headDim) { 1.25 - Float($0 % 3) / 8 }, epsilon: 1e-6) : nil)
  }
}

@Suite("Against float64")
struct AttentionTruthTests {
  private static let maxLength = 256

  /// Contexts, a chunk over a cached prefix, generations and drafts, mixed in one batch as they come.
  private static let schedule: [[Piece]] = [
    [.context(1, 50)],
    [.context(2, 7), .generation(1)],
    [.context(2, 90), .context(3, 1), .generation(1, 3)],
    [.generation(1), .generation(2), .generation(3)],
    [.context(4, 33), .generation(2, 4), .generation(1), .generation(3, 2)],
  ]

  private func bench(
    _ backend: String, _ example: TruthCase, masks: Set<AttentionMask> = [.causal], workers: Int = 1, instructionSet: String? = nil,
    flashInferLayout: FlashInferAttention.Layout = .hnd
  ) throws -> AttentionRuntime {
    try AttentionRuntime(
      backend, [example.spec(try CPUDevice(threads: 1))],
      cache: KVCacheConfig(dataType: example.type, pageSize: example.pageSize), maxSequenceLength: Self.maxLength, maxSequences: 4,
      workers: workers, masks: masks, instructionSet: instructionSet, flashInferLayout: flashInferLayout)
  }

  /// Every variant that this machine can run.
  private static let instructionSets = InstructionSet.all.filter(\.isSupported).map(\.name)

  /// What the layer's queries are rounded to.
  private func queryType(_ bench: AttentionRuntime) -> DataType {
    if bench.layers[0].spec.quantConfig?.fp8Inputs == true { return .f8e4m3 }
    return usesPairDots(bench) ? .bf16 : .f32
  }

  /// Whether the layer's products are dot products of bf16 pairs: then queries and probabilities are rounded to bf16.
  private func usesPairDots(_ bench: AttentionRuntime) -> Bool {
    bench.layers[0].backendName != "VANILLA" && [.bf16, .f8e4m3, .i8].contains(bench.layers[0].kvLayerSpec.layout.dataType)
      && bench.device.instructionSet.name.contains("bf16")
  }

  /// Compares each row of the step with float64 over the keys and values as stored, and what is stored with its float64 value.
  private func check(_ bench: AttentionRuntime, _ step: [Piece], isVisible: ((Int, Int, Int) -> Bool)? = nil) throws {
    let spec = bench.layers[0].spec
    let manager = try #require(bench.manager)
    let tolerance = usesPairDots(bench) ? Self.pairTolerance : Self.tolerance
    for piece in step {
      let reference = ReferenceAttention(
        spec, maxSequenceLength: Self.maxLength, queryType: queryType(bench),
        isVisible: isVisible.map { visible in { visible(piece.id, $0, $1) } })
      let length = try #require(bench.positions[piece.id])
      let contents = try manager.read(
        layer: 0, request: piece.id, scales: spec.quantConfig?.kvScales ?? KVScales(), on: bench.queue)
      var keys = Array(repeating: [[Double]](), count: length)
      var values = keys
      for (index, position) in contents.positions.enumerated() {
        keys[position] = heads(contents.keys, index, spec.numKVHeads, spec.headDim)
        values[position] = heads(contents.values, index, spec.numKVHeads, spec.valueHeadDim)
        if spec.positionalEmbedding?.kind == .deferred { keys[position] = rotate(keys[position], spec, position, reference) }
      }
      try checkStored(contents, piece, from: length - piece.count, spec, manager.layout(layer: 0).dataType)
      let outputs = try #require(bench.outputs[0][piece.id])
      let sums = try #require(bench.logSumExps[0][piece.id])
      for position in length - piece.count..<length {
        let truth = reference.attend(
          id: piece.id, position: position, keys: keys,
          values: values)
        #expect(distance(outputs[position], truth.output) < tolerance, "request \(piece.id) position \(position)")
        #expect(distance(sums[position], truth.logSumExp) < tolerance, "log-sum-exp of request \(piece.id) position \(position)")
      }
    }
  }

  /// Compares what is stored of the step's new positions with its float64 value.
  private func checkStored(_ contents: KVContents, _ piece: Piece, from first: Int, _ spec: AttentionLayerSpec, _ type: DataType) throws {
    var stored = spec
    if spec.positionalEmbedding?.kind == .deferred { stored.positionalEmbedding = nil }
    let reference = ReferenceAttention(stored, maxSequenceLength: Self.maxLength)
    let scales = spec.quantConfig?.kvScales ?? KVScales()
    for (index, position) in contents.positions.enumerated() where position >= first {
      let keys = (heads(contents.keys, index, spec.numKVHeads, spec.headDim), reference.keys(id: piece.id, position: position), scales.key)
      let values = (
        heads(contents.values, index, spec.numKVHeads, spec.valueHeadDim), reference.values(id: piece.id, position: position), scales.value
      )
      for (stored, exact, scale) in [keys, values] {
        let isRounded = zip(stored, exact).allSatisfy { stored, exact in
          let greatest = exact.map(abs).max() ?? 0
          return zip(stored, exact).allSatisfy { abs($0 - $1) <= step(type, $1, greatest, Double(scale)) * 1.01 + 1e-6 }
        }
        #expect(isRounded, "what is stored of request \(piece.id) position \(position)")
      }
    }
  }

  /// Half a step of the type at x, in a head whose greatest is `greatest`; a little is added for exact values beside a rounding boundary.
  private func step(_ type: DataType, _ x: Double, _ greatest: Double, _ scale: Double) -> Double {
    switch type {
    case .f16: 0x1p-11 * max(abs(x), 0x1p-14)
    case .bf16: 0x1p-8 * abs(x)
    case .f8e4m3: max(0x1p-4 * abs(x), 0x1p-10 * scale)
    case .i8: greatest / 254
    default: 0x1p-20 * abs(x)  // norm and rotation in float32: a few roundings of 2⁻²⁴
    }
  }

  /// Sums of at most 256 float32 products of size about 1 in scores and in outputs: 256 · 2⁻²⁴ = 1.5e-5, and scores enter by exp.
  private static let tolerance = 5e-5
  /// A probability rounded to bf16 is off by up to 2⁻⁹ of itself, values reach 3.5: 7e-3 if all errors had one sign. What rounds to the other
  /// bf16 neighbour because a query was finished in float32, not in float64, is far less.
  private static let pairTolerance = 7e-3

  private func heads(_ flat: [Float], _ index: Int, _ count: Int, _ dim: Int) -> [[Double]] {
    (0..<count).map { head in (0..<dim).map { Double(flat[(index * count + head) * dim + $0]) } }
  }

  private func rotate(_ heads: [[Double]], _ spec: AttentionLayerSpec, _ position: Int, _ reference: ReferenceAttention) -> [[Double]] {
    heads.map { reference.rotated($0, spec.positionalEmbedding!, position) }
  }

  @Test("the golden backend computes attention", arguments: TruthCase.common + TruthCase.special + TruthCase.anyPage + TruthCase.golden)
  func golden(example: TruthCase) throws {
    let bench = try bench("VANILLA", example)
    for step in Self.schedule {
      try bench.step(step) { try check(bench, step) }
    }
  }

  @Test("the packed backend computes attention", arguments: TruthCase.common + TruthCase.special, Self.instructionSets)
  func packed(example: TruthCase, instructionSet: String) throws {
    // Two workers are promised, so that long rows may be cut, and there is one thread.
    let bench = try bench("TRTLLM", example, workers: 2, instructionSet: instructionSet)
    for step in Self.schedule {
      try bench.step(step) { try check(bench, step) }
    }
  }

  @Test(
    "the FlashInfer backend computes attention", arguments: TruthCase.common + TruthCase.special + TruthCase.anyPage,
    FlashInferAttention.Layout.allCases)
  func flashInfer(example: TruthCase, layout: FlashInferAttention.Layout) throws {
    let bench = try bench("FLASHINFER", example, workers: 2, flashInferLayout: layout)
    for step in Self.schedule {
      try bench.step(step) { try check(bench, step) }
    }
  }

  @Test("all backends agree over several chunks of keys, cut or whole, windowed or not", arguments: ["TRTLLM", "FLASHINFER"])
  func longSequences(backend: String) throws {
    func outputs(_ backend: String, threads: Int, workers: Int) throws -> [[Int: [[Float]]]] {
      // Without norm and rotation both backends store the same keys, so that the tolerance is the arithmetic's alone.
      let specs = [nil, 600].enumerated().map { index, window in
        AttentionLayerSpec(layerIndex: index, numHeads: 3, headDim: 32, numKVHeads: 1, window: window)
      }
      let bench = try AttentionRuntime(
        backend, specs, cache: KVCacheConfig(pageSize: .tokens(64)), maxSequenceLength: 1400, maxSequences: 2, maxTokens: 1300,
        threads: threads, workers: workers)
      try bench.step([.context(1, 1250)])
      try bench.step([.context(2, 40), .generation(1)])
      try bench.step([.generation(1, 3), .generation(2)])
      return bench.outputs
    }
    let golden = try outputs("VANILLA", threads: 1, workers: 1)
    for (threads, workers) in [(1, 1), (2, 8)] {
      let packed = try outputs(backend, threads: threads, workers: workers)
      for layer in 0..<2 {
        for (id, rows) in golden[layer] {
          let largest = zip(rows, packed[layer][id] ?? []).map { distance($1, $0.map(Double.init)) }.max() ?? .infinity
          // Both sum up to 1254 float32 products; the errors of both add. With bf16 pairs one rounds queries too, and the other does not:
          // scores of size 3 are then off by up to 2⁻⁸ of it, and outputs of size 1 by as much.
          let tolerance = try CPUDevice(threads: 1).instructionSet.name.contains("bf16") ? 3 * Self.pairTolerance : 2 * Self.tolerance
          #expect(largest < tolerance, "layer \(layer), request \(id), \(workers) workers")
        }
      }
    }
  }

  @Test("the full mask shows every key, and custom bits replace causal and window", arguments: AttentionBackendRegistry.builtIn.names)
  func masks(backend: String) throws {
    for (mask, visible) in [
      (AttentionMask.full, { (id: Int, query: Int, key: Int) in true }),
      (.custom, { (id: Int, query: Int, key: Int) in key % 3 == query % 3 || key == query }),
      // One row sees nothing at all.
      (.custom, { (id: Int, query: Int, key: Int) in query != 5 && key <= query }),
    ] {
      let bench = try bench(backend, TruthCase(name: "masks", type: .bf16, window: mask == .custom ? 20 : nil), masks: [.causal, mask])
      bench.mask = mask
      bench.isVisible = visible
      let step: [Piece] = [.context(1, 70), .context(2, 9)]
      try bench.step(step) { try check(bench, step, isVisible: visible) }
    }
  }

  @Test(
    "requests without bits are causal, within the window, beside those that have some", arguments: AttentionBackendRegistry.builtIn.names)
  func someBits(backend: String) throws {
    let bench = try bench(backend, TruthCase(name: "some bits", window: 20), masks: [.custom])
    bench.mask = .custom
    let bits = { (query: Int, key: Int) in key % 2 == 0 || key == query }
    let step: [Piece] = [.context(1, 70), .context(2, 50)]
    bench.beforePrepare = { $0.customMasks = [CustomAttentionMask(queryLength: 70, keyLength: 70, isVisible: bits), nil] }
    try bench.step(step) {
      try check(bench, step) { id, query, key in id == 1 ? bits(query, key) : key <= query && query - key < 20 }
    }
  }

  @Test(
    "a window on both sides shows the keys on both sides, over several chunks, with a cache and without one",
    arguments: AttentionBackendRegistry.builtIn.names, [5, 64, 600])
  func bidirectionalWindow(backend: String, window: Int) throws {
    let visible = { (id: Int, query: Int, key: Int) in abs(query - key) < window }
    let lengths = window == 600 ? [1: 1300, 2: 9] : [1: 140, 2: 9]
    let step: [Piece] = lengths.keys.sorted().map { .context($0, lengths[$0]!) }
    let example = TruthCase(name: "around", window: window)
    for cached in [true, false] {
      let bench = try AttentionRuntime(
        backend, [example.spec(CPUDevice(threads: 1))], cache: cached ? KVCacheConfig(dataType: .f32, pageSize: .tokens(16)) : nil,
        maxSequenceLength: 1344, maxTokens: 1344, workers: 3, masks: [.bidirectional])
      bench.mask = .bidirectional
      try bench.step(step)
      for (id, length) in lengths {
        let reference = ReferenceAttention(bench.layers[0].spec, maxSequenceLength: 1344) { visible(id, $0, $1) }
        let keys = (0..<length).map { reference.keys(id: id, position: $0) }
        let values = (0..<length).map { reference.values(id: id, position: $0) }
        // All of a short text, and of a long one the places around which chunks and windows begin and end.
        for position in 0..<length
        where length < 200 || [0, 1, 511, 512, 599, 600, 601, 699, 700, 701, 1023, 1024, 1299].contains(position) {
          let truth = reference.attend(id: id, position: position, keys: keys, values: values)
          #expect(
            distance(bench.outputs[0][id]![position], truth.output) < Self.tolerance,
            "request \(id), position \(position), cached \(cached)")
        }
      }
    }
  }

  @Test("without a cache each sequence attends to itself alone", arguments: InputForm.allCases, AttentionBackendRegistry.builtIn.names)
  func noCache(form: InputForm, backend: String) throws {
    for kind in [PositionalEmbeddingParams.Kind.rope, .deferred] {
      let spec = try TruthCase(name: "", positional: PositionalEmbeddingParams(RopeParams(dim: 32), kind: kind)).spec(CPUDevice(threads: 1))
      let bench = try AttentionRuntime(backend, [spec], cache: nil, maxSequenceLength: Self.maxLength)
      bench.form = form
      try bench.step([.context(1, 70), .context(2, 9)])
      for (id, length) in [(1, 70), (2, 9)] {
        let reference = ReferenceAttention(spec, maxSequenceLength: Self.maxLength)
        let keys = (0..<length).map { reference.keys(id: id, position: $0) }
        let values = (0..<length).map { reference.values(id: id, position: $0) }
        for position in 0..<length {
          let truth = reference.attend(id: id, position: position, keys: keys, values: values)
          #expect(distance(bench.outputs[0][id]![position], truth.output) < Self.tolerance)
        }
      }
    }
  }

  @Test("e4m3 output is the float32 output, scaled, rounded and saturated", arguments: AttentionBackendRegistry.builtIn.names)
  func fp8Output(backend: String) throws {
    func outputs(_ config: QuantConfig, scale: Float) throws -> AttentionRuntime {
      var spec = AttentionLayerSpec(layerIndex: 0, numHeads: 4, headDim: 32, numKVHeads: 2)
      spec.quantConfig = config
      let bench = try AttentionRuntime(backend, [spec], cache: KVCacheConfig(), maxSequenceLength: 64, maxSequences: 2)
      bench.outputScale = scale
      try bench.step([.context(1, 33), .context(2, 5)])
      try bench.step([.generation(1), .generation(2)])
      return bench
    }
    for scale in [1, 0.37, 1000] as [Float] {
      let wide = try outputs(QuantConfig(), scale: 1), narrow = try outputs(QuantConfig(fp8Output: true), scale: scale)
      #expect(narrow.layers[0].outputDataType == .f8e4m3)
      for (id, rows) in wide.outputs[0] {
        let expected = rows.map { $0.map { Float(Float8E4M3(saturating: $0 * scale)) } }
        #expect(narrow.outputs[0][id] == expected && narrow.logSumExps[0][id] == wide.logSumExps[0][id])
        if scale == 1000 { #expect(expected.joined().contains(448)) }
      }
    }
  }
}
