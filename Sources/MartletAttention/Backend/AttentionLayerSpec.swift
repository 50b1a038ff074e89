// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletCore

/// One attention layer of a model: what is fixed when the model is made.
///
/// Head counts are those of this process (of this rank, where heads are divided among devices).
public struct AttentionLayerSpec: Sendable {
  /// The layer's number in the model. Distinct, but need not be gapless: a model may have layers without attention.
  public var layerIndex: Int
  /// Query heads.
  public var numHeads: Int
  /// Key/value heads; each serves `groupSize` query heads.
  public var numKVHeads: Int
  /// Dims of a query or key head.
  public var headDim: Int
  /// Dims of a value head, and so of a head of the output.
  public var valueHeadDim: Int
  /// Multiplies every score: 1 / (√headDim · qScaling) unless given.
  public var scale: Float
  /// cap · tanh(x / cap) on scaled scores, before masking.
  public var softCap: Float?
  /// Under a causal mask, the query at position i sees keys j with i − window < j ≤ i; under a bidirectional one those with |i − j| < window.
  public var window: Int?
  /// float32 `[numHeads]`: one more logit per head in the softmax denominator, neither scaled nor capped, without a value.
  public var sinks: Tensor?
  /// How positions enter; nil where the model rotates, or has no rotary positions.
  public var positionalEmbedding: PositionalEmbeddingParams?
  /// How the layer is quantised; nil = as the cache and the inputs are.
  public var quantConfig: QuantConfig?
  /// Present where all heads read one latent, whose first dims are their values (multi-head latent attention, absorbed).
  public private(set) var mla: MLAParams?
  /// Contexts of at least so many new tokens are appended to the cache and not attended: their rows of the output are somebody else's, and the layer leaves
  /// them as they are. nil, the default, attends every row. A step without a cache leaves none.
  ///
  /// A backend that does not look at it computes those rows for nothing, and nobody reads them.
  public var unattendedContextLength: Int?
  /// The model's own scales of e4m3 keys and values; they count where ``quantConfig`` and the context's leave both at 1.
  public var kvScales: KVScales?
  /// RMS norm of each query head before rotation.
  public var queryNorm: HeadNorm?
  /// RMS norm of each key head before rotation.
  public var keyNorm: HeadNorm?

  /// - Parameters:
  ///   - numKVHeads: `numHeads` when nil.
  ///   - valueHeadDim: `headDim` when nil.
  ///   - scale: replaces 1 / (√headDim · qScaling).
  /// - Precondition: counts are positive and `numKVHeads` divides `numHeads`.
  public init(
    layerIndex: Int, numHeads: Int, headDim: Int, numKVHeads: Int? = nil, valueHeadDim: Int? = nil, qScaling: Float = 1,
    scale: Float? = nil, softCap: Float? = nil, window: Int? = nil, sinks: Tensor? = nil, quantConfig: QuantConfig? = nil,
    positionalEmbedding: PositionalEmbeddingParams? = nil, queryNorm: HeadNorm? = nil, keyNorm: HeadNorm? = nil
  ) {
    let numKVHeads = numKVHeads ?? numHeads
    enforce(
      numHeads > 0 && headDim > 0 && numKVHeads > 0 && valueHeadDim ?? 1 > 0,
      "layer \(layerIndex): \(numHeads) heads and \(numKVHeads) key/value heads of \(headDim) dims")
    enforce(
      numHeads % numKVHeads == 0, "layer \(layerIndex): \(numHeads) heads cannot be shared among \(numKVHeads) key/value heads")
    enforce(window ?? 1 >= 1, "layer \(layerIndex): a sliding window holds at least 1 token, not \(window ?? 0)")
    self.layerIndex = layerIndex
    self.numHeads = numHeads
    self.numKVHeads = numKVHeads
    self.headDim = headDim
    self.valueHeadDim = valueHeadDim ?? headDim
    self.scale = scale ?? 1 / (Float(headDim).squareRoot() * qScaling)
    self.softCap = softCap
    self.window = window
    self.sinks = sinks
    self.quantConfig = quantConfig
    self.positionalEmbedding = positionalEmbedding
    self.queryNorm = queryNorm
    self.keyNorm = keyNorm
  }

  /// A layer of multi-head latent attention in its absorbed form: queries of ``MLAParams/headDim`` dims, one latent as wide for all heads, values that
  /// are the latent's first ``MLAParams/kvLoraRank`` dims. RoPE turns what follows them.
  ///
  /// - Parameter scale: replaces 1 / (√(qkNopeHeadDim + qkRopeHeadDim) · qScaling).
  public init(
    layerIndex: Int, numHeads: Int, mla: MLAParams, qScaling: Float = 1, scale: Float? = nil, quantConfig: QuantConfig? = nil,
    rope: RopeParams?, isNeoX: Bool = false
  ) {
    self.init(
      layerIndex: layerIndex, numHeads: numHeads, headDim: mla.headDim, numKVHeads: 1, valueHeadDim: mla.kvLoraRank,
      scale: scale ?? 1 / (Float(mla.qkNopeHeadDim + mla.qkRopeHeadDim).squareRoot() * qScaling), quantConfig: quantConfig,
      positionalEmbedding: rope.map { PositionalEmbeddingParams($0, firstDim: mla.kvLoraRank, isNeoX: isNeoX) })
    self.mla = mla
  }

  /// Query heads that share one key/value head.
  public var groupSize: Int { numHeads / numKVHeads }
  /// Columns of the query input.
  public var queryWidth: Int { numHeads * headDim }
  /// Columns of the key input.
  public var keyWidth: Int { numKVHeads * headDim }
  /// Columns of the value input; 0 where values are part of the keys.
  public var valueWidth: Int { mla == nil ? numKVHeads * valueHeadDim : 0 }
  /// Columns of a fused QKV input: `[q heads | k heads | v heads]`, or `[q heads | latent]`.
  public var fusedWidth: Int { queryWidth + keyWidth + valueWidth }
  /// Columns of the output.
  public var outputWidth: Int { numHeads * valueHeadDim }
}
