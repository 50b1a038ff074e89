// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletCore

/// What a layer's attention is given in one step: queries, and the keys and values to append. All tensors are float32.
///
/// In cross attention k and v have a row for each new key/value token of the step (`AttentionMetadata.raggedKV`), not for each query.
public struct AttentionInputs: Sendable {
  /// How queries, keys and values come.
  public enum Form: Sendable {
    /// q `[numTokens, numHeads·headDim]`, k `[numTokens, numKVHeads·headDim]`, v `[numTokens, numKVHeads·valueHeadDim]`.
    case separate(q: Tensor, k: Tensor, v: Tensor)
    /// `[numTokens, numHeads·headDim + numKVHeads·(headDim + valueHeadDim)]`: `[q heads | k heads | v heads]`; of latent attention
    /// `[numTokens, (numHeads + 1)·headDim]`: `[q heads | latent]`.
    case fused(Tensor)
    /// For a layer of latent attention: q `[numTokens, numHeads·headDim]` and latents `[numTokens, headDim]`, both before rotation.
    case latent(q: Tensor, latents: Tensor)
    /// q alone: the keys and values of this step are in the cache already.
    case queriesOnly(Tensor)
  }

  /// Queries, keys and values.
  public var form: Form
  /// Which keys a query sees.
  public var mask: AttentionMask
  /// Whether the step's keys and values are appended. False: they are in the cache already (an earlier pass wrote them), and those given
  /// are ignored.
  public var updatesCache: Bool
  /// Multiplies the output before it is rounded to e4m3; 1 for float32 output.
  public var outputScale: Float

  /// Queries, keys and values apart.
  public init(q: Tensor, k: Tensor, v: Tensor, mask: AttentionMask = .causal, updatesCache: Bool = true, outputScale: Float = 1) {
    form = .separate(q: q, k: k, v: v)
    self.mask = mask
    self.updatesCache = updatesCache
    self.outputScale = outputScale
  }

  /// Queries, keys and values side by side in one tensor.
  public init(fusedQKV: Tensor, mask: AttentionMask = .causal, updatesCache: Bool = true, outputScale: Float = 1) {
    form = .fused(fusedQKV)
    self.mask = mask
    self.updatesCache = updatesCache
    self.outputScale = outputScale
  }

  /// Absorbed queries and latents, for latent attention.
  public init(q: Tensor, latents: Tensor, mask: AttentionMask = .causal, updatesCache: Bool = true, outputScale: Float = 1) {
    form = .latent(q: q, latents: latents)
    self.mask = mask
    self.updatesCache = updatesCache
    self.outputScale = outputScale
  }

  /// Reads the cache only.
  public init(queries: Tensor, mask: AttentionMask = .causal, outputScale: Float = 1) {
    form = .queriesOnly(queries)
    self.mask = mask
    updatesCache = false
    self.outputScale = outputScale
  }
}
