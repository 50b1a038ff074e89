// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

package import MartletAttention
import MartletCore
import MartletKVCache

/// Where contexts of latent attention are expanded, one after another: some heads at a time are an ordinary layer of the same backend, over pages that hold
/// the keys and values of one context for as long as it takes to attend to them.
///
/// ```
/// for some heads h:
///   K[h] = [W_uk[h] · c, rope(k_rope)], V[h] = W_uv[h] · c    c and rope(k_rope) as the cache holds them, of the whole context
///   y[h] = attention([q_nope[h], rope(q_rope[h])], K[h], V[h])
/// ```
///
/// Its memory is made once, for the longest sequence: at most 64 MiB of pages, or those of one head where they are more, and working memory for 512 keys
/// and the queries of a step. The pages have the cache's type, where that is a float of two bytes or more, else bf16.
package final class LatentExpansion {
  /// How it is cut.
  struct Sizes {
    let mla: MLAParams
    /// Heads at a time: they divide all heads.
    let groupHeads: Int
    /// Of a key, and of a value: multiples of 8, which is what kernels take; zeros fill them up.
    let headDim: Int, valueHeadDim: Int
    let dataType: DataType
    let pageCount: Int
    /// Keys that are expanded at a time.
    let slab: Int

    static let pageSize = AttentionWork.tileSize
    private static let mostPageBytes = 64 << 20

    init(_ spec: AttentionLayerSpec, _ mla: MLAParams, in context: AttentionContext) {
      func rounded(_ count: Int, to multiple: Int) -> Int { (count + multiple - 1) / multiple * multiple }
      self.mla = mla
      headDim = rounded(mla.qkNopeHeadDim + mla.qkRopeHeadDim, to: 8)
      valueHeadDim = rounded(mla.vHeadDim, to: 8)
      let stored = context.kvDataType(of: spec)
      dataType = stored.byteCount > 1 ? stored : .bf16
      let length = rounded(context.maxSequenceLength, to: Self.pageSize)
      pageCount = length / Self.pageSize
      slab = min(length, AttentionWork.chunkSize)
      let most = max(1, Self.mostPageBytes / (length * (headDim + valueHeadDim) * dataType.byteCount))
      groupHeads = (1...spec.numHeads).last { spec.numHeads % $0 == 0 && $0 <= most } ?? 1
    }

    /// Columns of float32 for each key of a slab, and for each query.
    var slabColumns: Int {
      mla.kvLoraRank + mla.qkRopeHeadDim + mla.vHeadDim + groupHeads * (mla.qkNopeHeadDim + headDim + valueHeadDim)
    }
    /// The backend finishes queries beside those that it is given.
    var queryColumns: Int { groupHeads * (2 * headDim + valueHeadDim) }

    func byteCount(maxNumTokens: Int) -> Int {
      pageCount * Self.pageSize * groupHeads * (headDim + valueHeadDim) * dataType.byteCount
        + 4 * (slab * slabColumns + maxNumTokens * queryColumns)
    }
  }

  private let sizes: Sizes
  private let layer: AttentionLayer
  private let manager: KVCacheManager
  /// Of one context at a time.
  private let metadata: AttentionMetadata
  private let attentionKernels: any AttentionKernels
  /// Of a slab: `[slab, kvLoraRank]`, `[slab, qkRopeHeadDim]`, `[slab, groupHeads·qkNopeHeadDim]`, `[slab, vHeadDim]`, then keys and values whole.
  private let latents: Tensor, positions: Tensor, keyParts: Tensor, valuePart: Tensor, keys: Tensor, values: Tensor
  /// `[maxNumTokens, …]`. What lies behind a head's dims stays zero, here and in keys and values: nobody writes there.
  private let queries: Tensor, attended: Tensor
  /// int32: 0, 1, …; as many zeros as a slab has keys; and (0, n) of every n up to that.
  private let counting: Tensor, zeros: Tensor, pairs: Tensor

  /// - Parameter spec: of the layers, whose positions, scale and sizes are alike.
  /// - Throws: `AttentionError.Code.obstacles` where the backend cannot serve the heads.
  init(_ spec: AttentionLayerSpec, _ mla: MLAParams, in context: ModelContext) throws {
    let attention = context.attention, device = context.device, sizes = Sizes(spec, mla, in: attention)
    self.sizes = sizes
    attentionKernels = device.attentionKernels
    let heads = sizes.groupHeads
    let rope = spec.positionalEmbedding.map { PositionalEmbeddingParams($0.rope, firstDim: mla.qkNopeHeadDim, isNeoX: $0.isNeoX) }
    let headSpec = AttentionLayerSpec(
      layerIndex: spec.layerIndex, numHeads: heads, headDim: sizes.headDim, valueHeadDim: sizes.valueHeadDim, scale: spec.scale,
      positionalEmbedding: rope)
    var cache = KVCacheConfig(dataType: sizes.dataType, pageSize: .tokens(Sizes.pageSize), reusesPrefixes: false)
    func inner() -> AttentionContext {
      AttentionContext(
        device: device, kvCache: cache, maxNumRequests: 1, maxNumTokens: attention.maxNumTokens,
        maxSequenceLength: attention.maxSequenceLength, workerCount: attention.workerCount, flashInferLayout: attention.flashInferLayout)
    }
    let backend = context.attentionBackend
    var reasons = backend.obstacles(to: headSpec, in: inner())
    if reasons.isEmpty {
      reasons = device.attentionKernels.obstacles(layout: backend.kvLayout(for: headSpec, in: inner()), numHeads: heads)
    }
    if attention.quantConfig(of: spec).fp8Inputs { reasons.append("queries in e4m3 are those of the absorbed form") }
    guard reasons.isEmpty else {
      throw AttentionError.obstacles(
        backend: backend.name, layer: spec.layerIndex, reasons: reasons.map { "prompts cannot be expanded: \($0)" })
    }
    cache.budget = .bytes(sizes.pageCount * backend.kvLayout(for: headSpec, in: inner()).pageByteCount)
    let innerContext = inner()
    layer = try AttentionLayer(headSpec, backend: backend, in: innerContext)
    manager = try KVCacheManager(layers: [layer.kvLayerSpec], in: innerContext)
    enforce(
      manager.addSequence(0) && manager.extend(0, to: attention.maxSequenceLength),
      "pages for expanded keys hold fewer than \(attention.maxSequenceLength) tokens")
    manager.populate(tokens: attention.populatedTokens)
    metadata = try layer.makeMetadata(AttentionMetadata.Setup(context: innerContext, layers: [headSpec], kvCacheManager: manager))

    func make(_ rows: Int, _ columns: Int) throws -> Tensor { try device.makeTensor(Shape(rows, columns), .f32) }
    latents = try make(sizes.slab, mla.kvLoraRank)
    positions = try make(sizes.slab, mla.qkRopeHeadDim)
    keyParts = try make(sizes.slab, heads * mla.qkNopeHeadDim)
    valuePart = try make(sizes.slab, mla.vHeadDim)
    keys = try make(sizes.slab, heads * sizes.headDim)
    values = try make(sizes.slab, heads * sizes.valueHeadDim)
    queries = try context.makeStepTensor(Shape(context.maxNumTokens, heads * sizes.headDim))
    attended = try context.makeStepTensor(Shape(context.maxNumTokens, heads * sizes.valueHeadDim))
    let queue = device.makeQueue()
    func table(_ count: Int, _ number: (Int) -> Int) throws -> Tensor {
      let host = try device.makeHostBuffer(of: Int32.self, count: count)
      for index in 0..<count { host[index] = Int32(number(index)) }
      let tensor = try device.makeTensor(Shape(count), .i32)
      queue.copy(host, count: count, to: tensor)
      queue.wait()
      return tensor
    }
    counting = try table(attention.maxSequenceLength) { $0 }
    zeros = try table(sizes.slab) { _ in 0 }
    pairs = try table(2 * (sizes.slab + 1)) { $0 % 2 * ($0 / 2) }
  }

  /// Attends from the queries of one context of a step to all of its keys.
  /// - Parameters:
  ///   - heads: of the layer, which has appended the step's latents.
  ///   - step: the metadata that the layer was given.
  ///   - queries: `[n, heads·(qkNopeHeadDim + qkRopeHeadDim)]`, before rotation, of the step.
  ///   - output: `[n, heads·vHeadDim]`: the context's rows are written.
  func attend(
    _ heads: LatentHeads, _ sequence: Int, of step: AttentionMetadata, queries: Tensor, into output: Tensor, on queue: any DeviceQueue,
    _ kernels: any TensorKernels
  ) throws {
    let mla = sizes.mla, group = sizes.groupHeads, numHeads = heads.layer.spec.numHeads
    let first = Int(step.queryIndptr[sequence]), count = Int(step.seqLens[sequence]), length = Int(step.kvLens[sequence])
    // The context before this one, or the layer, may still read the tables that are filled anew.
    queue.wait()
    metadata.removeAllRequests()
    if step.positionIDs != nil { metadata.positionIDs = step.ragged.firstPositionIDs.rows(first..<first + count) }
    metadata.addRequest(0, newTokens: count, cachedTokens: length - count, promptLength: length, isContext: true)
    try metadata.prepare()
    for (index, firstHead) in stride(from: 0, to: numHeads, by: group).enumerated() {
      for start in stride(from: 0, to: length, by: sizes.slab) {
        expand(
          start..<min(start + sizes.slab, length), of: sequence, step, heads.layer, keys: heads.expandedKeys[index],
          values: heads.absorbedValues[firstHead..<firstHead + group], on: queue, kernels)
      }
      let width = mla.qkNopeHeadDim + mla.qkRopeHeadDim, rowWidth = numHeads * width, outputWidth = numHeads * mla.vHeadDim
      let own = self.queries.rows(count, columns: group * sizes.headDim)
      let attended = attended.rows(count, columns: group * sizes.valueHeadDim)
      kernels.copyHeads(
        HeadPlace(queries, column: first * rowWidth + firstHead * width, rowStride: rowWidth, headStride: width),
        to: HeadPlace(own, rowStride: group * sizes.headDim, headStride: sizes.headDim), rows: count, heads: group, width: width, on: queue)
      try layer.forward(AttentionInputs(queries: own), metadata: metadata, output: AttentionOutput(values: attended), on: queue)
      kernels.copyHeads(
        HeadPlace(attended, rowStride: group * sizes.valueHeadDim, headStride: sizes.valueHeadDim),
        to: HeadPlace(output, column: first * outputWidth + firstHead * mla.vHeadDim, rowStride: outputWidth, headStride: mla.vHeadDim),
        rows: count, heads: group, width: mla.vHeadDim, on: queue)
    }
  }

  /// Expands the latents at some positions of a context for a group of heads, and stores keys and values in the pages.
  private func expand(
    _ range: Range<Int>, of sequence: Int, _ step: AttentionMetadata, _ source: AttentionLayer, keys keyWeight: any PreparedWeight,
    values valueWeights: ArraySlice<any PreparedWeight>, on queue: any DeviceQueue, _ kernels: any TensorKernels
  ) {
    let mla = sizes.mla, n = range.count, group = sizes.groupHeads
    let rank = mla.kvLoraRank, nope = mla.qkNopeHeadDim, rope = mla.qkRopeHeadDim
    let latents = latents.rows(n, columns: rank), positions = positions.rows(n, columns: rope)
    let keyParts = keyParts.rows(n, columns: group * nope), valuePart = valuePart.rows(n, columns: mla.vHeadDim)
    let keys = keys.rows(n, columns: group * sizes.headDim), values = values.rows(n, columns: group * sizes.valueHeadDim)
    let cache = step.cache(ofLayer: source.spec.layerIndex), scales = source.spec.quantConfig?.kvScales ?? KVScales()
    func gather(_ dims: Range<Int>, _ output: Tensor) {
      attentionKernels.gather(
        GatherArguments(cache: cache, scales: scales, request: sequence, positions: range, dims: dims, output: output), on: queue)
    }
    gather(0..<rank, latents)
    gather(rank..<rank + rope, positions)
    func inKeys(_ column: Int) -> HeadPlace {
      HeadPlace(keys, column: column, rowStride: group * sizes.headDim, headStride: sizes.headDim)
    }
    kernels.product(latents, keyWeight, output: keyParts, on: queue)
    kernels.copyHeads(
      HeadPlace(keyParts, rowStride: group * nope, headStride: nope), to: inKeys(0), rows: n, heads: group, width: nope, on: queue)
    kernels.copyHeads(
      HeadPlace(positions, rowStride: rope, headStride: 0), to: inKeys(nope), rows: n, heads: group, width: rope, on: queue)
    for (head, weight) in valueWeights.enumerated() {
      kernels.product(latents, weight, output: valuePart, on: queue)
      kernels.copyHeads(
        HeadPlace(valuePart, rowStride: mla.vHeadDim, headStride: 0),
        to: HeadPlace(values, column: head * sizes.valueHeadDim, rowStride: group * sizes.valueHeadDim, headStride: 0), rows: n, heads: 1,
        width: mla.vHeadDim, on: queue)
    }
    let places = counting.rows(range)
    attentionKernels.append(
      AppendArguments(
        numHeads: group, headDim: sizes.headDim, keys: HeadInput(keys), values: HeadInput(values), rotatesKeys: false,
        ragged: RaggedQueries(
          numRequests: 1, numTokens: n, queryIndptr: pairs.rows(2 * n..<2 * n + 2), kvLens: metadata.ragged.kvLens,
          tokenRequests: zeros.prefix(n), tokenPositions: places, positionIDs: places),
        cache: metadata.cache(ofLayer: layer.spec.layerIndex)),
      on: queue)
  }
}

extension LatentPrompts {
  /// Bytes that expanding takes, in memory and in a second copy of keys' matrices, besides what a model takes that does not; 0 where it does not. Known
  /// before a weight is read.
  package func workingByteCount(of source: any ModelSource, layers: [AttentionLayerSpec], in context: AttentionContext) -> Int {
    guard let spec = layers.first(where: { $0.mla != nil }), let mla = spec.mla, leastExpandedTokens(mla) != nil else { return 0 }
    let formats = Dictionary(source.modelTensors.map { ($0.name, $0.format) }, uniquingKeysWith: { $1 })
    let copies = layers.reduce(0) { sum, layer in
      guard layer.mla != nil else { return sum }
      let prefix = "blk.\(layer.layerIndex)"
      let format = (formats["\(prefix).attn_k_b.weight"] ?? formats["\(prefix).attn_kv_b.weight"] ?? nil) ?? .f32
      // Blocks are not transposed as they are.
      let held = format.blockSize == 1 ? format : .f32
      let bytes = context.device.preparedByteCount(held, rows: mla.qkNopeHeadDim, columns: mla.kvLoraRank)
      return sum + layer.numHeads * bytes
    }
    return copies + LatentExpansion.Sizes(spec, mla, in: context).byteCount(maxNumTokens: context.maxNumTokens)
  }
}
