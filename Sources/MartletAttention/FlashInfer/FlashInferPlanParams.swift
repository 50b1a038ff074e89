// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletCore

/// What makes two layers share a plan of ``FlashInferMetadata``: everything that FlashInfer's `plan` is told of a layer.
public struct FlashInferPlanParams: Sendable, Hashable {
  /// Query heads.
  public var numHeads: Int
  /// Key/value heads.
  public var numKVHeads: Int
  /// Dims of a query or key head.
  public var headDim: Int
  /// Dims of a value head.
  public var valueHeadDim: Int
  /// f8e4m3 where queries are rounded to it, else f32.
  public var queryDataType: DataType
  /// The type of the stored keys and values.
  public var kvDataType: DataType
  /// Which keys a query sees, the window included.
  public var mask: MaskView
  /// Multiplies every score.
  public var scale: Float
  public var softCap: Float?
  /// The pool whose pages the layer reads: shared chunks are found there. nil without a cache.
  public var pool: Int?
  /// From how many queries on a context is left out of the plan; nil = never.
  public var unattendedContextLength: Int?

  init(_ layer: AttentionLayerSpec, mask: AttentionMask, pool: Int?, in context: AttentionContext) {
    numHeads = layer.numHeads
    numKVHeads = layer.numKVHeads
    headDim = layer.headDim
    valueHeadDim = layer.valueHeadDim
    queryDataType = context.quantConfig(of: layer).fp8Inputs ? .f8e4m3 : .f32
    kvDataType = context.kvDataType(of: layer)
    self.mask = MaskView(mask, window: layer.window)
    scale = layer.scale
    softCap = layer.softCap
    self.pool = pool
    unattendedContextLength = layer.unattendedContextLength
  }

  /// What the planner asks of them.
  var planKey: AttentionPlanKey {
    AttentionPlanKey(
      numHeads: numHeads, numKVHeads: numKVHeads, valueHeadDim: valueHeadDim, mask: mask, unattendedContextLength: unattendedContextLength)
  }
}
