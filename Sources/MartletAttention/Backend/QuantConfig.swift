// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletCore

/// How a layer's attention is quantised.
///
/// - e4m3 keys and values are stored as x / scale, saturated to ±448: one scale for the keys and one for the values of the layer, from the
///   checkpoint or the user, 1 where nobody gave one, and never a running maximum.
/// - int8 keys and values have a scale for each token and head: code = rint(x · 127 / max|x|).
/// - FP8 inputs: queries too are rounded to e4m3, after norm and rotation, without a scale.
/// - FP8 output: the layer's output tensor is e4m3, o · `AttentionInputs.outputScale`, saturated.
public struct QuantConfig: Sendable, Hashable {
  /// The type of the layer's stored keys and values; nil means the cache's own (`KVCacheConfig.dataType`).
  public var kvCacheDataType: DataType?
  /// The scales of e4m3 keys and values; other types ignore them.
  public var kvScales: KVScales
  /// Whether queries are rounded to e4m3; only with an e4m3 cache.
  public var fp8Inputs: Bool
  /// Whether the layer's output is e4m3.
  public var fp8Output: Bool

  public init(
    kvCacheDataType: DataType? = nil, kvScales: KVScales = KVScales(), fp8Inputs: Bool = false, fp8Output: Bool = false
  ) {
    self.kvCacheDataType = kvCacheDataType
    self.kvScales = kvScales
    self.fp8Inputs = fp8Inputs
    self.fp8Output = fp8Output
  }
}
