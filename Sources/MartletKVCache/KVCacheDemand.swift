// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// What one sequence of the greatest length takes of one pool: for plans and reports, before any memory is reserved.
public struct KVCacheDemand: Sendable, Hashable, Codable {
  /// The sliding window of the pool's layers; nil where they see everything.
  public let window: Int?
  /// Layers that share the pool's page ids.
  public let layerCount: Int
  /// Bytes of one page id, all layers together.
  public let bytesPerPage: Int
  /// The most pages that the sequence holds at one time.
  public let pages: Int

  /// The bytes of those pages.
  public var byteCount: Int { pages * bytesPerPage }

  private enum CodingKeys: String, CodingKey {
    case window, pages
    case layerCount = "layers"
    case bytesPerPage = "bytes_per_page"
  }
}

extension KVCacheConfig {
  /// What one sequence of `maxSequenceLength` tokens takes of each pool that these layers form.
  /// - Parameter maxTokensPerStep: the most of them that one step adds; nil where they may come whole.
  public func demand(of layers: [KVLayerSpec], maxSequenceLength: Int, maxTokensPerStep: Int? = nil) -> [KVCacheDemand] {
    KVCacheManager.demands(
      layers, maxSequenceLength: maxSequenceLength, chunk: maxTokensPerStep ?? maxSequenceLength,
      pageSize: tokensPerPage(maxSequenceLength: maxSequenceLength)
    ).map {
      KVCacheDemand(
        window: $0.key.window, layerCount: $0.layers.count, bytesPerPage: $0.bytesPerPage, pages: $0.pagesPerSequence)
    }
  }
}
