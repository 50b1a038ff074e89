// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletCore
public import MartletKVCache

extension AttentionMetadata {
  /// What a metadata must know from the start: its limits, and the layers it will serve, so that every plan is known before the first step.
  public struct Setup {
    /// The device, the cache configuration and the limits of sequences.
    public var context: AttentionContext
    /// The layers, in the order of the cache manager's.
    public var layers: [AttentionLayerSpec]
    /// nil = no cache.
    public var kvCacheManager: KVCacheManager?
    /// The masks that forwards will ask for; plans are made for these.
    public var masks: Set<AttentionMask>
    /// The most requests in one batch.
    public var maxNumRequests: Int
    /// The most query tokens in one batch; at least one for each request.
    public var maxNumTokens: Int
    /// The most new key/value tokens in one batch: the queries', unless attention is cross.
    public var maxNumKVTokens: Int
    /// Whether queries and keys are different tokens (those of a decoder and of an encoder).
    ///
    /// Cross metadata has a cache of its own, the encoder's. Cross attention has no causal order: its masks are full, or custom bits for
    /// every sequence.
    public var isCross: Bool
    /// Query tokens of a dummy request, which fills a captured batch.
    public var queriesPerRequest = 1
    /// Whether shapes are fixed because a graph captures them.
    public var isCUDAGraph: Bool
    /// Where `prepare()` copies to the device: the queue that the layers' forwards run on.
    public var queue: any DeviceQueue

    /// - Parameters:
    ///   - maxNumRequests: the context's when nil.
    ///   - maxNumTokens: the context's when nil.
    ///   - masks: causal when nil, and full in cross attention.
    ///   - maxNumKVTokens: `maxNumTokens` when nil.
    ///   - queue: the cache manager's when nil, on which it copies pages; without a cache one of its own.
    public init(
      context: AttentionContext, layers: [AttentionLayerSpec], kvCacheManager: KVCacheManager?, masks: Set<AttentionMask>? = nil,
      maxNumRequests: Int? = nil, maxNumTokens: Int? = nil, maxNumKVTokens: Int? = nil, isCross: Bool = false, isCUDAGraph: Bool = false,
      queue: (any DeviceQueue)? = nil
    ) {
      self.context = context
      self.layers = layers
      self.kvCacheManager = kvCacheManager
      self.masks = masks ?? (isCross ? [.full] : [.causal])
      self.maxNumRequests = maxNumRequests ?? context.maxNumRequests
      self.maxNumTokens = maxNumTokens ?? context.maxNumTokens
      self.maxNumKVTokens = maxNumKVTokens ?? self.maxNumTokens
      self.isCross = isCross
      self.isCUDAGraph = isCUDAGraph
      self.queue = queue ?? kvCacheManager?.queue ?? context.device.makeQueue()
    }
  }
}

extension AttentionMetadata.Setup {
  /// Whether layers and cache agree.
  func validate() throws(AttentionError) {
    guard maxNumRequests > 0, maxNumTokens >= maxNumRequests else {
      throw .invalidStep("at most \(maxNumTokens) tokens for at most \(maxNumRequests) requests: each request has at least one")
    }
    guard Set(layers.map(\.layerIndex)).count == layers.count else { throw .invalidStep("two layers have the same number") }
    guard isCross || maxNumKVTokens == maxNumTokens else {
      throw .invalidStep("at most \(maxNumKVTokens) key/value tokens for \(maxNumTokens) tokens: they differ in cross attention only")
    }
    if isCross {
      guard maxNumKVTokens > 0 else { throw .invalidStep("at most \(maxNumKVTokens) key/value tokens in one step; at least 1 is needed") }
      guard masks.isDisjoint(with: [.causal, .bidirectional]) else {
        throw .invalidStep("cross attention has no causal order; ask for the full mask, or for custom bits of every sequence")
      }
      if let layer = layers.first(where: { $0.window != nil }) {
        throw .invalidStep("layer \(layer.layerIndex) has a sliding window, which narrows causal masks; cross attention has none")
      }
    }
    guard let manager = kvCacheManager else { return }
    guard manager.layers.count == layers.count else {
      throw .invalidStep("\(layers.count) attention layers and \(manager.layers.count) layers in the key/value cache")
    }
    for (layer, cached) in zip(layers, manager.layers) {
      let layout = cached.layout
      guard
        layout.numKVHeads == layer.numKVHeads, layout.headDim == layer.headDim, layout.valueHeadDim == layer.valueHeadDim,
        layout.valuesAreKeys == (layer.mla != nil), cached.window == layer.window
      else {
        throw .invalidStep("layer \(layer.layerIndex) and its pages in the key/value cache have different heads, dims or windows")
      }
    }
  }
}
