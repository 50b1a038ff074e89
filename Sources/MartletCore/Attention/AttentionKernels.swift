// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// The attention kernels of a device: what a backend calls.
///
/// They read plain structs over tensors; what is planned (work split, page tables) was planned before.
public protocol AttentionKernels: Sendable {
  /// Why these kernels cannot serve this shape and layout, in words; empty when they can. Asked at construction of a backend.
  func obstacles(layout: KVLayout, numHeads: Int) -> [String]

  /// One pass over the step's tokens: q/k norm, RoPE, rounding or quantisation, and the append of keys and values to their pages.
  ///
  /// Writes the finished queries to `queries` and K and V, in the cache's type, to the page slot of each token's cache position. Packed tails
  /// are zeroed: the slots of the last page after the last token of a request hold zeros afterwards (0 × stale NaN is NaN). Tokens of a
  /// request whose `kvLens` is 0 are dummies, which fill a captured batch: they are skipped.
  func append(_ arguments: AppendArguments, on queue: any DeviceQueue)

  /// Attends from the step's queries to the pages. K and V are read only as stored, this step's tokens included.
  ///
  /// Only rows that the work names are written.
  func attend(_ arguments: AttendArguments, on queue: any DeviceQueue)

  /// Reads stored keys back as float32: the numbers that `attend` reads.
  func gather(_ arguments: GatherArguments, on queue: any DeviceQueue)
}

/// The tokens of one step, packed: request after request, without padding. All tensors are int32.
///
/// `n` tokens of `r` requests. Token t of request i, with `queryIndptr[i] ≤ t < queryIndptr[i + 1]`, sits at cache position
/// `kvLens[i] − (queryIndptr[i + 1] − t)`. In cross attention queries and keys are different tokens: then one value describes the queries
/// (with the encoder's `kvLens`, and no cache positions of their own), another the keys that are appended.
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
  /// `[n]`: the position that RoPE uses; the same tensor as `tokenPositions` unless the caller gave its own. Or `[3, columns]`, columns ≥ n: time,
  /// height and width; whoever takes one position reads the first row.
  public var positionIDs: Tensor
  /// `[n]`: the position of each token; time's where it has three.
  public var firstPositionIDs: Tensor {
    axisColumns == nil ? positionIDs : positionIDs.reshaped(Shape(positionIDs.count)).prefix(numTokens)
  }
  /// Columns of ``positionIDs`` where it has three rows; nil where it has one.
  public var axisColumns: Int? { positionIDs.shape.rank == 2 && positionIDs.shape[0] == 3 ? positionIDs.shape[1] : nil }

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
  /// The first of them.
  public var firstDim: Int
  /// Whether pairs are (i, i + dim/2) (NeoX) or (2i, 2i + 1) (GPT-J).
  public var isNeoX: Bool
  public var values: Tensor
  /// int32 `[dim / 2]`: the row of ``RaggedQueries/positionIDs`` that each pair turns by, where that has three; nil = all by the first.
  public var axes: Tensor?

  public init(dim: Int, firstDim: Int = 0, isNeoX: Bool, values: Tensor, axes: Tensor? = nil) {
    self.dim = dim
    self.firstDim = firstDim
    self.isNeoX = isNeoX
    self.values = values
    self.axes = axes
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

/// Heads that lie side by side in each row of a tensor: one of its own, or some columns of a fused one.
public struct HeadInput: Sendable {
  /// float32 `[n, columns]`.
  public var tensor: Tensor
  /// Where the first head begins in a row.
  public var column: Int

  public init(_ tensor: Tensor, column: Int = 0) {
    self.tensor = tensor
    self.column = column
  }
}

/// Factors of e4m3 keys and values, for the whole layer: stored = x / scale, saturated to ±448. 1 for every other type.
public struct KVScales: Sendable, Hashable {
  public var key: Float
  public var value: Float

  public init(key: Float = 1, value: Float = 1) {
    self.key = key
    self.value = value
  }
}

/// Arguments of ``AttentionKernels/append(_:on:)``.
///
/// Queries, keys and values are optional: without `query` none are finished; without `keys` and `values` none are appended.
public struct AppendArguments: Sendable {
  public var numHeads: Int
  public var headDim: Int
  /// Unfinished queries: `numHeads` heads of `headDim`.
  public var query: HeadInput?
  /// float32 `[n, numHeads·headDim]`: receives the normalised and rotated queries.
  public var queries: Tensor?
  /// `layout.numKVHeads` heads of `headDim`; present exactly when `cache` is.
  public var keys: HeadInput?
  /// `layout.numKVHeads` heads of `layout.valueHeadDim`; present where keys are, unless values are the first dims of the keys.
  public var values: HeadInput?
  public var queryNorm: HeadNorm?
  public var keyNorm: HeadNorm?
  public var rope: RopeTable?
  /// Whether keys are rotated before they are stored; false where they are rotated as they are read (deferred).
  public var rotatesKeys: Bool
  /// The tokens of queries, keys and values alike.
  public var ragged: RaggedQueries
  public var cache: PagedKV?
  public var scales: KVScales

  public init(
    numHeads: Int, headDim: Int, query: HeadInput? = nil, queries: Tensor? = nil, keys: HeadInput? = nil, values: HeadInput? = nil,
    queryNorm: HeadNorm? = nil, keyNorm: HeadNorm? = nil, rope: RopeTable? = nil, rotatesKeys: Bool = true, ragged: RaggedQueries,
    cache: PagedKV? = nil, scales: KVScales = KVScales()
  ) {
    self.numHeads = numHeads
    self.headDim = headDim
    self.query = query
    self.queries = queries
    self.keys = keys
    self.values = values
    self.queryNorm = queryNorm
    self.keyNorm = keyNorm
    self.rope = rope
    self.rotatesKeys = rotatesKeys
    self.ragged = ragged
    self.cache = cache
    self.scales = scales
  }
}

/// Which keys a query sees. Query i of a request (at cache position p) always sees keys right-aligned: key j is at cache position j.
public enum MaskView: Sendable, Hashable {
  /// j ≤ p.
  case causal
  /// p − window < j ≤ p.
  case slidingWindow(Int)
  /// |p − j| < window.
  case around(Int)
  /// Every key.
  case full
  /// The bits of ``AttendArguments/maskBits``, for requests that have some; for others the causal mask, within the window if there is one.
  case custom(window: Int?)
}

/// Custom mask bits of a step.
///
/// A request's bits are `queryLength` rows of ⌈keyLength / 64⌉ · 2 words; bit j % 32 of word j / 32 of row i says whether its query i sees key
/// j. Bits from `keyLength` on are 0.
public struct MaskBits: Sendable {
  /// int32, the words of all requests.
  public var words: Tensor
  /// int32 `[r]`: where each request's words begin; −1 for a request without bits.
  public var offsets: Tensor

  public init(words: Tensor, offsets: Tensor) {
    self.words = words
    self.offsets = offsets
  }
}

/// Arguments of ``AttentionKernels/attend(_:on:)``.
///
/// A score is q·k · `scale`, then softCap · tanh(score / softCap); hidden keys are left out; the softmax runs over what is left and the sink.
public struct AttendArguments: Sendable {
  public var numHeads: Int
  /// float32 `[n, numHeads·headDim]`.
  public var queries: Tensor
  /// Whether queries are rounded to e4m3 (saturating, without a scale) before the product.
  public var roundsQueriesToE4M3: Bool
  /// float32 or f8e4m3 `[n, numHeads·valueHeadDim]`; e4m3 receives o · `outputScale`, saturated.
  public var output: Tensor
  /// Multiplies e4m3 output.
  public var outputScale: Float
  /// float32 `[n, numHeads]`, base 2; nil if not wanted.
  public var logSumExp: Tensor?
  /// Multiplies every score.
  public var scale: Float
  public var softCap: Float?
  /// float32 `[numHeads]`: one more logit per head, neither scaled nor capped, without a value, counted once.
  public var sinks: Tensor?
  public var mask: MaskView
  /// Present where `mask` is custom.
  public var maskBits: MaskBits?
  /// Where cached keys are unrotated: they are rotated, in float32, by their cache positions as they are read.
  public var keyRope: RopeTable?
  public var ragged: RaggedQueries
  public var cache: PagedKV
  public var scales: KVScales
  public var work: AttentionWork

  public init(
    numHeads: Int, queries: Tensor, roundsQueriesToE4M3: Bool = false, output: Tensor, outputScale: Float = 1, logSumExp: Tensor? = nil,
    scale: Float, softCap: Float? = nil, sinks: Tensor? = nil, mask: MaskView, maskBits: MaskBits? = nil, keyRope: RopeTable? = nil,
    ragged: RaggedQueries, cache: PagedKV, scales: KVScales = KVScales(), work: AttentionWork
  ) {
    self.numHeads = numHeads
    self.queries = queries
    self.roundsQueriesToE4M3 = roundsQueriesToE4M3
    self.output = output
    self.outputScale = outputScale
    self.logSumExp = logSumExp
    self.scale = scale
    self.softCap = softCap
    self.sinks = sinks
    self.mask = mask
    self.maskBits = maskBits
    self.keyRope = keyRope
    self.ragged = ragged
    self.cache = cache
    self.scales = scales
    self.work = work
  }
}

/// Arguments of ``AttentionKernels/gather(_:on:)``.
public struct GatherArguments: Sendable {
  public var cache: PagedKV
  public var scales: KVScales
  /// Whose keys, within the batch of the page table.
  public var request: Int
  /// Of which key/value head.
  public var kvHead: Int
  /// Cache positions, whose pages are all there.
  public var positions: Range<Int>
  /// Dims of each key.
  public var dims: Range<Int>
  /// float32 `[positions, dims]`.
  public var output: Tensor

  public init(
    cache: PagedKV, scales: KVScales = KVScales(), request: Int, kvHead: Int = 0, positions: Range<Int>, dims: Range<Int>, output: Tensor
  ) {
    self.cache = cache
    self.scales = scales
    self.request = request
    self.kvHead = kvHead
    self.positions = positions
    self.dims = dims
    self.output = output
  }
}
