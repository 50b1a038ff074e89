// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// How positions enter an attention layer.
public struct PositionalEmbeddingParams: Sendable, Hashable {
  /// When keys are rotated.
  public enum Kind: Sendable, Hashable {
    /// Before they are cached: the cache holds rotated keys.
    case rope
    /// When they are read: the cache holds unrotated keys, rotated by their cache positions.
    case deferred
  }

  /// When keys are rotated.
  public var kind: Kind
  /// The angles.
  public var rope: RopeParams
  /// Whether pairs are (i, i + dim/2) (NeoX) or (2i, 2i + 1) (GPT-J).
  public var isNeoX: Bool
  /// The first head dim that is rotated.
  public var firstDim: Int
  /// Which of a token's three positions each pair turns by; nil where it has one.
  public var mrope: MRopeSections?

  public init(_ rope: RopeParams, firstDim: Int = 0, isNeoX: Bool = true, kind: Kind = .rope, mrope: MRopeSections? = nil) {
    self.firstDim = firstDim
    self.kind = kind
    self.rope = rope
    self.isNeoX = isNeoX
    self.mrope = mrope
  }
}
