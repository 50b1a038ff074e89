// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Steps that are more than a batch of prompts and generations: cross attention, custom bits, no cache, dummies, whole prompts only.

import MartletAttention
import MartletCPU
import MartletCore
import MartletKVCache
import Testing

/// A metadata whose steps without a cache have pages of 16 tokens.
private final class PagedStepMetadata: AttentionMetadata {
  override class func stepLayout(for layer: AttentionLayerSpec, in context: AttentionContext) -> KVLayout? {
    .nhd(dataType: .f32, pageSize: 16, numKVHeads: layer.numKVHeads, headDim: layer.headDim, valueHeadDim: layer.valueHeadDim)
  }
}

@Suite("The metadata of an unusual step")
struct UnusualStepTests {
  private let device: CPUDevice
  private let context: AttentionContext
  private let layers = [
    AttentionLayerSpec(layerIndex: 0, numHeads: 4, headDim: 16, numKVHeads: 2),
    AttentionLayerSpec(layerIndex: 1, numHeads: 4, headDim: 8, numKVHeads: 1),
  ]

  init() throws {
    device = try CPUDevice(threads: 1)
    context = AttentionContext(
      device: device, kvCache: KVCacheConfig(pageSize: .tokens(16)), maxNumRequests: 4,
      maxNumTokens: 64, maxSequenceLength: 100)
  }

  private func manager() throws -> KVCacheManager {
    try KVCacheManager(
      layers: layers.map { KVLayerSpec(layout: VanillaAttention.kvLayout(for: $0, in: context)) }, in: context)
  }

  private func values(_ tensor: Tensor) -> [Int] { tensor.unsafeHostPointer(to: Int32.self)!.map { Int($0) } }

  private func problem(_ body: () throws -> Void) -> String {
    let error = #expect(throws: AttentionError.self) { try body() }
    return error.map { "\($0)" } ?? ""
  }

  @Test("of cross attention has queries and keys of their own, and the encoder's lengths")
  func cross() throws {
    let manager = try manager()
    let metadata = try AttentionMetadata(
      AttentionMetadata.Setup(context: context, layers: layers, kvCacheManager: manager, maxNumKVTokens: 90, isCross: true))
    #expect(metadata.isCross && metadata.setup.masks == [.full] && metadata.maxNumKVTokens == 90)
    // Sequence 7 brings its encoder's 40 tokens with a prompt of 3; sequence 8 generates over 20 encoder tokens cached before.
    #expect(manager.addSequence(7) && manager.extend(7, to: 40) && manager.addSequence(8) && manager.extend(8, to: 20))
    manager.computed(8, upTo: 20)
    metadata.addRequest(7, newTokens: 3, newKVTokens: 40, cachedTokens: 0, promptLength: 3, isContext: true)
    metadata.addRequest(8, newTokens: 1, newKVTokens: 0, cachedTokens: 20, promptLength: 5, isContext: false)
    try metadata.prepare()
    #expect((metadata.numTokens, metadata.numNewKVTokens, metadata.numKVTokens) == (4, 40, 60))
    #expect(values(metadata.seqLensCUDA) == [3, 1] && values(metadata.seqLensKVCUDA) == [40, 0])
    #expect(values(metadata.ragged.queryIndptr) == [0, 3, 4])
    #expect(values(metadata.ragged.kvLens) == [40, 20])
    #expect(values(metadata.ragged.tokenPositions) == [0, 1, 2, 0])
    #expect(metadata.raggedKV.numTokens == 40 && metadata.raggedKV.numRequests == 2)
    #expect(values(metadata.raggedKV.queryIndptr) == [0, 40, 40])
    #expect(values(metadata.raggedKV.kvLens) == [40, 20])
    #expect(values(metadata.raggedKV.tokenPositions) == Array(0..<40) && values(metadata.raggedKV.positionIDs) == Array(0..<40))
    #expect(values(metadata.cache(ofLayer: 0).pageTable).map { $0 >= 0 } == [true, true, true, true, true, false])
    // Field by field, as the original does.
    metadata.removeAllRequests()
    metadata.setSeqLens([2, 2])
    metadata.requestIDs = [7, 8]
    metadata.kvCacheParams.numCachedTokensPerSeq = [0, 20]
    metadata.setSeqLensKV([40, 0])
    try metadata.prepare()
    #expect((metadata.numTokens, metadata.numNewKVTokens) == (4, 40))
  }

  @Test("of cross attention is refused where it has an order, a window, no keys or no positions to rotate by")
  func crossRefusals() throws {
    let manager = try manager()
    func metadata(masks: Set<AttentionMask>? = nil, _ change: (inout AttentionLayerSpec) -> Void = { _ in }) throws -> AttentionMetadata {
      var layers = layers
      change(&layers[0])
      return try AttentionMetadata(
        AttentionMetadata.Setup(context: context, layers: layers, kvCacheManager: manager, masks: masks, isCross: true))
    }
    #expect(problem { _ = try metadata(masks: [.full, .causal]) }.contains("no causal order"))
    #expect(problem { _ = try metadata { $0.window = 8 } }.contains("layer 0 has a sliding window"))
    #expect(
      problem {
        _ = try AttentionMetadata(
          AttentionMetadata.Setup(context: context, layers: layers, kvCacheManager: manager, maxNumKVTokens: 90))
      }.contains("cross attention only"))
    #expect(manager.addSequence(1) && manager.extend(1, to: 16))
    let plain = try metadata()
    plain.addRequest(1, newTokens: 2, newKVTokens: 0, cachedTokens: 0, promptLength: 2, isContext: true)
    #expect(problem { try plain.prepare() }.contains("no keys to attend to"))
    let rotated = try metadata { $0.positionalEmbedding = PositionalEmbeddingParams(RopeParams(dim: 16)) }
    rotated.addRequest(1, newTokens: 2, newKVTokens: 16, cachedTokens: 0, promptLength: 2, isContext: true)
    #expect(problem { try rotated.prepare() }.contains("needs positionIDs"))
    rotated.positionIDs = try device.makeTensor(Shape(2), .i32)
    try rotated.prepare()
  }

  @Test("with custom bits brings them to the device, row by row")
  func maskBits() throws {
    let manager = try manager()
    let metadata = try AttentionMetadata(
      AttentionMetadata.Setup(context: context, layers: layers, kvCacheManager: manager, masks: [.causal, .custom]))
    #expect(manager.addSequence(1) && manager.extend(1, to: 70) && manager.addSequence(2) && manager.extend(2, to: 3))
    metadata.addRequest(1, newTokens: 2, cachedTokens: 68, promptLength: 70, isContext: true)
    metadata.addRequest(2, newTokens: 3, cachedTokens: 0, promptLength: 3, isContext: true)
    func visible(_ query: Int, _ key: Int) -> Bool { (key * 7 + query * 3) % 5 < 2 || key == 69 }
    metadata.customMasks = [CustomAttentionMask(queryLength: 2, keyLength: 70, isVisible: visible), nil]
    #expect(metadata.customMasks[0]!.looksAhead)
    try metadata.prepare()
    let bits = try #require(metadata.maskBits)
    #expect(values(bits.offsets) == [0, -1])
    let words = bits.words.unsafeHostPointer(to: Int32.self)!
    #expect(words.count == 2 * 4)
    for query in 0..<2 {
      for key in 0..<128 {
        let bit = UInt32(bitPattern: words[query * 4 + key / 32]) >> UInt32(key % 32) & 1 == 1
        #expect(bit == (key < 70 && visible(query, key)), "query \(query), key \(key)")
      }
    }
    let address = bits.words.address
    metadata.customMasks = []
    try metadata.prepare()
    #expect(values(metadata.maskBits!.offsets) == [-1, -1] && metadata.maskBits!.words.address == address)
    let causal = try AttentionMetadata(AttentionMetadata.Setup(context: context, layers: layers, kvCacheManager: manager))
    #expect(causal.maskBits == nil)
  }

  @Test("refuses to read a prompt in chunks where some query sees ahead")
  func chunks() throws {
    let manager = try manager()
    #expect(manager.addSequence(1) && manager.extend(1, to: 10))
    func metadata(_ masks: Set<AttentionMask>) throws -> AttentionMetadata {
      let metadata = try AttentionMetadata(
        AttentionMetadata.Setup(context: context, layers: layers, kvCacheManager: manager, masks: masks))
      metadata.addRequest(1, newTokens: 10, cachedTokens: 0, promptLength: 30, isContext: true)
      return metadata
    }
    #expect(problem { try metadata([.full]).prepare() }.contains("a chunk of 10 of 30 prompt tokens under the full mask"))
    let custom = try metadata([.custom])
    custom.customMasks = [CustomAttentionMask(queryLength: 10, keyLength: 10) { $1 <= $0 }]
    try custom.prepare()
    custom.customMasks = [CustomAttentionMask(queryLength: 10, keyLength: 10) { $1 <= $0 + 1 }]
    #expect(problem { try custom.prepare() }.contains("bits that look ahead"))
    // Where several masks are possible, the forward that asks for the full one is refused.
    let both = try metadata([.causal, .full])
    try both.prepare()
    let layer = try AttentionLayer(layers[0], backend: VanillaAttention.self, in: context)
    let vanilla = try layer.makeMetadata(both.setup)
    vanilla.addRequest(1, newTokens: 10, cachedTokens: 0, promptLength: 30, isContext: true)
    try vanilla.prepare()
    let q = try device.makeTensor(Shape(10, layers[0].fusedWidth), .f32)
    _ = try layer.forward(q: q, metadata: vanilla, on: device.makeQueue())
    #expect(problem { _ = try layer.forward(q: q, metadata: vanilla, mask: .full, on: device.makeQueue()) }.contains("never chunked"))
  }

  @Test("without a cache has pages of its own, consecutive for each request")
  func stepPages() throws {
    let uncached = AttentionContext(device: device, kvCache: nil, maxNumRequests: 3, maxNumTokens: 64)
    let metadata = try PagedStepMetadata(AttentionMetadata.Setup(context: uncached, layers: layers, kvCacheManager: nil))
    metadata.addRequest(1, newTokens: 33, cachedTokens: 0, promptLength: 33, isContext: true)
    metadata.addRequest(2, newTokens: 16, cachedTokens: 0, promptLength: 16, isContext: true)
    metadata.addRequest(3, newTokens: 15, cachedTokens: 0, promptLength: 15, isContext: true)
    try metadata.prepare()
    let cache = metadata.cache(ofLayer: 0)
    #expect(cache.pageTable.shape == Shape(3, 3))
    #expect(values(cache.pageTable) == [0, 1, 2, 3, -1, -1, 4, -1, -1])
    #expect(cache.layout.dataType == .f32 && cache.pages.byteCount >= 5 * cache.layout.pageByteCount)
    #expect(metadata.cache(ofLayer: 1).layout.headDim == 8)
    let address = cache.pages.address
    try metadata.prepare()
    #expect(metadata.cache(ofLayer: 0).pages.address == address)
    // A step of a cached metadata may do without the cache, too.
    let cached = try PagedStepMetadata(AttentionMetadata.Setup(context: context, layers: layers, kvCacheManager: manager()))
    cached.kvCacheParams.useCache = false
    cached.addRequest(1, newTokens: 20, cachedTokens: 0, promptLength: 20, isContext: true)
    try cached.prepare()
    #expect(values(cached.cache(ofLayer: 0).pageTable) == [0, 1] && cached.cache(ofLayer: 0).layout.pageSize == 16)
  }

  @Test("of a captured batch is filled with dummies, which have queries and nothing else")
  func dummies() throws {
    let manager = try manager()
    let metadata = try AttentionMetadata(
      AttentionMetadata.Setup(context: context, layers: layers, kvCacheManager: manager, masks: [.causal, .custom]))
    let graph = try metadata.makeCUDAGraphMetadata(maxBatchSize: 4, queriesPerRequest: 2)
    #expect(manager.addSequence(5) && manager.extend(5, to: 20))
    graph.removeAllRequests()
    graph.addRequest(5, newTokens: 2, cachedTokens: 18, promptLength: 18, isContext: false)
    graph.customMasks = [CustomAttentionMask(queryLength: 2, keyLength: 20) { _, _ in true }]
    graph.addDummyRequests(upTo: 4)
    try graph.prepare()
    #expect((graph.numSeqs, graph.numGenerations, graph.numTokens, graph.numKVTokens) == (4, 4, 8, 20))
    #expect(graph.requestIDs == [5, -1, -1, -1])
    #expect(values(graph.ragged.kvLens) == [20, 0, 0, 0])
    #expect(values(graph.ragged.tokenRequests) == [0, 0, 1, 1, 2, 2, 3, 3])
    #expect(values(graph.ragged.tokenPositions) == [18, 19, 0, 0, 0, 0, 0, 0])
    let table = graph.cache(ofLayer: 0).pageTable
    #expect(table.shape == Shape(4, 7))
    #expect(values(table).dropFirst(2).allSatisfy { $0 == -1 })
    #expect(values(graph.maskBits!.offsets) == [0, -1, -1, -1])
  }
}
