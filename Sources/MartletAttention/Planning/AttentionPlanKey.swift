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
  /// From how many queries on a context is left out; nil = never.
  public var unattendedContextLength: Int?

  public init(numHeads: Int, numKVHeads: Int, valueHeadDim: Int, mask: MaskView, unattendedContextLength: Int? = nil) {
    self.numHeads = numHeads
    self.numKVHeads = numKVHeads
    self.valueHeadDim = valueHeadDim
    self.mask = mask
    self.unattendedContextLength = unattendedContextLength
  }

  /// The key of a layer under a mask.
  public init(_ layer: AttentionLayerSpec, mask: AttentionMask) {
    self.init(
      numHeads: layer.numHeads, numKVHeads: layer.numKVHeads, valueHeadDim: layer.valueHeadDim, mask: MaskView(mask, window: layer.window),
      unattendedContextLength: layer.unattendedContextLength)
  }
}

extension MaskView {
  /// A mask over a layer, whose window narrows what is causal or bidirectional.
  init(_ mask: AttentionMask, window: Int?) {
    self =
      switch mask {
      case .causal: window.map { .slidingWindow($0) } ?? .causal
      case .full: .full
      case .bidirectional: window.map { .around($0) } ?? .full
      case .custom: .custom(window: window)
      }
  }
}
