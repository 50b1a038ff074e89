// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// The tables that FlashInfer's contract names, and one plan for each distinct layer shape.

import MartletAttention
import MartletCPU
import MartletCore
import MartletKVCache
import Testing

@Suite("The FlashInfer backend's metadata")
struct FlashInferTests {
  private func bench(_ specs: [AttentionLayerSpec], maxTokens: Int = 64) throws -> AttentionRuntime {
    try AttentionRuntime(
      "FLASHINFER", specs, cache: KVCacheConfig(pageSize: .tokens(16)), maxSequenceLength: 64, maxSequences: 4, maxRequests: 4,
      maxTokens: maxTokens)
  }

  private func values(_ tensor: Tensor, _ count: Int) -> [Int] { tensor.unsafeHostPointer(to: Int32.self)!.prefix(count).map { Int($0) } }
  private func values(_ buffer: HostBuffer<Int32>, _ count: Int) -> [Int] { (0..<count).map { Int(buffer[$0]) } }

  @Test("has compressed tables of the pages that hold keys, in every pool, on the host and on the device")
  func tables() throws {
    let bench = try bench([
      AttentionLayerSpec(layerIndex: 0, numHeads: 4, headDim: 16, numKVHeads: 2),
      AttentionLayerSpec(layerIndex: 1, numHeads: 4, headDim: 16, numKVHeads: 2, window: 8),
    ])
    let metadata = try #require(bench.metadata as? FlashInferMetadata)
    try bench.step([.context(10, 40), .context(11, 16)])
    bench.describe([.context(12, 5), .generation(10, 2), .generation(11)])
    // Pages that are allocated ahead do not count.
    #expect(bench.manager!.extend(12, to: 60))
    try metadata.prepare()
    #expect(values(metadata.qoIndptr, 4) == [0, 5, 7, 8] && values(metadata.qoIndptrCUDA, 4) == [0, 5, 7, 8])
    #expect(values(metadata.pagedKVIndptr, 4) == [0, 1, 4, 6] && values(metadata.pagedKVIndptrCUDA, 4) == [0, 1, 4, 6])
    #expect(values(metadata.lastPageLen, 3) == [5, 10, 1] && values(metadata.lastPageLenCUDA, 3) == [5, 10, 1])
    #expect(values(metadata.batchIndices, 9) == [0, 0, 0, 0, 0, 1, 1, 2, -1])
    #expect(values(metadata.positions, 9) == [0, 1, 2, 3, 4, 40, 41, 16, -1])
    #expect(values(metadata.batchIndicesCUDA, 64)[8...].allSatisfy { $0 == -1 })
    #expect(values(metadata.positionsCUDA, 64)[8...].allSatisfy { $0 == -1 })
    for pool in 0..<2 {
      let indices = values(metadata.pagedKVIndices(pool: pool), 6)
      #expect(indices == values(metadata.pagedKVIndicesCUDA(pool: pool), 6))
      let table = metadata.cache(ofLayer: pool).pageTable
      #expect(table.shape == Shape(3, 3))
      #expect(values(table, 9) == [indices[0], -1, -1] + indices[1..<4] + [indices[4], indices[5], -1])
    }
    // A query at 40 sees keys from 33 on: the first two pages of request 10 are behind the window.
    #expect(values(metadata.pagedKVIndices(pool: 1), 6).map { $0 >= 0 } == [true, false, false, true, true, true])
    // Dummies have no pages and no places.
    let graph = try metadata.makeCUDAGraphMetadata(maxBatchSize: 3)
    graph.removeAllRequests()
    #expect(bench.manager!.extend(11, to: 17))
    graph.addRequest(11, newTokens: 1, cachedTokens: 16, promptLength: 16, isContext: false)
    graph.addDummyRequests(upTo: 3)
    try graph.prepare()
    #expect(values(graph.qoIndptr, 4) == [0, 1, 2, 3] && values(graph.pagedKVIndptr, 4) == [0, 2, 2, 2])
    #expect(values(graph.lastPageLen, 3) == [1, 0, 0])
    #expect(values(graph.batchIndices, 3) == [0, -1, -1] && values(graph.positions, 3) == [16, -1, -1])
    #expect(graph.cache(ofLayer: 0).pageTable.shape == Shape(3, 4))
  }

  @Test("without a cache describes the step's own pages")
  func withoutCache() throws {
    let spec = AttentionLayerSpec(layerIndex: 0, numHeads: 4, headDim: 16, numKVHeads: 2)
    let bench = try AttentionRuntime("FLASHINFER", [spec], cache: nil, maxSequenceLength: 100)
    let metadata = try #require(bench.metadata as? FlashInferMetadata)
    try bench.step([.context(1, 33), .context(2, 32)])
    #expect(values(metadata.pagedKVIndptr, 3) == [0, 2, 3] && values(metadata.lastPageLen, 2) == [1, 32])
    #expect(values(metadata.pagedKVIndices(), 3) == [0, 1, 2])
    #expect(values(metadata.cache(ofLayer: 0).pageTable, 4) == [0, 1, 2, -1])
  }

  @Test("plans each distinct layer shape once a step: what plan is told makes the difference, and the layer's number does not")
  func planCounts() throws {
    let plain = AttentionLayerSpec(layerIndex: 0, numHeads: 4, headDim: 16, numKVHeads: 2)
    var specs: [AttentionLayerSpec] = []
    let changes: [(inout AttentionLayerSpec) -> Void] = [
      { _ in }, { _ in }, { $0.numKVHeads = 4 }, { $0.window = 8 }, { $0.scale = 0.5 }, { $0.softCap = 30 },
      { $0.quantConfig = QuantConfig(kvCacheDataType: .f8e4m3) },
      { $0.quantConfig = QuantConfig(kvCacheDataType: .f8e4m3, fp8Inputs: true) },
      { $0.headDim = 32 }, { $0.numKVHeads = 4 },
    ]
    for (index, change) in changes.enumerated() {
      var spec = plain
      spec.layerIndex = index
      change(&spec)
      specs.append(spec)
    }
    let bench = try bench(specs)
    let metadata = try #require(bench.metadata as? FlashInferMetadata)
    #expect(metadata.planParams.count == 8, "layers 1 and 9 share the plans of layers 0 and 2")
    for step in 1...3 {
      try bench.step([.context(step, 5)])
      #expect(metadata.planParams.map(metadata.planCount) == Array(repeating: step, count: 8))
    }
    bench.describe([.generation(1)])
    try metadata.prepare()
    try metadata.prepare()
    #expect(metadata.planParams.map(metadata.planCount) == Array(repeating: 5, count: 8))
  }
}
