// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore

/// Which keys a query sees.
///
/// A sliding window is no mask of its own: it belongs to the layer (``AttentionLayerSpec/window``) and narrows ``causal`` and ``bidirectional``.
public enum AttentionMask: Sendable, Hashable, CaseIterable {
  /// Keys at the query's position and before, within the layer's window if it has one.
  case causal
  /// Every key of the sequence. Such a request is never chunked.
  case full
  /// Keys on both sides of the query's position: within the layer's window if it has one, else every key of the sequence. What encoders have whose
  /// layers see a window. Such a request is never chunked.
  case bidirectional
  /// The bits of ``AttentionMetadata/customMasks``, which replace causal and window; a sequence without bits is causal.
  case custom
}

/// The bits of one request's custom mask in one step: `[queryLength × keyLength]`.
///
/// Rows begin at whole 64-bit words, so that a step's bits go to the device as they are.
public struct CustomAttentionMask: Sendable, Hashable {
  /// The request's new tokens in the step.
  public let queryLength: Int
  /// The request's key/value length after the step's append.
  public let keyLength: Int
  /// Whether some query sees a key behind its own position. A request with such bits is never chunked.
  public let looksAhead: Bool
  /// `[queryLength, wordsPerRow]`: bit j % 64 of word j / 64 is key j's; bits from `keyLength` on are 0.
  let words: [UInt64]

  /// - Parameter isVisible: whether the query (counted within the step) sees the key (at its cache position).
  public init(queryLength: Int, keyLength: Int, isVisible: (_ query: Int, _ key: Int) -> Bool) {
    let wordsPerRow = Self.wordsPerRow(keyLength: keyLength)
    var words = Array(repeating: UInt64(0), count: queryLength * wordsPerRow)
    var looksAhead = false
    for query in 0..<queryLength {
      for key in 0..<keyLength where isVisible(query, key) {
        words[query * wordsPerRow + key / 64] |= 1 << UInt64(key % 64)
        looksAhead = looksAhead || key > keyLength - queryLength + query
      }
    }
    self.queryLength = queryLength
    self.keyLength = keyLength
    self.looksAhead = looksAhead
    self.words = words
  }

  /// Whether some query sees one of these keys.
  func shows(_ keys: Range<Int>) -> Bool {
    (0..<queryLength).contains { query in keys.contains { self[query, $0] } }
  }

  /// Words of a row.
  static func wordsPerRow(keyLength: Int) -> Int { (keyLength + 63) / 64 }

  /// Whether the query sees the key.
  public subscript(query: Int, key: Int) -> Bool {
    enforce(
      query >= 0 && query < queryLength && key >= 0 && key < keyLength,
      "(query \(query), key \(key)) of a mask of \(queryLength) queries and \(keyLength) keys")
    return words[query * Self.wordsPerRow(keyLength: keyLength) + key / 64] >> UInt64(key % 64) & 1 == 1
  }
}
