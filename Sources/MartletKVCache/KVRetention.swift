// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// How long a sequence's pages are kept when no sequence holds them any more.
///
/// Nothing is kept for ever, and nothing is given up before its memory is wanted. When it is, pages of the lowest level go first, and among
/// those of one level the least recently held. A page's level is the highest of all the sequences that have held it since it was filled. So
/// a prefix is kept at least as long as anything that continues it: who holds the continuation holds the prefix too. A level says nothing of
/// pages that a sequence holds: those never go.
public enum KVRetention: Int8, Sendable, Hashable, CaseIterable, Comparable {
  /// Goes first: of sequences whose beginning is not expected again.
  case low
  case normal
  /// Goes last: of beginnings that will come again, such as a system prompt. Where all that is cached is high, it is evicted like the rest.
  case high

  public static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }
}
