// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletLibc
import MartletAttention
import MartletCPU
import MartletCore
import MartletFormats
import MartletKVCache
import MartletModels
import MartletTestSupport
import Testing

/// Prompts of latent attention that are expanded: against Transformers, the formula in float64, and the absorbed form.
@Suite("Expanded prompts of latent attention")
struct LatentPromptsTests {
  static let backends = CheckpointTests.backends
  static let checkpoints = ["deepseek-v2", "deepseek-v2-groups", "deepseek-v3", "deepseek-v3-halves"]

  private func sources(_ checkpoint: TinyCheckpoint, _ name: String) throws -> [any ModelSource] {
    let directory = try ModelRegistry.builtIn.source(HuggingFaceDirectory(path: checkpoint.path))
    // A directory has W_uk as it is expanded, a file as it is absorbed.
    return TinyCheckpoint.converted.contains(name) ? [directory, try GGUFCheckpoint(path: checkpoint.path + "/model.gguf")] : [directory]
  }

  /// The tolerance is that of `CheckpointTests`: another order of sums.
  @Test("give the logits that Transformers gives, in whatever chunks", arguments: checkpoints, backends)
  func logits(name: String, backend: String) throws {
    let checkpoint = try TinyCheckpoint(name)
    for source in try sources(checkpoint, name) {
      let all = try ModelHarness(source, backend: backend, latentPrompts: .expanded(leastTokens: 1))
      let some = try ModelHarness(source, backend: backend, latentPrompts: .expanded(leastTokens: 4))
      let absorbed = try ModelHarness(source, backend: backend)
      for (prompt, expected) in zip(checkpoint.prompts, checkpoint.logits) {
        let largest = expected.joined().reduce(0) { max($0, abs($1)) }
        func expectNear(_ found: [[Float]], _ what: String) {
          let worst = zip(found.joined(), expected.joined()).reduce(0) { max($0, abs($1.0 - $1.1)) }
          #expect(found.count == expected.count && worst < 1e-5 * largest, "\(what): off by \(worst) where the largest is \(largest)")
        }
        let whole = try all.logits(prompt), plain = try absorbed.logits(prompt)
        expectNear(whole, "whole")
        #expect(whole != plain, "nothing was expanded")
        // One form is one arithmetic.
        for chunks in [[1, 2, 3, 4, 5], Array(repeating: 1, count: prompt.count), [prompt.count - 1]] {
          #expect(try all.logits(prompt, chunks: chunks) == whole, "\(chunks)")
        }
        // Short chunks are absorbed: alone to the bits of a model that expands nothing, between others near the truth.
        #expect(try some.logits(prompt, chunks: Array(repeating: 3, count: prompt.count)) == plain)
        let mixed = try some.logits(prompt, chunks: [3, 7, 1, 4, 2])
        #expect(Array(mixed.prefix(3)) == Array(plain.prefix(3)))
        expectNear(mixed, "some of it")
      }
    }
  }

  /// A linear cache is one page as long as the longest sequence, which only this backend reads.
  @Test("read a linear cache, too")
  func linear() throws {
    let checkpoint = try TinyCheckpoint("deepseek-v3")
    let source = try sources(checkpoint, "deepseek-v3")[0]
    let paged = try ModelHarness(source, backend: "VANILLA", latentPrompts: .expanded(leastTokens: 1))
    let linear = try ModelHarness(source, backend: "VANILLA", cachePages: .linear, latentPrompts: .expanded(leastTokens: 1))
    #expect(try linear.logits(checkpoint.prompts[0], chunks: [5]) == paged.logits(checkpoint.prompts[0]))
  }

  @Test("are expanded from as many tokens on as make them cheaper")
  func leastTokens() {
    let deepSeek = MLAParams(kvLoraRank: 512, qkNopeHeadDim: 128, qkRopeHeadDim: 64, vHeadDim: 128)
    // 171 · (2 · 512 − 128 − 128) ≥ 512 · (128 + 128) > 170 · 768.
    #expect(deepSeek.leastExpandedTokens == 171)
    #expect(MLAParams(kvLoraRank: 64, qkNopeHeadDim: 64, qkRopeHeadDim: 8, vHeadDim: 64).leastExpandedTokens == nil)
    #expect(LatentPrompts.absorbed.leastExpandedTokens(deepSeek) == nil)
    #expect(LatentPrompts.expanded().leastExpandedTokens(deepSeek) == 171)
    #expect(LatentPrompts.expanded(leastTokens: 5).leastExpandedTokens(deepSeek) == 5)
    for form in [LatentPrompts.absorbed, .expanded(), .expanded(leastTokens: 96)] { #expect(LatentPrompts("\(form)") == form) }
    for text in ["", "expand", "expanded:", "expanded:0", "expanded:-1", "expanded:x", "absorbed:1", "expanded:1:1"] {
      #expect(LatentPrompts(text) == nil, "\(text)")
    }
  }

  @Test("are refused by name where queries are rounded for another form, or kernels lack the dims")
  func refused() throws {
    let device = try CPUDevice(threads: 1)
    func heads(_ mla: MLAParams, _ type: DataType, _ quantConfig: QuantConfig = QuantConfig()) throws {
      let scene = try LatentScene(mla, heads: 2, backend: "TRTLLM", type, quantConfig: quantConfig, on: device)
      _ = try LatentMemory(scene.spec, mla, in: scene.context(.expanded(leastTokens: 1)))
    }
    let plain = MLAParams(kvLoraRank: 16, qkNopeHeadDim: 8, qkRopeHeadDim: 8, vHeadDim: 8)
    try heads(plain, .f8e4m3)
    #expect { try heads(plain, .f8e4m3, QuantConfig(fp8Inputs: true)) } throws: {
      "\($0)".contains("prompts cannot be expanded: queries in e4m3")
    }
    let wide = MLAParams(kvLoraRank: 16, qkNopeHeadDim: 576, qkRopeHeadDim: 8, vHeadDim: 8)
    #expect { try heads(wide, .f32) } throws: { "\($0)".contains("prompts cannot be expanded: a key head has 584 dimensions") }
  }

  /// Four requests in one step: 37 tokens behind 605, of which the keys lie in several slabs, chunks and pages; 3 behind 17; 20 of a new prompt; and a
  /// generation behind 99. The first and the third are expanded. Dims of heads that are no multiples of 8.
  ///
  /// Truth is the formula over latents as the cache holds them, which is the same arithmetic up to the order of sums where pages are float32. In bf16 keys,
  /// values and the kernels' weights are rounded to 8 bits: a score of a few units moves by about a hundredth, and an output by as much of the largest.
  @Test(
    "and the rows beside them are what the formula makes of the cache, of every type",
    arguments: backends, [DataType.f32, .f16, .bf16, .f8e4m3, .i8])
  func formula(backend: String, type: DataType) throws {
    let mla = MLAParams(kvLoraRank: 24, qkNopeHeadDim: 20, qkRopeHeadDim: 10, vHeadDim: 18)
    let quantConfig = QuantConfig(kvScales: type == .f8e4m3 ? KVScales(key: 0.5, value: 0.5) : KVScales())
    let scene = try LatentScene(mla, heads: 6, backend: backend, type, quantConfig: quantConfig, on: CPUDevice(threads: 2))
    try expectFormula(scene, tolerance: [.f32: 2e-5, .f16: 3e-3][type] ?? 3e-2)
  }

  /// Blocks of Q8_0 lie along the dims of a head, and are expanded along those of the latent. What is absorbed by them is rounded to 16 bits before.
  @Test("are expanded by matrices in blocks, too", arguments: backends)
  func blocks(backend: String) throws {
    let mla = MLAParams(kvLoraRank: 24, qkNopeHeadDim: 32, qkRopeHeadDim: 8, vHeadDim: 16)
    let scene = try LatentScene(mla, heads: 2, backend: backend, .f32, hasBlocks: true, on: CPUDevice(threads: 2))
    try expectFormula(scene, tolerance: 2e-4)
  }

  private func expectFormula(_ scene: LatentScene, tolerance: Float) throws {
    let before = [605, 17, 0, 99], new = [37, 3, 20, 1]
    let absorbed = try scene.heads(.absorbed), expanded = try scene.heads(.expanded(leastTokens: 8))
    try scene.run(absorbed, cached: [0, 0, 0, 0], new: before, contexts: 4, seed: 1)
    let plain = try scene.run(absorbed, cached: before, new: new, contexts: 3, seed: 2)
    let found = try scene.run(expanded, cached: before, new: new, contexts: 3, seed: 2)
    let expected = scene.formula(cached: before, new: new)
    let largest = expected.joined().reduce(0) { max($0, abs($1)) }
    var first = 0
    for (request, count) in new.enumerated() {
      let rows = first..<first + count
      for (name, values) in [("absorbed", plain), ("expanded", found)] {
        let worst = zip(values[rows].joined(), expected[rows].joined()).reduce(0) { max($0, abs($1.0 - $1.1)) }
        #expect(worst < tolerance * largest, "\(name), request \(request): off by \(worst) where the largest is \(largest)")
      }
      #expect((found[rows] == plain[rows]) == (count < 8), "request \(request)")
      first += count
    }
    // What is expanded does not depend on its neighbours.
    let alone = try scene.run(expanded, cached: [before[0]], new: [new[0]], contexts: 1, seed: 2)
    #expect(alone == Array(found.prefix(new[0])))
  }
}

/// A layer of latent attention between queries and values, with random weights, and a cache of four requests.
private final class LatentScene {
  let spec: AttentionLayerSpec
  private let mla: MLAParams
  private let numHeads: Int
  private let device: CPUDevice
  private let queue: any DeviceQueue
  private let attention: AttentionContext
  private let backend: any AttentionBackend.Type
  private let manager: KVCacheManager
  /// W_ukᵀ `[kvLoraRank, qkNopeHeadDim]` and W_uv `[vHeadDim, kvLoraRank]` of each head.
  private let keys: [[Float]], values: [[Float]]
  private let keyWeights: [Weight], valueWeights: [Weight]
  /// The step that ran last.
  private var metadata: AttentionMetadata?
  private var queries: [Float] = []

  /// - Parameter hasBlocks: whether W_ukᵀ is in Q8_0.
  init(
    _ mla: MLAParams, heads: Int, backend: String, _ type: DataType, quantConfig: QuantConfig = QuantConfig(), hasBlocks: Bool = false,
    on device: CPUDevice
  ) throws {
    self.mla = mla
    numHeads = heads
    self.device = device
    self.backend = try AttentionBackendRegistry.builtIn.backend(named: backend)
    attention = AttentionContext(
      device: device, kvCache: KVCacheConfig(dataType: type, pageSize: .tokens(16)), maxNumRequests: 4, maxNumTokens: 768,
      maxSequenceLength: 700, workerCount: 2, quantConfig: quantConfig)
    spec = AttentionLayerSpec(layerIndex: 3, numHeads: heads, mla: mla, rope: nil)
    let layer = try AttentionLayer(spec, backend: self.backend, in: attention)
    manager = try KVCacheManager(layers: [layer.kvLayerSpec], in: attention)
    queue = manager.queue
    for request in 0..<4 { #expect(manager.addSequence(request) && manager.extend(request, to: 700)) }
    var random = SeededGenerator(seed: 40)
    var keys: [[Float]] = [], keyWeights: [Weight] = []
    for _ in 0..<heads {
      if hasBlocks {
        // Codes of −127…127 and a scale of 2⁻⁹, which is a half to the bit.
        let codes = (0..<mla.kvLoraRank * mla.qkNopeHeadDim).map { _ in Int8.random(in: -127...127, using: &random) }
        keys.append(codes.map { Float($0) / 512 })
        var bytes: [UInt8] = []
        for start in stride(from: 0, to: codes.count, by: 32) {
          bytes += [0x00, 0x18] + codes[start..<start + 32].map { UInt8(bitPattern: $0) }
        }
        keyWeights.append(try Self.weight(bytes, .q8_0, mla.kvLoraRank, mla.qkNopeHeadDim, on: device))
      } else {
        keys.append((0..<mla.kvLoraRank * mla.qkNopeHeadDim).map { _ in Float.random(in: -0.4...0.4, using: &random) })
        keyWeights.append(try Self.weight(keys.last!, .f32, mla.kvLoraRank, mla.qkNopeHeadDim, on: device))
      }
    }
    self.keys = keys
    self.keyWeights = keyWeights
    let values = (0..<heads).map { _ in (0..<mla.vHeadDim * mla.kvLoraRank).map { _ in Float.random(in: -0.4...0.4, using: &random) } }
    self.values = values
    valueWeights = try values.map { try Self.weight($0, .f32, mla.vHeadDim, mla.kvLoraRank, on: device) }
  }

  private static func weight<T: BitwiseCopyable & Sendable>(
    _ elements: [T], _ format: WeightFormat, _ rows: Int, _ columns: Int, on device: CPUDevice
  ) throws -> Weight {
    let host = try device.makeHostBuffer(of: T.self, count: elements.count)
    for (index, element) in elements.enumerated() { host[index] = element }
    return Weight(
      name: "random", format: format, rows: rows, columns: columns, bytes: UnsafeRawBufferPointer(host.unsafeStorage), owner: host)
  }

  func context(_ form: LatentPrompts) -> ModelContext {
    ModelContext(attention: attention, attentionBackend: backend, maxLogitRows: 1, latentPrompts: form)
  }

  /// The layer in a form, with what it works in.
  func heads(_ form: LatentPrompts) throws -> (run: LatentHeads, memory: LatentMemory, metadata: AttentionMetadata) {
    let context = context(form)
    let heads = try LatentHeads(spec, mla, keys: keyWeights, values: valueWeights, in: context)
    let metadata = try heads.layer.makeMetadata(
      AttentionMetadata.Setup(context: attention, layers: [heads.layer.spec], kvCacheManager: manager))
    return (heads, try LatentMemory(spec, mla, in: context), metadata)
  }

  /// A step with random queries and latents; one without new tokens leaves a request out.
  /// - Returns: the values of each row, all heads.
  @discardableResult
  func run(
    _ heads: (run: LatentHeads, memory: LatentMemory, metadata: AttentionMetadata), cached: [Int], new: [Int], contexts: Int, seed: UInt64
  ) throws -> [[Float]] {
    let metadata = heads.metadata
    metadata.removeAllRequests()
    for (request, count) in new.enumerated() where count > 0 {
      metadata.addRequest(
        request, newTokens: count, cachedTokens: cached[request], promptLength: cached[request] + count, isContext: request < contexts)
    }
    try metadata.prepare()
    let n = metadata.numTokens, queryWidth = numHeads * (mla.qkNopeHeadDim + mla.qkRopeHeadDim), width = mla.headDim
    var random = SeededGenerator(seed: seed)
    let queries = heads.memory.queries.unsafeHostPointer(to: Float.self)!, fused = heads.memory.fused.unsafeHostPointer(to: Float.self)!
    for row in 0..<n {
      for column in 0..<queryWidth { queries[row * queryWidth + column] = Float.random(in: -2...2, using: &random) }
      // The latent stands behind the heads; what follows it stays zero.
      let latent = (row * (numHeads + 1) + numHeads) * width
      for dim in 0..<mla.kvLoraRank + mla.qkRopeHeadDim { fused[latent + dim] = Float.random(in: -2...2, using: &random) }
    }
    try heads.run(n, metadata: metadata, heads.memory, on: queue, device.tensorKernels)
    queue.wait()
    self.metadata = metadata
    self.queries = Array(queries[0..<n * queryWidth])
    let values = heads.memory.values.unsafeHostPointer(to: Float.self)!, outputWidth = numHeads * mla.vHeadDim
    return (0..<n).map { Array(values[$0 * outputWidth..<($0 + 1) * outputWidth]) }
  }

  /// What the last step should have found, in float64 over the cache.
  func formula(cached: [Int], new: [Int]) -> [[Float]] {
    guard let metadata else { return [] }
    let rank = mla.kvLoraRank, nope = mla.qkNopeHeadDim, rope = mla.qkRopeHeadDim
    let scale = 1 / Double(nope + rope).squareRoot()
    var rows: [[Float]] = []
    for (request, count) in new.enumerated() {
      let length = cached[request] + count, latents = stored(request, length, metadata)
      var outputs = Array(repeating: [Float](), count: count)
      for head in 0..<numHeads {
        let expandedKeys = latents.map { c -> [Double] in
          let key = (0..<nope).map { dim in dot(rank) { Double(keys[head][$0 * nope + dim]) * c[$0] } }
          return key + c[rank..<rank + rope]
        }
        let expandedValues = latents.map { c -> [Double] in
          (0..<mla.vHeadDim).map { dim in dot(rank) { Double(values[head][dim * rank + $0]) * c[$0] } }
        }
        for token in 0..<count {
          let start = ((rows.count + token) * numHeads + head) * (nope + rope)
          let query = queries[start..<start + nope + rope].map(Double.init)
          let visible = cached[request] + token + 1
          let scores = (0..<visible).map { key in scale * dot(nope + rope) { query[$0] * expandedKeys[key][$0] } }
          let greatest = scores.max()!
          let weights = scores.map { exp($0 - greatest) }
          let sum = weights.reduce(0, +)
          outputs[token] += (0..<mla.vHeadDim).map { dim in Float(dot(visible) { weights[$0] * expandedValues[$0][dim] } / sum) }
        }
      }
      rows += outputs
    }
    return rows
  }

  private func dot(_ count: Int, _ term: (Int) -> Double) -> Double { (0..<count).reduce(0) { $0 + term($1) } }

  /// A request's latents as the cache holds them.
  private func stored(_ request: Int, _ length: Int, _ metadata: AttentionMetadata) -> [[Double]] {
    let width = mla.kvLoraRank + mla.qkRopeHeadDim
    guard let output = try? device.makeTensor(Shape(length, width), .f32) else { return [] }
    device.attentionKernels.gather(
      GatherArguments(
        cache: metadata.cache(ofLayer: spec.layerIndex), scales: attention.quantConfig.kvScales, request: request, positions: 0..<length,
        dims: 0..<width, output: output), on: queue)
    queue.wait()
    let numbers = output.unsafeHostPointer(to: Float.self)!
    return (0..<length).map { token in (0..<width).map { Double(numbers[token * width + $0]) } }
  }
}
