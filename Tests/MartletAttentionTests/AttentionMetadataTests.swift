// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// The metadata derives what follows from what is set, refuses steps that contradict themselves, and never moves its memory.

import MartletAttention
import MartletCPU
import MartletCore
import MartletKVCache
import Testing

@Suite("The metadata of a step")
struct AttentionMetadataTests {
  private static func specs() -> [AttentionLayerSpec] {
    [
      AttentionLayerSpec(layerIndex: 0, numHeads: 4, headDim: 16, numKVHeads: 2),
      AttentionLayerSpec(layerIndex: 2, numHeads: 4, headDim: 16, numKVHeads: 2, window: 8),
    ]
  }

  private func bench(_ backend: String = "VANILLA", maxRequests: Int = 4, maxTokens: Int = 64) throws -> AttentionRuntime {
    try AttentionRuntime(
      backend, Self.specs(), cache: KVCacheConfig(pageSize: .tokens(16)), maxSequenceLength: 64, maxSequences: 4, maxRequests: maxRequests,
      maxTokens: maxTokens)
  }

  private func values(_ tensor: Tensor) -> [Int] { tensor.unsafeHostPointer(to: Int32.self)!.map { Int($0) } }

  @Test("derives counts, lengths, positions and page tables")
  func derived() throws {
    let bench = try bench()
    try bench.step([.context(10, 25), .context(11, 3)])
    bench.describe([.context(11, 5), .generation(10, 2)])
    let metadata = bench.metadata
    #expect((metadata.numSeqs, metadata.numContexts, metadata.numGenerations) == (2, 1, 1))
    #expect((metadata.numTokens, metadata.numCtxTokens) == (7, 5))
    #expect(metadata.contextLens == [5])
    try metadata.prepare()
    #expect(metadata.numKVTokens == 8 + 27)
    #expect(values(metadata.seqLensCUDA) == [5, 2])
    #expect(values(metadata.ragged.kvLens) == [8, 27])
    #expect(values(metadata.ragged.queryIndptr) == [0, 5, 7])
    #expect(values(metadata.ragged.tokenRequests) == [0, 0, 0, 0, 0, 1, 1])
    #expect(values(metadata.ragged.tokenPositions) == [3, 4, 5, 6, 7, 25, 26])
    #expect(values(metadata.ragged.positionIDs) == [3, 4, 5, 6, 7, 25, 26])
    let table = metadata.cache(ofLayer: 0).pageTable
    #expect(table.shape == Shape(2, 2))
    #expect(values(table).map { $0 >= 0 } == [true, false, true, true])
    // Request 10 has computed 25 tokens; its next query sees keys from 18 on, so its first page went back.
    #expect(values(metadata.cache(ofLayer: 2).pageTable).map { $0 >= 0 } == [true, false, false, true])
  }

  @Test("set field by field, as the original does, says the same")
  func fieldByField() throws {
    let bench = try bench()
    let metadata = bench.metadata
    for (id, length) in [(1, 6), (2, 9)] {
      #expect(bench.manager!.addSequence(id) && bench.manager!.extend(id, to: length))
    }
    metadata.setSeqLens([6, 1])
    metadata.numContexts = 1
    metadata.requestIDs = [1, 2]
    metadata.promptLens = [6, 4]
    metadata.kvCacheParams = KVCacheParams(useCache: true, numCachedTokensPerSeq: [0, 8])
    #expect((metadata.numTokens, metadata.numCtxTokens, metadata.numGenerations) == (7, 6, 1))
    try metadata.prepare()
    #expect(values(metadata.ragged.kvLens) == [6, 9])
  }

  @Test("refuses a request that is in the step twice")
  func twice() throws {
    let bench = try bench()
    try bench.step([.context(1, 5), .context(2, 3)])
    bench.describe([.generation(1), .generation(2), .generation(1)])
    #expect(throws: AttentionError.invalidStep("request 1 is in the step twice")) { try bench.metadata.prepare() }
  }

  @Test("uses positions of the caller for rotation, and checks those that it can see")
  func positionIDs() throws {
    let bench = try bench()
    bench.describe([.context(1, 3)])
    let positions = try bench.device.makeTensor(Shape(3), .i32)
    for (index, value) in [7, 5, 63].enumerated() { positions.unsafeHostPointer(to: Int32.self)![index] = Int32(value) }
    bench.metadata.positionIDs = positions
    try bench.metadata.prepare()
    #expect(values(bench.metadata.ragged.positionIDs) == [7, 5, 63])
    #expect(values(bench.metadata.ragged.tokenPositions) == [0, 1, 2])
    // In the original's shape, too.
    bench.metadata.positionIDs = positions.reshaped(Shape(1, 3))
    try bench.metadata.prepare()
    #expect(values(bench.metadata.ragged.positionIDs) == [7, 5, 63])
    positions.unsafeHostPointer(to: Int32.self)![2] = 64
    #expect(throws: AttentionError.invalidStep("token 2 has position 64, outside 0..<64")) { try bench.metadata.prepare() }
  }

  @Test("refuses steps that contradict themselves, their limits or the cache")
  func refusals() throws {
    func problem(_ arrange: (AttentionRuntime) throws -> Void) throws -> String {
      let bench = try bench(maxTokens: 40)
      try arrange(bench)
      let error = #expect(throws: AttentionError.self) { try bench.metadata.prepare() }
      return error.map { "\($0)" } ?? ""
    }
    #expect(try problem { _ in }.contains("no sequences"))
    #expect(try problem { $0.describe([.context(1, 30), .context(2, 11)]) }.contains("41 tokens, more than maxNumTokens = 40"))
    #expect(try problem { $0.describe([.context(1, 0)]) }.contains("0 new tokens"))
    #expect(
      try problem {
        $0.describe([.context(1, 3)])
        $0.metadata.numContexts = 2
      }.contains("2 contexts among 1"))
    #expect(
      try problem {
        $0.describe([.context(1, 3)])
        $0.metadata.requestIDs = [5]
      }.contains("request 5 is not in the key/value cache"))
    #expect(
      try problem {
        $0.describe([.context(1, 3)])
        $0.metadata.setSeqLens([4])
      }.contains("pages for 3 tokens, and this step needs 4"))
    #expect(
      try problem {
        $0.describe([.context(1, 3)])
        $0.metadata.requestIDs = []
      }.contains("0 request ids"))
    #expect(
      try problem {
        $0.describe([.context(1, 3)])
        $0.metadata.customMasks = [CustomAttentionMask(queryLength: 3, keyLength: 4) { _, _ in true }]
      }.contains("3 × 4; its step is 3 × 3"))
  }

  @Test("never moves its memory: a steady step writes where the first one did", arguments: AttentionBackendRegistry.builtIn.names)
  func steadyAddresses(backend: String) throws {
    let bench = try bench(backend)
    let metadata = bench.metadata
    func addresses() throws -> [UInt] {
      [
        metadata.seqLensCUDA, metadata.ragged.kvLens, metadata.ragged.queryIndptr, metadata.ragged.tokenRequests,
        metadata.ragged.tokenPositions, metadata.cache(ofLayer: 0).pageTable, metadata.cache(ofLayer: 2).pageTable,
        metadata.cache(ofLayer: 2).pages, try metadata.workspace(.queries, columns: 64), try metadata.workspace(.output, columns: 64),
      ].map(\.address)
    }
    try bench.step([.context(1, 5)])
    let first = try addresses()
    try bench.step([.context(2, 30), .generation(1)])
    #expect(try addresses() == first)
    for _ in 0..<10 { try bench.step([.generation(1), .generation(2)]) }
    #expect(try addresses() == first)
  }

  @Test("for graphs has every buffer at its final size, and page tables as wide as a sequence can be")
  func graphs() throws {
    let bench = try bench()
    let graph = try bench.metadata.makeCUDAGraphMetadata(maxBatchSize: 3, queriesPerRequest: 2)
    #expect(type(of: graph) == type(of: bench.metadata))
    #expect(graph.isCUDAGraph && graph.maxNumRequests == 3 && graph.maxNumTokens == 6)
    #expect((graph.numSeqs, graph.numContexts, graph.numGenerations, graph.numTokens) == (3, 0, 3, 6))
    #expect(try graph.makeCUDAGraphMetadata(maxBatchSize: 9) === graph)
    #expect(bench.manager!.addSequence(1) && bench.manager!.extend(1, to: 5))
    graph.removeAllRequests()
    graph.addRequest(1, newTokens: 2, cachedTokens: 3, promptLength: 3, isContext: false)
    try graph.prepare()
    #expect(graph.cache(ofLayer: 0).pageTable.shape == Shape(1, 4))
  }

  @Test("plans each distinct layer shape once a step, however many layers share it, and anew when prepared again")
  func planCounts() throws {
    let specs = (0..<6).map { AttentionLayerSpec(layerIndex: $0, numHeads: 4, headDim: 16, numKVHeads: 2, window: $0 % 3 == 2 ? 8 : nil) }
    let bench = try AttentionRuntime(
      "TRTLLM", specs, cache: KVCacheConfig(pageSize: .tokens(16)), maxSequenceLength: 64, maxSequences: 4)
    let metadata = try #require(bench.metadata as? TrtllmMetadata)
    #expect(Set(metadata.planKeys) == [AttentionPlanKey(specs[0], mask: .causal), AttentionPlanKey(specs[2], mask: .causal)])
    for step in 1...3 {
      try bench.step([.context(step, 5)])
      #expect(metadata.planKeys.map(metadata.planCount) == [step, step])
    }
    bench.describe([.generation(1)])
    try metadata.prepare()
    try metadata.prepare()
    #expect(metadata.planKeys.map(metadata.planCount) == [5, 5])
    #expect(metadata.planCount(for: AttentionPlanKey(specs[0], mask: .full)) == 0)
  }

  @Test("disagreeing with the cache cannot be made")
  func setupMismatch() throws {
    let bench = try bench()
    var setup = bench.metadata.setup
    setup.layers.removeLast()
    #expect(throws: AttentionError.self) { try AttentionMetadata(setup) }
    setup = bench.metadata.setup
    setup.layers[1].window = 9
    #expect(throws: AttentionError.self) { try AttentionMetadata(setup) }
    setup = bench.metadata.setup
    setup.layers[1].layerIndex = 0
    #expect(throws: AttentionError.invalidStep("two layers have the same number")) { try AttentionMetadata(setup) }
  }
}
