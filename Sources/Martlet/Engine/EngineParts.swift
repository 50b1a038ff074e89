// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Logging
import MartletAttention
import MartletCPU
import MartletCore
import MartletKVCache
package import MartletModels

/// What an engine is made of, put together from a model source and a configuration.
package struct EngineParts {
  package let runner: ModelRunner
  package let scheduler: Scheduler
  let maxSequenceLength: Int
  /// The most tokens of one request that the cache can hold.
  let cacheCapacity: Int
  let cacheSummary: String
  package let statistics: EngineStatistics
  let place: LoopPlace

  /// Rows of logits are a vocabulary wide: this many at a time are enough to keep the last product busy when a text is scored.
  private static let leastLogitRows = 32

  package init(_ source: any ModelSource, configuration: EngineConfiguration, progress: ((Double) throws -> Void)?) throws {
    try configuration.validate()
    let architecture = try configuration.models.architecture(of: source)
    let backend = try configuration.attentionBackends.backend(named: configuration.attentionBackend)
    let device = try configuration.device ?? CPUDevice()
    try configuration.validate(on: device)
    let trained = try ModelConfiguration(source, layersDiffer: true).contextLength
    let maxSequenceLength = configuration.maxSequenceLength ?? min(trained, EngineConfiguration.defaultMaxSequenceLength)
    if maxSequenceLength > trained {
      throw LLMError.invalidConfiguration(
        option: "maxSequenceLength", value: "\(maxSequenceLength)", reason: "the model was made for contexts of at most \(trained) tokens")
    }
    let chunkSize = min(configuration.chunkSize ?? configuration.maxNumTokens, configuration.maxNumTokens)
    try configuration.kvCache.validate()
    let context = AttentionContext(
      device: device, kvCache: configuration.kvCache, maxNumRequests: configuration.maxBatchSize, maxNumTokens: configuration.maxNumTokens,
      maxSequenceLength: maxSequenceLength, workerCount: device.workerCount,
      quantConfig: configuration.quantConfig)
    let layers = try architecture.attentionLayers(of: source, on: device)
    try configuration.validate(latentPromptsOf: layers)
    try MemoryCheck.run(
      source, layers: layers,
      workingBytes: architecture.workingByteCount(of: source, maxNumTokens: configuration.maxNumTokens, on: device)
        + configuration.latentPrompts.workingByteCount(of: source, layers: layers, in: context),
      backend: backend, context: context, chunkSize: chunkSize)
    let maxLogitRows = max(configuration.maxBatchSize, Self.leastLogitRows)
    let model = try architecture.load(
      source,
      in: ModelContext(
        attention: context, attentionBackend: backend, maxLogitRows: maxLogitRows, activations: configuration.activations,
        latentPrompts: configuration.latentPrompts, progress: progress))
    let cache = try KVCacheManager(layers: model.attention.map(\.kvLayerSpec), in: context, maxTokensPerStep: chunkSize)
    runner = try ModelRunner(model: model, cache: cache, context: context, maxLogitRows: maxLogitRows)
    // Somebody waits for the first prompt, and nobody for this.
    try device.reserve(productRows: context.populatedTokens)
    cache.populate(tokens: context.populatedTokens)
    scheduler = Scheduler(
      maxBatchSize: configuration.maxBatchSize, maxNumTokens: configuration.maxNumTokens, chunkSize: chunkSize,
      capacityPolicy: configuration.capacityPolicy, cache: cache)
    place = LoopPlace(device)
    self.maxSequenceLength = maxSequenceLength
    cacheCapacity = Self.capacity(of: cache, chunk: chunkSize)
    let books = cache.statistics
    cacheSummary =
      "\(cache.config.dataType.rawValue), pages of \(books.pageSize) tokens, \(books.byteCount) bytes (\(books.budgetOrigin)), "
      + "up to \(cacheCapacity) tokens of one request"
    var statistics = EngineStatistics()
    statistics.pools = books.pools.map {
      EngineStatistics.Pool(
        window: $0.window, numLayers: $0.layerCount, pageSize: books.pageSize, totalPages: $0.pageCount, freePages: $0.freePages,
        cachedPages: $0.cachedPages, heldPages: $0.heldPages)
    }
    self.statistics = statistics
  }

  /// The longest sequence without an obstacle; longer ones only ever need more pages.
  private static func capacity(of cache: KVCacheManager, chunk: Int) -> Int {
    var fits = 0
    var tooLong = cache.maxSequenceLength + 1
    while tooLong - fits > 1 {
      let length = (fits + tooLong) / 2
      if cache.obstacle(toLength: length, chunk: chunk) == nil { fits = length } else { tooLong = length }
    }
    return fits
  }
}

/// Where the loop's thread is to run: near the memory that the device's workers take its tasks' for.
struct LoopPlace: Sendable {
  private let pool: WorkerPool?

  init(_ device: any Device) { pool = device.service(WorkerPool.self) }

  /// Takes it for the calling thread. A thread that the system keeps elsewhere is slower, not wrong.
  func take(_ logger: Logger?) {
    do { try pool?.pinCallingThread() } catch { logger?.warning("the engine's thread stays where it is: \(error)") }
  }
}
