// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletAttention
import MartletCPU
import MartletCore
import MartletKVCache
import MartletModels
import MartletTestSupport

/// A model with its cache, driven by hand: one request, in chunks of any size.
final class ModelHarness {
  let model: any LanguageModel
  private let cache: KVCacheManager
  private let metadata: AttentionMetadata
  private let device: CPUDevice
  private let queue: any DeviceQueue
  private var nextRequest = 0

  /// - Parameter cachePages: nil is pages of `pageSize`.
  init(
    _ source: any ModelSource, backend: String, dataType: DataType = .f32, pageSize: Int = 16, cachePages: KVCacheConfig.PageSize? = nil,
    maxSequenceLength: Int = 64, latentPrompts: LatentPrompts = .absorbed
  ) throws {
    device = try CPUDevice(threads: 2)
    queue = device.makeQueue()
    let config = KVCacheConfig(dataType: dataType, pageSize: cachePages ?? .tokens(pageSize))
    let context = AttentionContext(
      device: device, kvCache: config, maxNumRequests: 2, maxNumTokens: maxSequenceLength, maxSequenceLength: maxSequenceLength,
      workerCount: 2)
    model = try ModelRegistry.builtIn.architecture(of: source).load(
      source,
      in: ModelContext(
        attention: context, attentionBackend: AttentionBackendRegistry.builtIn.backend(named: backend), maxLogitRows: maxSequenceLength,
        latentPrompts: latentPrompts))
    cache = try KVCacheManager(layers: model.attention.map(\.kvLayerSpec), in: context)
    metadata = try model.attention[0].makeMetadata(
      AttentionMetadata.Setup(context: context, layers: model.attention.map(\.spec), kvCacheManager: cache, queue: queue))
  }

  /// The logits after each token, computed in chunks of these sizes; what they leave over comes whole.
  /// - Parameter places: of all tokens in time, height and width, `[3][tokens]`.
  func logits(_ tokens: [Int32], chunks: [Int] = [], places: [[Int]]? = nil) throws -> [[Float]] {
    let id = nextRequest
    nextRequest += 1
    guard cache.addSequence(id) else { return [] }
    defer { cache.remove(id) }
    var result: [[Float]] = []
    var done = 0
    var sizes = chunks[...]
    while done < tokens.count {
      let count = min(sizes.popFirst() ?? tokens.count, tokens.count - done)
      guard cache.extend(id, to: done + count) else { return [] }
      metadata.removeAllRequests()
      metadata.addRequest(
        id, newTokens: count, cachedTokens: done, promptLength: tokens.count, isContext: true)
      if let places {
        let rows = places.flatMap { $0[done..<done + count].map(Int32.init) }
        metadata.positionIDs = try tensor(rows).reshaped(Shape(3, count))
      }
      try metadata.prepare()
      let hidden = try model.forward(tokens: try tensor(tokens[done..<done + count]), metadata: metadata, on: queue)
      let output = try device.makeTensor(Shape(count, model.configuration.vocabularySize), .f32)
      model.logits(of: hidden, rows: try tensor(0..<Int32(count)), output: output, on: queue)
      queue.wait()
      let values = output.unsafeHostPointer(to: Float.self)!
      let width = model.configuration.vocabularySize
      result += (0..<count).map { Array(values[$0 * width..<($0 + 1) * width]) }
      done += count
      cache.computed(id, upTo: done)
    }
    return result
  }

  private func tensor(_ values: some Collection<Int32>) throws -> Tensor {
    let host = try device.makeHostBuffer(of: Int32.self, count: values.count)
    for (index, value) in values.enumerated() { host[index] = value }
    let tensor = try device.makeTensor(Shape(values.count), .i32)
    queue.copy(host, count: values.count, to: tensor)
    return tensor
  }
}
