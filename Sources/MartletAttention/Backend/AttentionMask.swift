// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Which keys a query sees.
///
/// A sliding window is no mask of its own: it belongs to the layer (``AttentionLayerSpec/window``) and narrows ``causal``.
public enum AttentionMask: Sendable, Hashable, CaseIterable {
  /// Keys at the query's position and before, within the layer's window if it has one.
  case causal
  /// Every key of the sequence. Such a request is never chunked.
  case full
  /// The bits of ``AttentionMetadata/customMasks``, which replace causal and window; a sequence without bits is causal.
  case custom
}

/// The bits of one request's custom mask in one step: `[queryLength × keyLength]`.
public struct CustomAttentionMask: Sendable, Hashable {
  /// The request's new tokens in the step.
  public let queryLength: Int
  /// The request's key/value length after the step's append.
  public let keyLength: Int
  private var words: [UInt64]

  /// - Parameter isVisible: whether the query (counted within the step) sees the key (at its cache position).
  public init(queryLength: Int, keyLength: Int, isVisible: (_ query: Int, _ key: Int) -> Bool) {
    self.queryLength = queryLength
    self.keyLength = keyLength
    words = Array(repeating: 0, count: (queryLength * keyLength + 63) / 64)
    for query in 0..<queryLength {
      for key in 0..<keyLength where isVisible(query, key) {
        let bit = query * keyLength + key
        words[bit / 64] |= 1 << UInt64(bit % 64)
      }
    }
  }

  /// Whether the query sees the key.
  public subscript(query: Int, key: Int) -> Bool {
    precondition(
      query >= 0 && query < queryLength && key >= 0 && key < keyLength,
      "(query \(query), key \(key)) of a mask of \(queryLength) queries and \(keyLength) keys")
    let bit = query * keyLength + key
    return words[bit / 64] >> UInt64(bit % 64) & 1 == 1
  }
}
