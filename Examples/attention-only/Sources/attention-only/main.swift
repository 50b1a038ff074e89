// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Attention without a model: a paged cache, random queries, keys and values, and one mixed step (a prompt beside a generation) through
// each backend.

import MartletAttention
import MartletCPU
import MartletCore
import MartletKVCache

/// The same numbers for every backend.
struct SplitMix: RandomNumberGenerator {
  var state: UInt64 = 1
  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    let z = (state ^ state >> 30) &* 0xBF58_476D_1CE4_E5B9
    return z ^ z >> 31
  }
}

let device = try CPUDevice()
let context = AttentionContext(
  device: device, kvCache: KVCacheConfig(dataType: .bf16, pageSize: .tokens(32)), maxNumRequests: 2, maxNumTokens: 256,
  maxSequenceLength: 1024)
let spec = AttentionLayerSpec(
  layerIndex: 0, numHeads: 8, headDim: 64, numKVHeads: 2, positionalEmbedding: PositionalEmbeddingParams(RopeParams(dim: 64)))

for backend in AttentionBackendRegistry.builtIn.backends {
  var random = SplitMix()
  let layer = try AttentionLayer(spec, backend: backend, in: context)
  let cache = try KVCacheManager(layers: [layer.kvLayerSpec], in: context)
  let metadata = try layer.makeMetadata(AttentionMetadata.Setup(context: context, layers: [layer.spec], kvCacheManager: cache))
  let queue = device.makeQueue()

  /// One step: (request, new tokens, is it a prompt). Returns `[numTokens, numHeads·headDim]`.
  func step(_ batch: [(id: Int, tokens: Int, isContext: Bool)]) throws -> Tensor {
    metadata.removeAllRequests()
    for (id, tokens, isContext) in batch {
      if !cache.contains(id) { _ = cache.addSequence(id) }
      let cached = cache.length(id)
      guard cache.extend(id, to: cached + tokens) else { fatalError("the cache is full") }
      metadata.addRequest(id, newTokens: tokens, cachedTokens: cached, promptLength: tokens, isContext: isContext)
    }
    try metadata.prepare()
    let qkv = try device.makeTensor(Shape(metadata.numTokens, spec.fusedWidth), .f32)
    for index in 0..<qkv.count { qkv.unsafeHostPointer(to: Float.self)![index] = .random(in: -1...1, using: &random) }
    let output = try layer.forward(q: qkv, metadata: metadata, on: queue)
    for (id, _, _) in batch { cache.computed(id, upTo: cache.length(id)) }
    return output
  }

  _ = try step([(id: 1, tokens: 100, isContext: true)])
  let output = try step([(id: 2, tokens: 40, isContext: true), (id: 1, tokens: 1, isContext: false)])
  print(
    "\(backend.name): \(output.shape), first value \(output.unsafeHostPointer(to: Float.self)![0]), pages held \(cache.heldPages(pool: 0))")
}
