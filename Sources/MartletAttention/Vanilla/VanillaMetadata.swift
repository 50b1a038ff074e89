// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore

/// The step as ``VanillaAttention`` needs it: with room for one request's keys and values, spread out as floats.
public final class VanillaMetadata: AttentionMetadata {
  private let keys: HostBuffer<Float>
  private let values: HostBuffer<Float>
  private let scores: HostBuffer<Float>
  private let head: HostBuffer<Float>

  public required init(_ setup: Setup) throws {
    let device = setup.context.device
    let length = setup.context.maxSequenceLength
    let headDim = setup.layers.map(\.headDim).max() ?? 1
    keys = try device.makeHostBuffer(of: Float.self, count: headDim * length)
    values = try device.makeHostBuffer(of: Float.self, count: (setup.layers.map(\.valueHeadDim).max() ?? 1) * length)
    scores = try device.makeHostBuffer(of: Float.self, count: length)
    head = try device.makeHostBuffer(of: Float.self, count: headDim)
    try super.init(setup)
  }

  /// `[headDim][keys]`: the keys of one head, turned so that neighbouring keys lie side by side.
  var keyScratch: UnsafeMutablePointer<Float> { keys.unsafeStorage.baseAddress! }
  /// `[keys][valueHeadDim]`.
  var valueScratch: UnsafeMutablePointer<Float> { values.unsafeStorage.baseAddress! }
  /// `[keys]`: one row of scores, then of weights.
  var scoreScratch: UnsafeMutablePointer<Float> { scores.unsafeStorage.baseAddress! }
  /// One key head, where it must be rotated as it is read.
  var headScratch: UnsafeMutablePointer<Float> { head.unsafeStorage.baseAddress! }
}
