// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletAttention
import MartletCore
import MartletKVCache
import MartletModels

/// Whether a model can fit, asked before a weight is read: to find out halfway costs minutes, or the process.
enum MemoryCheck {
  /// - Parameter workingBytes: what layers with experts and layers of latent attention work in.
  /// - Throws: ``LLMError/Code/modelTooLarge``.
  static func run(
    _ source: any ModelSource, layers: [AttentionLayerSpec], workingBytes: Int, backend: any AttentionBackend.Type,
    context: AttentionContext, chunkSize: Int
  ) throws {
    let device = context.device
    // An output matrix that is the embedding once more is not loaded twice.
    let skipped = try source.sharesEmbedding() ? "output.weight" : nil
    let weights = source.modelTensors.reduce(0) { $1.name == skipped ? $0 : saturating($0, byteCount(of: $1, on: device)) }
    let cache = try leastCacheByteCount(layers, backend, context, chunkSize: chunkSize)
    let available = device.availableByteCount
    guard saturating(saturating(weights, cache), workingBytes) <= available else {
      throw LLMError.modelTooLarge(weights: weights, cache: cache, working: workingBytes, available: available, device: device.name)
    }
  }

  /// Bytes that a tensor takes once it is loaded: a matrix as the device prepares it, a vector as floats.
  private static func byteCount(of tensor: ModelTensor, on device: any Device) -> Int {
    let count = tensor.shape.reduce(1) { $0.multipliedReportingOverflow(by: $1).partialValue }
    guard let format = tensor.format, let columns = tensor.shape.last, tensor.shape.count > 1, count > 0 else {
      return 4 * min(count, 1 << 40)
    }
    return device.preparedByteCount(format, rows: count / columns, columns: columns)
  }

  /// What the cache takes for certain: the bytes that were asked for, but no more than all its sequences can use; or one page of each kind of
  /// layer where the cache adapts itself to what is free.
  private static func leastCacheByteCount(
    _ layers: [AttentionLayerSpec], _ backend: any AttentionBackend.Type, _ context: AttentionContext, chunkSize: Int
  ) throws -> Int {
    guard let config = context.kvCache else { return 0 }
    // A layer that the backend cannot serve is named when the model is made.
    guard layers.allSatisfy({ backend.obstacles(to: $0, in: context).isEmpty }) else { return 0 }
    let specs = layers.map { KVLayerSpec(layout: backend.kvLayout(for: $0, in: context), window: $0.window) }
    let demand = config.demand(of: specs, maxSequenceLength: context.maxSequenceLength, maxTokensPerStep: chunkSize)
    guard case .bytes(let bytes) = config.budget else { return demand.reduce(0) { saturating($0, $1.bytesPerPage) } }
    let most = demand.reduce(0) { sum, pool in
      let (all, overflow) = pool.byteCount.multipliedReportingOverflow(by: context.maxNumRequests)
      return saturating(sum, overflow ? .max : all)
    }
    return min(bytes, most)
  }

  private static func saturating(_ a: Int, _ b: Int) -> Int {
    let (sum, overflow) = a.addingReportingOverflow(b)
    return overflow ? .max : sum
  }
}
