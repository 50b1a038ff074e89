// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Custom masks: a tree of drafts that is checked in one step, and a prefix whose tokens all see each other. Both are compared with steps that
// need no mask of their own. The article Custom-masks explains it.

import MartletAttention
import MartletCPU
import MartletCore
import MartletKVCache

let device = try CPUDevice()
let context = AttentionContext(
  device: device, kvCache: KVCacheConfig(dataType: .f32, pageSize: .tokens(32)), maxNumRequests: 4, maxNumTokens: 128,
  maxSequenceLength: 256)
let layer = try AttentionLayer(
  AttentionLayerSpec(
    layerIndex: 0, numHeads: 8, headDim: 64, numKVHeads: 2, positionalEmbedding: PositionalEmbeddingParams(RopeParams(dim: 64))),
  backend: FlashInferAttention.self, in: context)
let cache = try KVCacheManager(layers: [layer.kvLayerSpec], in: context)
// Masks are named beforehand, so that every plan and its memory are there before the first step.
let metadata = try layer.makeMetadata(
  AttentionMetadata.Setup(context: context, layers: [layer.spec], kvCacheManager: cache, masks: [.causal, .full, .custom]))

/// Query, keys and values of a token: numbers that depend on the token alone, in place of a model's.
@MainActor func row(of token: Int) -> [Float] {
  var state = UInt64(token)
  return (0..<layer.spec.fusedWidth).map { _ in
    state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
    return Float(Int64(bitPattern: state) >> 40) / Float(1 << 23)
  }
}

/// One step of one request: attention's output for each of the tokens, which come after what the request has in the cache.
/// - Parameter positions: for rotary positions, where they are not the places in the cache.
@MainActor func step(
  _ id: Int, _ tokens: [Int], isContext: Bool, mask: AttentionMask = .causal, bits: CustomAttentionMask? = nil, positions: [Int]? = nil
) throws -> [[Float]] {
  if !cache.contains(id) { _ = cache.addSequence(id) }
  let cached = cache.length(id)
  guard cache.extend(id, to: cached + tokens.count) else { fatalError("the cache is full") }
  metadata.removeAllRequests()
  metadata.addRequest(
    id, newTokens: tokens.count, cachedTokens: cached, promptLength: cached + tokens.count, isContext: isContext)
  // One entry for each request of the step; nil where it is causal.
  if let bits { metadata.customMasks = [bits] }
  if let positions {
    let table = try device.makeTensor(Shape(positions.count), .i32)
    for (index, position) in positions.enumerated() { table.unsafeHostPointer(to: Int32.self)![index] = Int32(position) }
    metadata.positionIDs = table
  }
  try metadata.prepare()
  let qkv = try device.makeTensor(Shape(tokens.count, layer.spec.fusedWidth), .f32)
  for (index, value) in tokens.flatMap(row).enumerated() { qkv.unsafeHostPointer(to: Float.self)![index] = value }
  let output = try layer.forward(q: qkv, metadata: metadata, mask: mask, on: cache.queue)
  cache.queue.wait()
  cache.computed(id, upTo: cached + tokens.count)
  let values = Array(output.unsafeHostPointer(to: Float.self)!)
  return stride(from: 0, to: values.count, by: layer.spec.outputWidth).map { Array(values[$0..<$0 + layer.spec.outputWidth]) }
}

/// The largest difference; ends the program where it is more than rounding.
@MainActor func check(_ what: String, _ found: [[Float]], _ wanted: [[Float]]) {
  let difference = zip(found.joined(), wanted.joined()).map { abs($0 - $1) }.max() ?? .infinity
  guard found.count == wanted.count, difference < 1e-5 else { fatalError("\(what): rows differ by \(difference)") }
  print("\(what): \(found.count) rows, no difference above \(difference)")
}

// MARK: - A tree of drafts

// A prompt of three whole pages, which several sequences can share.
let prompt = Array(0..<96)
_ = try step(1, prompt, isContext: true)

/// Six drafts: each a token, and the draft before it (nil: the prompt). Three ways to go on are in it, which share what they have in common.
let tree: [(token: Int, parent: Int?)] = [(200, nil), (201, 0), (202, 0), (203, 1), (204, 1), (205, 2)]

/// A draft and all before it, from the first on.
@MainActor func path(to draft: Int) -> [Int] { (tree[draft].parent.map(path) ?? []) + [draft] }

// The drafts lie behind the prompt in the order of the tree. Each sees the prompt, and of the drafts its path.
let bits = CustomAttentionMask(queryLength: tree.count, keyLength: prompt.count + tree.count) { query, key in
  key < prompt.count || path(to: query).contains(key - prompt.count)
}
// A sequence of its own, so that the tree goes when it has been looked at.
_ = cache.addSequence(2)
_ = cache.share(prefixOf: 1, tokens: prompt.count, with: 2)
let rows = try step(
  2, tree.map(\.token), isContext: false, mask: .custom, bits: bits,
  // Drafts of the same depth have the same position, wherever they lie.
  positions: tree.indices.map { prompt.count + path(to: $0).count - 1 })
cache.remove(2)

// Each way alone, token after token, needs no mask.
for leaf in [3, 4, 5] {
  _ = cache.addSequence(3)
  _ = cache.share(prefixOf: 1, tokens: prompt.count, with: 3)
  var alone: [[Float]] = []
  for draft in path(to: leaf) { alone += try step(3, [tree[draft].token], isContext: false) }
  cache.remove(3)
  check("draft \(leaf) and its path", path(to: leaf).map { rows[$0] }, alone)
}

// MARK: - A prefix that sees itself

// The first 24 of 40 tokens see each other, both ways; the rest is causal.
let text = Array(300..<340)
let prefix = 24
let prefixBits = CustomAttentionMask(queryLength: text.count, keyLength: text.count) { query, key in key < prefix || key <= query }
let prefixRows = try step(4, text, isContext: true, mask: .custom, bits: prefixBits)
cache.remove(4)
check("the prefix", Array(prefixRows[..<prefix]), try step(5, Array(text[..<prefix]), isContext: true, mask: .full))
cache.remove(5)
check("the tokens behind it", Array(prefixRows[prefix...]), Array(try step(6, text, isContext: true)[prefix...]))
