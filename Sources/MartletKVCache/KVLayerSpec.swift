// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletCore

/// What the key/value cache must know of one layer: how its pages look and how far back its queries see.
public struct KVLayerSpec: Sendable, Hashable {
  /// The layout that the layer's attention backend asked for.
  public var layout: KVLayout
  /// The sliding window in tokens, the query's own token included; nil where every earlier key stays visible.
  public var window: Int?

  /// - Precondition: a window holds at least one token.
  public init(layout: KVLayout, window: Int? = nil) {
    enforce(window ?? 1 >= 1, "a sliding window holds at least 1 token, not \(window ?? 0)")
    self.layout = layout
    self.window = window
  }
}
