// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Which tokens may come next: a bit per token of the vocabulary, token `i` being bit `i % 64` of word `i / 64`.
public struct TokenMask: Sendable, Hashable {
  /// Of the vocabulary.
  public let numTokens: Int
  /// The bits; those beyond `numTokens` are 0.
  public internal(set) var words: [UInt64]

  /// No token.
  public init(numTokens: Int) {
    self.numTokens = numTokens
    words = [UInt64](repeating: 0, count: (numTokens + 63) / 64)
  }

  /// Whether the token may come.
  public subscript(token: Int) -> Bool { words[token >> 6] >> UInt64(token & 63) & 1 == 1 }

  /// Tokens that may come.
  public var count: Int { words.reduce(0) { $0 + $1.nonzeroBitCount } }

  /// The one token that may come; nil if there are several or none.
  public var onlyToken: Int? {
    var found: Int?
    for (index, word) in words.enumerated() where word != 0 {
      if found != nil || word & (word - 1) != 0 { return nil }
      found = index << 6 + word.trailingZeroBitCount
    }
    return found
  }

  @inline(__always)
  mutating func insert(_ token: Int32) { words[Int(token) >> 6] |= 1 << UInt64(token & 63) }

  mutating func removeAll() {
    for index in words.indices { words[index] = 0 }
  }

  mutating func formUnion(_ other: borrowing [UInt64]) {
    words.withUnsafeMutableBufferPointer { mine in
      other.withUnsafeBufferPointer { theirs in
        for index in mine.indices { mine[index] |= theirs[index] }
      }
    }
  }
}
