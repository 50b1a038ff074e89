// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletCore

/// How full the key/value cache is.
public struct KVCacheStatistics: Sendable, Hashable, Codable {
  /// One pool's pages.
  public struct Pool: Sendable, Hashable, Codable {
    /// The sliding window of the layers, in tokens; nil without one.
    public let window: Int?
    /// Key/value heads of each layer.
    public let numKVHeads: Int
    /// Dims of a key head.
    public let headDim: Int
    /// Dims of a value head.
    public let valueHeadDim: Int
    /// The type of the stored elements.
    public let dataType: DataType
    /// How many layers share the pool's page ids.
    public let layerCount: Int
    /// Page ids of the pool.
    public let pageCount: Int
    /// Page ids that hold nothing.
    public let freePages: Int
    /// Page ids that no sequence holds, kept for sequences that begin alike until a free page is wanted.
    public let cachedPages: Int
    /// Page ids that sequences hold.
    public let heldPages: Int
    /// Bytes of one page id, all layers together.
    public let bytesPerPage: Int

    private enum CodingKeys: String, CodingKey {
      case window
      case numKVHeads = "kv_heads"
      case headDim = "head_dim"
      case valueHeadDim = "value_head_dim"
      case dataType = "dtype"
      case layerCount = "layers"
      case pageCount = "pages"
      case freePages = "free_pages"
      case cachedPages = "cached_pages"
      case heldPages = "held_pages"
      case bytesPerPage = "bytes_per_page"
    }
  }

  /// What reuse was worth since the cache was made.
  public struct Prefixes: Sendable, Hashable, Codable {
    /// Tokens of the sequences that were added with their tokens.
    public internal(set) var askedTokens = 0
    /// Those of them that were taken from the cache.
    public internal(set) var reusedTokens = 0
    /// Those of ``reusedTokens`` that lie in copied pages, because the sequence parted from the cached one inside the page.
    public internal(set) var copiedTokens = 0
    /// Cached pages that were given up for free ones, all pools together.
    public internal(set) var evictedPages = 0

    /// The share of ``askedTokens`` that was reused; 0 where none was asked for.
    public var hitRate: Double { askedTokens == 0 ? 0 : Double(reusedTokens) / Double(askedTokens) }

    private enum CodingKeys: String, CodingKey {
      case askedTokens = "asked_tokens"
      case reusedTokens = "reused_tokens"
      case copiedTokens = "copied_tokens"
      case evictedPages = "evicted_pages"
    }
  }

  /// The pools, in the order of their first layers.
  public let pools: [Pool]
  /// Sequences in the cache.
  public let sequences: Int
  /// Tokens in a page.
  public let pageSize: Int
  /// The bytes that the budget allowed.
  public let budgetByteCount: Int
  /// How the budget was found, in words.
  public let budgetOrigin: String
  /// What reuse was worth.
  public let prefixes: Prefixes

  /// The bytes that the pages take: at most the budget.
  public var byteCount: Int { pools.reduce(0) { $0 + $1.pageCount * $1.bytesPerPage } }

  private enum CodingKeys: String, CodingKey {
    case pools, sequences, prefixes
    case pageSize = "page_size"
    case budgetByteCount = "budget_bytes"
    case budgetOrigin = "budget_origin"
  }
}

extension KVCacheManager {
  /// How full the cache is now.
  public var statistics: KVCacheStatistics {
    let origin =
      switch config.budget {
      case .bytes: "given in bytes"
      case .fractionOfFreeMemory(let fraction): "\(fraction) of the free memory"
      case .automatic:
        "chosen: enough for \(maxSequences) sequences of \(maxSequenceLength) tokens, at most "
          + "\(KVCacheConfig.automaticFraction) of the free memory"
      }
    return KVCacheStatistics(
      pools: pools.map {
        KVCacheStatistics.Pool(
          window: $0.key.window, numKVHeads: $0.key.numKVHeads, headDim: $0.key.headDim, valueHeadDim: $0.key.valueHeadDim,
          dataType: $0.key.dataType, layerCount: $0.layers.count, pageCount: $0.pageCount, freePages: $0.freeCount,
          cachedPages: $0.cachedCount, heldPages: $0.heldCount, bytesPerPage: $0.bytesPerPage)
      },
      sequences: sequenceCount, pageSize: pageSize, budgetByteCount: budgetByteCount, budgetOrigin: origin, prefixes: prefixCounts)
  }
}
