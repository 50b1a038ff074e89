// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletAttention
public import MartletCore

/// Multi-head latent attention, in its absorbed form for prompts and for generation alike:
///
/// ```
/// c, k_rope = split(W_kva · x);  c = norm(c)                      the cache holds these
/// q_nope[h], q_rope[h] = W_q · x, or W_qb · norm(W_qa · x)
/// a = attention([W_uk[h]ᵀ · q_nope[h], q_rope[h]], [c, k_rope])   values are c; RoPE turns q_rope and k_rope
/// y = W_o · concat(W_uv[h] · a[h])
/// ```
///
/// With `LatentPrompts.expanded` long chunks of prompts expand the latents of their context instead (`LatentExpansion`).
public struct LatentAttention {
  /// W_qa and its norm; nil where queries are made of the hidden state.
  let queryLatent: (projection: Projection, norm: RMSNorm)?
  let query: Projection
  let latent: Projection
  let latentNorm: RMSNorm
  let heads: LatentHeads
  public let output: Projection
  public var layer: AttentionLayer { heads.layer }

  /// The latents' norms have an epsilon of their own, whatever the model's is.
  static let normEpsilon: Float = 1e-6

  /// Reads `blk.<layer>.attn_q`, or `.attn_q_a`, `.attn_q_a_norm` and `.attn_q_b`; `.attn_kv_a_mqa` and `.attn_kv_a_norm`; `.attn_k_b` and
  /// `.attn_v_b`, or `.attn_kv_b`; `.attn_output`.
  public init(
    _ loader: inout WeightLoader, spec: AttentionLayerSpec, mla: MLAParams, configuration: ModelConfiguration, in context: ModelContext
  ) throws {
    let prefix = "blk.\(spec.layerIndex)", hiddenSize = configuration.hiddenSize
    let queryWidth = spec.numHeads * (mla.qkNopeHeadDim + mla.qkRopeHeadDim)
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
    let (keys, values) = try loader.latentHeads(prefix, mla, numHeads: spec.numHeads)
    heads = try LatentHeads(spec, mla, keys: keys, values: values, in: context)
    output = try loader.projection("\(prefix).attn_output", rows: hiddenSize, columns: spec.numHeads * mla.vHeadDim)
  }

  public func callAsFunction(
    _ input: Tensor, into output: Tensor, metadata: AttentionMetadata, _ memory: StepMemory, on queue: any DeviceQueue,
    _ kernels: any TensorKernels
  ) throws {
    guard let mla = layer.spec.mla, let memory = memory.latent else { fatalError("latent attention, and no memory for it") }
    let n = input.shape[0], numHeads = layer.spec.numHeads, rank = mla.kvLoraRank, rope = mla.qkRopeHeadDim
    let rowWidth = (numHeads + 1) * mla.headDim
    let queries = memory.queries.rows(n, columns: numHeads * (mla.qkNopeHeadDim + rope))
    let latents = memory.latents.rows(n, columns: rank + rope), normed = memory.normed.rows(n, columns: rank)
    let fused = memory.fused.rows(n, columns: rowWidth)  // [q heads | latent], with zeros behind each

    // Queries.
    if let queryLatent {
      let latent = memory.queryLatents.rows(n, columns: mla.qLoraRank ?? 0)
      queryLatent.projection(input, into: latent, on: queue, kernels)
      queryLatent.norm(latent, into: latent, on: queue, kernels)
      query(latent, into: queries, on: queue, kernels)
    } else {
      query(input, into: queries, on: queue, kernels)
    }

    // The latent that is cached.
    func copy(_ source: HeadPlace, _ target: HeadPlace, width: Int) {
      kernels.copyHeads(source, to: target, rows: n, heads: 1, width: width, on: queue)
    }
    func inFused(_ column: Int) -> HeadPlace {
      HeadPlace(fused, column: numHeads * mla.headDim + column, rowStride: rowWidth, headStride: 0)
    }
    latent(input, into: latents, on: queue, kernels)
    copy(HeadPlace(latents, rowStride: rank + rope, headStride: 0), HeadPlace(normed, rowStride: rank, headStride: 0), width: rank)
    latentNorm(normed, into: normed, on: queue, kernels)
    copy(HeadPlace(normed, rowStride: rank, headStride: 0), inFused(0), width: rank)
    copy(HeadPlace(latents, column: rank, rowStride: rank + rope, headStride: 0), inFused(rank), width: rope)

    try heads(n, metadata: metadata, memory, on: queue, kernels)
    self.output(memory.values.rows(n, columns: numHeads * mla.vHeadDim), into: output, on: queue, kernels)
  }
}

/// The working memory of layers of latent attention, which are all alike.
package struct LatentMemory {
  let queryLatents: Tensor, latents: Tensor, normed: Tensor
  package let queries: Tensor
  /// What lies behind a head's dims stays zero: nobody writes there.
  package let fused: Tensor
  let byHead: Tensor, absorbed: Tensor, attended: Tensor, expanded: Tensor
  package let values: Tensor
  /// nil where no context is expanded.
  let expansion: LatentExpansion?

  /// - Parameter spec: of the layers.
  package init(_ spec: AttentionLayerSpec, _ mla: MLAParams, in context: ModelContext) throws {
    let columns = Columns(mla, numHeads: spec.numHeads), n = context.maxNumTokens
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
    expansion = try context.latentPrompts.leastExpandedTokens(mla) == nil ? nil : LatentExpansion(spec, mla, in: context)
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
