// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletCore
public import MartletKVCache

extension KVCacheManager {
  /// The cache that an attention context tells of: its configuration, its longest sequence, its device.
  ///
  /// - Parameters:
  ///   - layers: what each layer stores, as `AttentionLayer.kvLayerSpec` says.
  ///   - context: the context that the layers were made in.
  ///   - maxSequences: the most sequences that are in the cache at one time; nil is as many as a step has requests.
  ///   - maxTokensPerStep: the most tokens that one sequence adds in one step; nil where a prompt may come whole.
  ///   - queue: the queue of the kernels that will read and write the pages; nil makes one, which they must take.
  /// - Throws: `KVCacheError` where the configuration or the budget cannot work, `DeviceError` where the memory is not available.
  /// - Precondition: the context has a cache.
  public convenience init(
    layers: [KVLayerSpec], in context: AttentionContext, maxSequences: Int? = nil, maxTokensPerStep: Int? = nil,
    queue: (any DeviceQueue)? = nil
  ) throws {
    enforce(context.kvCache != nil, "a cache of an attention context that has none: give its initialiser kvCache")
    try self.init(
      layers: layers, config: context.kvCache!, maxSequenceLength: context.maxSequenceLength,
      maxSequences: maxSequences ?? context.maxNumRequests, maxTokensPerStep: maxTokensPerStep, on: context.device, queue: queue)
  }
}
