// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore

/// The sizes of multi-head latent attention (arXiv 2405.04434).
///
/// Keys and values of a token are made of one latent c of `kvLoraRank` dims, and of `qkRopeHeadDim` dims that carry its position, the same for
/// all heads. The cache holds these and nothing else. In the *absorbed* form, which is the one that a layer of attention computes, the matrices that
/// would expand a latent stand with the queries and the output instead:
///
/// ```
/// score = (W_uk[h]ᵀ · q_nope[h]) · c + rope(q_rope[h]) · rope(k_rope)
/// o[h]  = W_uv[h] · Σ p · c
/// ```
///
/// So to attention every head is a row against one key of `kvLoraRank + qkRopeHeadDim` dims, whose first part is the value. The *expanded* form, which a
/// model can take for prompts (``LatentPrompts``), makes keys `[W_uk[h] · c, rope(k_rope)]` and values `W_uv[h] · c` of every head, and attends to them as
/// other models do.
public struct MLAParams: Sendable, Hashable {
  /// Dims of the latent that queries are made of; nil where they are made of the hidden state.
  public var qLoraRank: Int?
  /// Dims of the latent that keys and values are made of.
  public var kvLoraRank: Int
  /// Dims of a query or key that do not carry positions.
  public var qkNopeHeadDim: Int
  /// Dims that do.
  public var qkRopeHeadDim: Int
  /// Dims of a value head, after it was expanded.
  public var vHeadDim: Int

  /// - Precondition: all are positive.
  public init(qLoraRank: Int? = nil, kvLoraRank: Int, qkNopeHeadDim: Int, qkRopeHeadDim: Int, vHeadDim: Int) {
    enforce(
      qLoraRank ?? 1 > 0 && kvLoraRank > 0 && qkNopeHeadDim > 0 && qkRopeHeadDim > 0 && vHeadDim > 0,
      "latents of \(qLoraRank ?? 1) and \(kvLoraRank) dims, heads of \(qkNopeHeadDim), \(qkRopeHeadDim) and \(vHeadDim)")
    self.qLoraRank = qLoraRank
    self.kvLoraRank = kvLoraRank
    self.qkNopeHeadDim = qkNopeHeadDim
    self.qkRopeHeadDim = qkRopeHeadDim
    self.vHeadDim = vHeadDim
  }

  /// Dims of a query or key as attention sees them: the latent, then the dims of positions, then zeros to a multiple of 8, which is what kernels
  /// take.
  public var headDim: Int { (kvLoraRank + qkRopeHeadDim + 7) / 8 * 8 }

  /// From how many new tokens on a context takes fewer operations expanded than absorbed, however long it is; nil where it never does.
  ///
  /// For each head a query and a key that meet take 2 · (2 · kvLoraRank + qkRopeHeadDim) operations absorbed and
  /// 2 · (qkNopeHeadDim + qkRopeHeadDim + vHeadDim) expanded; to expand one key takes 2 · kvLoraRank · (qkNopeHeadDim + vHeadDim). Of DeepSeek V3's sizes
  /// these are 1088 against 320 for each pair, 131072 for each key, and so 171 tokens.
  public var leastExpandedTokens: Int? {
    let saved = 2 * kvLoraRank - qkNopeHeadDim - vHeadDim
    return saved > 0 ? (kvLoraRank * (qkNopeHeadDim + vHeadDim) + saved - 1) / saved : nil
  }
}

extension AttentionLayerSpec {
  /// The pages of a layer of latent attention; nil for other layers.
  func latentLayout(_ dataType: DataType, pageSize: Int) -> KVLayout? {
    mla.map { _ in .latent(dataType: dataType, pageSize: pageSize, headDim: headDim, valueHeadDim: valueHeadDim) }
  }
}
