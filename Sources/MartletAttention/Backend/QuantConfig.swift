// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletCore

/// How a layer's attention is quantised.
public struct QuantConfig: Sendable, Hashable {
  /// The type of the layer's stored keys and values; nil means the cache's own (`KVCacheConfig.dataType`).
  public var kvCacheDataType: DataType?

  public init(kvCacheDataType: DataType? = nil) { self.kvCacheDataType = kvCacheDataType }
}
