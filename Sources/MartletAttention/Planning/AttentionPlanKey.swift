// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletCore

/// What makes two layers share a plan.
public struct AttentionPlanKey: Sendable, Hashable {
  /// Query heads.
  public var numHeads: Int
  /// Key/value heads.
  public var numKVHeads: Int
  /// The width of a chunk state.
  public var valueHeadDim: Int
  /// Which keys a query sees, the window included.
  public var mask: MaskView

  public init(numHeads: Int, numKVHeads: Int, valueHeadDim: Int, mask: MaskView) {
    self.numHeads = numHeads
    self.numKVHeads = numKVHeads
    self.valueHeadDim = valueHeadDim
    self.mask = mask
  }

  /// The key of a layer under a mask.
  /// - Precondition: the mask is causal or full; a plan knows no custom bits.
  public init(_ layer: AttentionLayerSpec, mask: AttentionMask) {
    let view: MaskView =
      switch mask {
      case .causal: layer.window.map { .slidingWindow($0) } ?? .causal
      case .full: .full
      case .custom: preconditionFailure("a plan under custom mask bits")
      }
    self.init(numHeads: layer.numHeads, numKVHeads: layer.numKVHeads, valueHeadDim: layer.valueHeadDim, mask: view)
  }
}
