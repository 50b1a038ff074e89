// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletAttention
public import MartletCore

/// Multi-head latent attention in its absorbed form, for prompts and for generation alike:
///
/// ```
/// c, k_rope = split(W_kva · x);  c = norm(c)                      the cache holds these
/// q_nope[h], q_rope[h] = W_q · x, or W_qb · norm(W_qa · x)
/// a = attention([W_uk[h]ᵀ · q_nope[h], q_rope[h]], [c, k_rope])   values are c; RoPE turns q_rope and k_rope
/// y = W_o · concat(W_uv[h] · a[h])
/// ```
public struct LatentAttention {
  public let layer: AttentionLayer
  /// W_qa and its norm; nil where queries are made of the hidden state.
  let queryLatent: (projection: Projection, norm: RMSNorm)?
  let query: Projection
  let latent: Projection
  let latentNorm: RMSNorm
  /// W_ukᵀ `[kvLoraRank, qkNopeHeadDim]` of each head.
  let absorbedKeys: [any PreparedWeight]
  /// W_uv `[vHeadDim, kvLoraRank]` of each head.
  let absorbedValues: [any PreparedWeight]
  public let output: Projection

  /// The latents' norms have an epsilon of their own, whatever the model's is.
  static let normEpsilon: Float = 1e-6

  /// Reads `blk.<layer>.attn_q`, or `.attn_q_a`, `.attn_q_a_norm` and `.attn_q_b`; `.attn_kv_a_mqa` and `.attn_kv_a_norm`; `.attn_k_b` and
  /// `.attn_v_b`, or `.attn_kv_b`; `.attn_output`.
  public init(
    _ loader: inout WeightLoader, spec: AttentionLayerSpec, mla: MLAParams, configuration: ModelConfiguration, in context: ModelContext
  ) throws {
    let prefix = "blk.\(spec.layerIndex)", hiddenSize = configuration.hiddenSize
    let queryWidth = spec.numHeads * (mla.qkNopeHeadDim + mla.qkRopeHeadDim)
    layer = try AttentionLayer(spec, backend: context.attentionBackend, in: context.attention)
    if let rank = mla.qLoraRank {
      queryLatent = (
        try loader.projection("\(prefix).attn_q_a", rows: rank, columns: hiddenSize),
        try loader.norm("\(prefix).attn_q_a_norm.weight", count: rank, epsilon: Self.normEpsilon)
      )
      query = try loader.projection("\(prefix).attn_q_b", rows: queryWidth, columns: rank)
    } else {
      queryLatent = nil
      query = try loader.projection("\(prefix).attn_q", rows: queryWidth, columns: hiddenSize)
    }
    latent = try loader.projection("\(prefix).attn_kv_a_mqa", rows: mla.kvLoraRank + mla.qkRopeHeadDim, columns: hiddenSize)
    latentNorm = try loader.norm("\(prefix).attn_kv_a_norm.weight", count: mla.kvLoraRank, epsilon: Self.normEpsilon)
    (absorbedKeys, absorbedValues) = try loader.latentHeads(prefix, mla, numHeads: spec.numHeads)
    output = try loader.projection("\(prefix).attn_output", rows: hiddenSize, columns: spec.numHeads * mla.vHeadDim)
  }

  public func callAsFunction(
    _ input: Tensor, into output: Tensor, metadata: AttentionMetadata, _ memory: StepMemory, on queue: any DeviceQueue,
    _ kernels: any TensorKernels
  ) throws {
    guard let mla = layer.spec.mla, let memory = memory.latent else { fatalError("latent attention, and no memory for it") }
    let n = input.shape[0], heads = layer.spec.numHeads, rank = mla.kvLoraRank, nope = mla.qkNopeHeadDim, rope = mla.qkRopeHeadDim
    let width = mla.headDim, rowWidth = (heads + 1) * width
    let queries = memory.queries.rows(n, columns: heads * (nope + rope))
    let latents = memory.latents.rows(n, columns: rank + rope), normed = memory.normed.rows(n, columns: rank)
    let fused = memory.fused.rows(n, columns: rowWidth)  // [q heads | latent], with zeros behind each
    let byHead = memory.byHead.rows(heads * n, columns: nope), absorbed = memory.absorbed.rows(heads * n, columns: rank)
    let attended = memory.attended.rows(n, columns: heads * rank)
    let expanded = memory.expanded.rows(heads * n, columns: mla.vHeadDim), values = memory.values.rows(n, columns: heads * mla.vHeadDim)

    // Queries.
    if let queryLatent {
      let latent = memory.queryLatents.rows(n, columns: mla.qLoraRank ?? 0)
      queryLatent.projection(input, into: latent, on: queue, kernels)
      queryLatent.norm(latent, into: latent, on: queue, kernels)
      query(latent, into: queries, on: queue, kernels)
    } else {
      query(input, into: queries, on: queue, kernels)
    }
    func copy(_ source: HeadPlace, _ target: HeadPlace, heads: Int, width: Int) {
      kernels.copyHeads(source, to: target, rows: n, heads: heads, width: width, on: queue)
    }
    func inQueries(_ column: Int) -> HeadPlace {
      HeadPlace(queries, column: column, rowStride: heads * (nope + rope), headStride: nope + rope)
    }
    func inFused(_ column: Int) -> HeadPlace { HeadPlace(fused, column: column, rowStride: rowWidth, headStride: width) }
    func headMajor(_ tensor: Tensor, width: Int) -> HeadPlace { HeadPlace(tensor, rowStride: width, headStride: n * width) }
    copy(inQueries(0), headMajor(byHead, width: nope), heads: heads, width: nope)
    kernels.headProduct(byHead, absorbedKeys, output: absorbed, on: queue)
    copy(headMajor(absorbed, width: rank), inFused(0), heads: heads, width: rank)
    copy(inQueries(nope), inFused(rank), heads: heads, width: rope)

    // The latent that is cached.
    latent(input, into: latents, on: queue, kernels)
    copy(
      HeadPlace(latents, rowStride: rank + rope, headStride: 0), HeadPlace(normed, rowStride: rank, headStride: 0), heads: 1, width: rank)
    latentNorm(normed, into: normed, on: queue, kernels)
    copy(HeadPlace(normed, rowStride: rank, headStride: 0), inFused(heads * width), heads: 1, width: rank)
    copy(HeadPlace(latents, column: rank, rowStride: rank + rope, headStride: 0), inFused(heads * width + rank), heads: 1, width: rope)

    try layer.forward(AttentionInputs(fusedQKV: fused), metadata: metadata, output: AttentionOutput(values: attended), on: queue)
    copy(HeadPlace(attended, rowStride: heads * rank, headStride: rank), headMajor(absorbed, width: rank), heads: heads, width: rank)
    kernels.headProduct(absorbed, absorbedValues, output: expanded, on: queue)
    copy(
      headMajor(expanded, width: mla.vHeadDim), HeadPlace(values, rowStride: heads * mla.vHeadDim, headStride: mla.vHeadDim), heads: heads,
      width: mla.vHeadDim)
    self.output(values, into: output, on: queue, kernels)
  }
}

/// The working memory of layers of latent attention, which are all alike.
struct LatentMemory {
  let queryLatents: Tensor, queries: Tensor, latents: Tensor, normed: Tensor
  /// What lies behind a head's dims stays zero: nobody writes there.
  let fused: Tensor
  let byHead: Tensor, absorbed: Tensor, attended: Tensor, expanded: Tensor, values: Tensor

  init(_ mla: MLAParams, numHeads heads: Int, in context: ModelContext) throws {
    let columns = Columns(mla, numHeads: heads), n = context.maxNumTokens
    func make(_ columns: Int) throws -> Tensor { try context.makeStepTensor(Shape(n, columns)) }
    queryLatents = try make(columns.queryLatents)
    queries = try make(columns.queries)
    latents = try make(columns.latents)
    normed = try make(columns.normed)
    fused = try make(columns.fused)
    byHead = try make(columns.byHead)
    absorbed = try make(columns.ofRank)
    attended = try make(columns.ofRank)
    expanded = try make(columns.ofValues)
    values = try make(columns.ofValues)
  }

  /// Bytes of it, for so many tokens.
  static func byteCount(_ mla: MLAParams, numHeads: Int, maxNumTokens: Int) -> Int {
    let columns = Columns(mla, numHeads: numHeads)
    let sum =
      columns.queryLatents + columns.queries + columns.latents + columns.normed + columns.fused + columns.byHead + 2 * columns.ofRank
      + 2 * columns.ofValues
    return sum.multipliedReportingOverflow(by: 4 * maxNumTokens).partialValue
  }

  /// How wide each tensor is.
  private struct Columns {
    let queryLatents: Int, queries: Int, latents: Int, normed: Int, fused: Int, byHead: Int, ofRank: Int, ofValues: Int

    init(_ mla: MLAParams, numHeads heads: Int) {
      queryLatents = mla.qLoraRank ?? 1
      queries = heads * (mla.qkNopeHeadDim + mla.qkRopeHeadDim)
      latents = mla.kvLoraRank + mla.qkRopeHeadDim
      normed = mla.kvLoraRank
      fused = (heads + 1) * mla.headDim
      byHead = heads * mla.qkNopeHeadDim
      ofRank = heads * mla.kvLoraRank
      ofValues = heads * mla.vHeadDim
    }
  }
}
