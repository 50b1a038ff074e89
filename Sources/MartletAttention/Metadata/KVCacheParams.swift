// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// What the step's sequences have in the key/value cache.
public struct KVCacheParams: Sendable, Hashable {
  /// Whether the step uses the cache at all.
  public var useCache: Bool
  /// Tokens of each sequence that are in the cache *before* this step.
  public var numCachedTokensPerSeq: [Int]
  /// Further tokens for which each sequence must have pages (drafts yet to come); they are not attended to.
  public var numExtraKVTokens: Int

  public init(useCache: Bool = true, numCachedTokensPerSeq: [Int] = [], numExtraKVTokens: Int = 0) {
    self.useCache = useCache
    self.numCachedTokensPerSeq = numCachedTokensPerSeq
    self.numExtraKVTokens = numExtraKVTokens
  }
}
