// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// The attention kernels of a device: what a backend calls.
///
/// They read plain structs over tensors; what is planned (work split, page tables) was planned before.
public protocol AttentionKernels: Sendable {
  /// Why these kernels cannot serve this shape and layout, in words; empty when they can. Asked at construction of a backend.
  func obstacles(layout: KVLayout, numHeads: Int) -> [String]

  /// One pass over the step's tokens: q/k norm, RoPE, and the append of keys and values to their pages.
  ///
  /// Reads fused rows `[q heads | k heads | v heads]`, writes the finished queries to `queries` and K and V, rounded to the cache's type,
  /// to the page slot of each token's cache position. Packed tails are zeroed: the slots of the last page after the last token of a
  /// request hold zeros afterwards (0 × stale NaN is NaN).
  func append(_ arguments: AppendArguments, on queue: any DeviceQueue)

  /// Attends from the step's queries to the pages. K and V are read only as stored, this step's tokens included.
  func attend(_ arguments: AttendArguments, on queue: any DeviceQueue)
}

/// The tokens of one step, packed: request after request, without padding. All tensors are int32.
///
/// `n` tokens of `r` requests. Token t of request i, with `queryIndptr[i] ≤ t < queryIndptr[i + 1]`, sits at cache position
/// `kvLens[i] − (queryIndptr[i + 1] − t)`.
public struct RaggedQueries: Sendable {
  public var numRequests: Int
  public var numTokens: Int
  /// `[r + 1]`: where each request's tokens begin.
  public var queryIndptr: Tensor
  /// `[r]`: each request's key/value length *after* this step's append.
  public var kvLens: Tensor
  /// `[n]`: the request, counted within the batch, of each token.
  public var tokenRequests: Tensor
  /// `[n]`: the cache position of each token.
  public var tokenPositions: Tensor
  /// `[n]`: the position that RoPE uses; the same tensor as `tokenPositions` unless the caller gave its own.
  public var positionIDs: Tensor

  public init(
    numRequests: Int, numTokens: Int, queryIndptr: Tensor, kvLens: Tensor, tokenRequests: Tensor, tokenPositions: Tensor,
    positionIDs: Tensor
  ) {
    self.numRequests = numRequests
    self.numTokens = numTokens
    self.queryIndptr = queryIndptr
    self.kvLens = kvLens
    self.tokenRequests = tokenRequests
    self.tokenPositions = tokenPositions
    self.positionIDs = positionIDs
  }
}

/// One layer's pages and the page tables of the batch's requests.
public struct PagedKV: Sendable {
  public var layout: KVLayout
  /// All pages of the layer, `layout.pageByteCount` apart, as bytes of any element type.
  public var pages: Tensor
  /// int32 `[r, maxPagesPerRequest]`: entry p of a request is the page that holds its cache positions p·pageSize ..< (p + 1)·pageSize,
  /// −1 where that page has been returned (behind a sliding window) or does not exist yet.
  public var pageTable: Tensor

  public init(layout: KVLayout, pages: Tensor, pageTable: Tensor) {
    self.layout = layout
    self.pages = pages
    self.pageTable = pageTable
  }
}

/// Cosines and sines, computed in double and rounded once to float32: `[maxPositions, dim / 2, 2]`, (cos, sin) side by side.
public struct RopeTable: Sendable {
  /// Head dims that are rotated; the rest pass.
  public var dim: Int
  /// Whether pairs are (i, i + dim/2) (NeoX) or (2i, 2i + 1) (GPT-J).
  public var isNeoX: Bool
  public var values: Tensor

  public init(dim: Int, isNeoX: Bool, values: Tensor) {
    self.dim = dim
    self.isNeoX = isNeoX
    self.values = values
  }
}

/// A normalisation of each query or key head, before rotation: RMS norm with one weight per dim.
public struct HeadNorm: Sendable {
  /// float32 `[headDim]`.
  public var weight: Tensor
  public var epsilon: Float

  public init(weight: Tensor, epsilon: Float) {
    self.weight = weight
    self.epsilon = epsilon
  }
}

/// Arguments of ``AttentionKernels/append(_:on:)``.
public struct AppendArguments: Sendable {
  public var numHeads: Int
  /// float32 `[n, numHeads·headDim + numKVHeads·(headDim + valueHeadDim)]`.
  public var fusedQKV: Tensor
  /// float32 `[n, numHeads·headDim]`: receives the normalised and rotated queries.
  public var queries: Tensor
  public var queryNorm: HeadNorm?
  public var keyNorm: HeadNorm?
  public var rope: RopeTable?
  public var ragged: RaggedQueries
  public var cache: PagedKV

  public init(
    numHeads: Int, fusedQKV: Tensor, queries: Tensor, queryNorm: HeadNorm? = nil, keyNorm: HeadNorm? = nil, rope: RopeTable? = nil,
    ragged: RaggedQueries, cache: PagedKV
  ) {
    self.numHeads = numHeads
    self.fusedQKV = fusedQKV
    self.queries = queries
    self.queryNorm = queryNorm
    self.keyNorm = keyNorm
    self.rope = rope
    self.ragged = ragged
    self.cache = cache
  }
}

/// Which keys a query sees. Query i of a request (at cache position p) always sees keys right-aligned: key j is at cache position j.
public enum MaskView: Sendable, Hashable {
  /// j ≤ p.
  case causal
  /// p − window < j ≤ p.
  case slidingWindow(Int)
  /// Every key.
  case full
}

/// Arguments of ``AttentionKernels/attend(_:on:)``.
public struct AttendArguments: Sendable {
  public var numHeads: Int
  /// float32 `[n, numHeads·headDim]`.
  public var queries: Tensor
  /// float32 `[n, numHeads·valueHeadDim]`.
  public var output: Tensor
  /// float32 `[n, numHeads]`, base 2; nil if not wanted.
  public var logSumExp: Tensor?
  /// Multiplies every score.
  public var scale: Float
  public var mask: MaskView
  public var ragged: RaggedQueries
  public var cache: PagedKV
  public var work: AttentionWork

  public init(
    numHeads: Int, queries: Tensor, output: Tensor, logSumExp: Tensor? = nil, scale: Float, mask: MaskView, ragged: RaggedQueries,
    cache: PagedKV, work: AttentionWork
  ) {
    self.numHeads = numHeads
    self.queries = queries
    self.output = output
    self.logSumExp = logSumExp
    self.scale = scale
    self.mask = mask
    self.ragged = ragged
    self.cache = cache
    self.work = work
  }
}
