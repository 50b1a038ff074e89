// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Memory is made once: from the description of a step to its last layer, a steady step on graph metadata allocates nothing.

import CMartletAllocationCounter
import MartletAttention
import MartletCPU
import MartletCore
import MartletKVCache
import Testing

/// Heap allocations of this thread while `body` runs.
private func allocations(_ body: () throws -> Void) rethrows -> UInt64 {
  martlet_allocation_counter_begin()
  defer { _ = martlet_allocation_counter_end() }
  try body()
  return martlet_allocation_counter_end()
}

/// Keeps an array from being optimised away.
@inline(never)
private func use(_ values: [Int]) -> Int { values.reduce(0, &+) }

@Suite("A steady step", .enabled(if: martlet_allocation_counter_is_present(), "a sanitizer or another C library has its own allocator"))
struct SteadyStepTests {
  @Test("would be seen to allocate an array")
  func counter() {
    var sum = 0
    let one = allocations { sum = use(Array(repeating: sum + 1, count: 1000)) }
    #expect(one == 1 && sum == 1000)
    #expect(allocations { sum &+= 1 } == 0)
  }

  @Test("on graph metadata allocates nothing and moves nothing, over a thousand steps", arguments: ["TRTLLM", "FLASHINFER"])
  func thousandSteps(backend: String) throws {
    let device = try CPUDevice(threads: 1)
    let config = KVCacheConfig(pageSize: .tokens(32))
    let context = AttentionContext(
      device: device, kvCache: config, maxNumRequests: 4, maxNumTokens: 600, maxSequenceLength: 1700, workerCount: 2)
    let norm = HeadNorm(weight: try device.makeTensor(Shape(16), .f32), epsilon: 1e-6)
    let rope = PositionalEmbeddingParams(RopeParams(dim: 16))
    let specs = [
      AttentionLayerSpec(layerIndex: 0, numHeads: 4, headDim: 16, numKVHeads: 2, positionalEmbedding: rope, queryNorm: norm, keyNorm: norm),
      AttentionLayerSpec(layerIndex: 1, numHeads: 4, headDim: 16, numKVHeads: 2, window: 100, positionalEmbedding: rope),
      AttentionLayerSpec(
        layerIndex: 2, numHeads: 4, headDim: 16, numKVHeads: 2, softCap: 20,
        quantConfig: QuantConfig(kvCacheDataType: .f8e4m3, fp8Output: true)),
    ]
    let type = try AttentionBackendRegistry.builtIn.backend(named: backend)
    let layers = try specs.map { try AttentionLayer($0, backend: type, in: context) }
    let manager = try KVCacheManager(layers: layers.map(\.kvLayerSpec), in: context)
    let queue = device.makeQueue()
    let setup = AttentionMetadata.Setup(context: context, layers: specs, kvCacheManager: manager, queue: queue)
    let prefill = try layers[0].makeMetadata(setup)
    let inputs = try layers.map { try device.makeTensor(Shape(600, $0.spec.fusedWidth), .f32) }
    for input in inputs {
      for index in 0..<input.count { input.unsafeHostPointer(to: Float.self)![index] = Float(index % 17) / 8 - 1 }
    }
    let outputs = try layers.map { try device.makeTensor(Shape(600, $0.spec.outputWidth), $0.outputDataType) }
    func forward(_ metadata: AttentionMetadata) throws {
      for (index, layer) in layers.enumerated() {
        try layer.forward(
          AttentionInputs(fusedQKV: inputs[index]), metadata: metadata, output: AttentionOutput(values: outputs[index]), on: queue)
      }
    }
    // Three requests: two begin with the same 512 tokens, a whole chunk, of which FLASHINFER makes a cascade.
    var lengths = [576, 512, 40]
    for id in [0, 2] {
      #expect(manager.addSequence(id) && manager.extend(id, to: lengths[id]))
      prefill.removeAllRequests()
      prefill.addRequest(id, newTokens: lengths[id], cachedTokens: 0, promptLength: lengths[id], isContext: true)
      try prefill.prepare()
      try forward(prefill)
      if id == 0 {
        manager.computed(0, upTo: 512)
        #expect(manager.addSequence(1) && manager.share(prefixOf: 0, tokens: 512, with: 1))
      }
      manager.computed(id, upTo: lengths[id])
    }

    let graph = try prefill.makeCUDAGraphMetadata(maxBatchSize: 4)
    func step() throws {
      graph.removeAllRequests()
      for id in 0..<3 {
        guard manager.extend(id, to: lengths[id] + 1) else { throw AttentionError.invalidStep("the test's cache is too small") }
        graph.addRequest(id, newTokens: 1, cachedTokens: lengths[id], promptLength: 1, isContext: false)
      }
      graph.addDummyRequests(upTo: 4)
      try graph.prepare()
      try forward(graph)
      for id in 0..<3 {
        lengths[id] += 1
        manager.computed(id, upTo: lengths[id])
      }
    }
    func addresses() -> [UInt] {
      var tensors = [
        graph.seqLensCUDA, graph.ragged.kvLens, graph.ragged.queryIndptr, graph.ragged.tokenRequests, graph.ragged.tokenPositions,
        graph.cache(ofLayer: 0).pageTable, graph.cache(ofLayer: 1).pageTable, graph.cache(ofLayer: 2).pages,
      ]
      if let flashInfer = graph as? FlashInferMetadata {
        tensors += [
          flashInfer.qoIndptrCUDA, flashInfer.pagedKVIndptrCUDA, flashInfer.pagedKVIndicesCUDA(), flashInfer.lastPageLenCUDA,
          flashInfer.batchIndicesCUDA, flashInfer.positionsCUDA, flashInfer.work(for: specs[0], mask: .causal)!.tasks,
        ]
      }
      return tensors.map(\.address)
    }
    for _ in 0..<3 { try step() }
    let before = addresses()
    let count = try allocations { for _ in 0..<1000 { try step() } }
    #expect(count == 0, "\(count) allocations in a thousand steps")
    #expect(addresses() == before)
    #expect(lengths == [1579, 1515, 1043])
    try manager.checkIntegrity()
  }

  @Test("begins, goes on and ends requests in the cache without allocating, with copies, tails and pages given up")
  func cacheBetweenSteps() throws {
    let layers = [nil, 40, nil].map {
      KVLayerSpec(layout: .packed(dataType: .bf16, pageSize: 16, numKVHeads: 1, headDim: 8, valueHeadDim: 8), window: $0)
    }
    // Room for about two of six texts, of which each two begin alike.
    let manager = try KVCacheManager(
      layers: layers,
      config: KVCacheConfig(pageSize: .tokens(16), budget: .bytes(3 * 30 * 16 * 32)), maxSequenceLength: 200, maxSequences: 2,
      maxTokensPerStep: 64,
      on: CPUDevice(threads: 1))
    let texts: [[Int32]] = (0..<6).map { text in
      let parted = 75 + 5 * text
      return [Int32](repeating: Int32(text / 2), count: parted) + [Int32](repeating: Int32(100 + text), count: 200 - parted)
    }
    func rounds(_ count: Int) {
      for round in 0..<count {
        let (tokens, id) = (texts[round % 6], round % 2)
        guard var length = manager.addSequence(id, tokens: tokens, retention: round % 4 == 0 ? .high : nil) else { return }
        while length < 180 - round % 7 {
          length = min(length + 64, 180 - round % 7)
          if !manager.extend(id, to: length) { break }
          manager.computed(id, upTo: length, tokens: tokens)
        }
        manager.remove(id, tokens: tokens)
      }
    }
    rounds(12)
    let before = manager.statistics.prefixes
    let count = allocations { rounds(1000) }
    #expect(count == 0, "\(count) allocations in a thousand requests")
    let after = manager.statistics.prefixes
    #expect(after.copiedTokens > before.copiedTokens + 100 && after.evictedPages > before.evictedPages + 1000)
    try manager.checkIntegrity()
  }
}
