// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Logging
import Martlet
import MartletCPU
import MartletCore
import MartletKVCache
import MartletModels
import MartletTestSupport
import Metrics

/// Engines over tiny models, and what tests ask of them.
enum Tiny {
  /// What products of this machine's device can be asked for.
  static let activations = (try? CPUDevice(threads: 1).activations) ?? [.exact]

  static func llm(
    _ model: TinyModel, backend: String = "TRTLLM", dataType: DataType = .bf16, activations: Activations = .exact,
    instructionSet: String? = nil,
    pageSize: KVCacheConfig.PageSize = .tokens(16),
    budget: KVCacheConfig.Budget = .automatic, context: Int? = nil, maxBatchSize: Int = 8, maxNumTokens: Int = 128, chunkSize: Int? = nil,
    reusesPrefixes: Bool = true, reusesPartialPages: Bool = true, capacityPolicy: CapacityPolicy = .guaranteedNoEvict, threads: Int = 2,
    targetStepTime: Duration? = .milliseconds(100), maxWaitingRequests: Int? = nil, maxWaitingTokens: Int? = nil,
    metricsFactory: (any MetricsFactory)? = nil, clock: any Clock<Duration> = ContinuousClock()
  ) throws -> LLM {
    try LLM(
      file: model.file(),
      configuration: EngineConfiguration(
        device: CPUDevice(instructionSet: instructionSet, threads: threads), attentionBackend: backend,
        kvCache: KVCacheConfig(
          dataType: dataType, pageSize: pageSize, budget: budget, reusesPrefixes: reusesPrefixes, reusesPartialPages: reusesPartialPages),
        activations: activations, maxSequenceLength: context, maxBatchSize: maxBatchSize, maxNumTokens: maxNumTokens, chunkSize: chunkSize,
        targetStepTime: targetStepTime, maxWaitingRequests: maxWaitingRequests, maxWaitingTokens: maxWaitingTokens,
        capacityPolicy: capacityPolicy, metricsFactory: metricsFactory, clock: clock))
  }

  /// An engine whose context takes more than a minute to fill, so that a request without an end is there for as long as a test looks, however few
  /// turns the test's own task gets on a busy machine.
  static func endless(
    seed: UInt64, maxBatchSize: Int, maxNumTokens: Int = 512, models: ModelRegistry = .builtIn,
    targetStepTime: Duration? = .milliseconds(100),
    maxWaitingRequests: Int? = nil, maxWaitingTokens: Int? = nil, logger: Logger? = nil, metricsFactory: (any MetricsFactory)? = nil,
    clock: any Clock<Duration> = ContinuousClock()
  ) throws -> LLM {
    let context = 65_536
    return try LLM(
      file: TinyModel(.llama, seed: seed) { $0.contextLength = context }.file(),
      configuration: EngineConfiguration(
        device: CPUDevice(threads: 1), models: models, maxSequenceLength: context, maxBatchSize: maxBatchSize,
        maxNumTokens: maxNumTokens, targetStepTime: targetStepTime, maxWaitingRequests: maxWaitingRequests,
        maxWaitingTokens: maxWaitingTokens, logger: logger, metricsFactory: metricsFactory, clock: clock))
  }

  /// Random token ids that are bytes.
  static func prompt(_ length: Int, seed: UInt64) -> [Int] {
    var generator = SeededGenerator(seed: seed)
    return (0..<length).map { _ in Int.random(in: 0..<256, using: &generator) }
  }

  /// Statistics once they satisfy `condition`, looked at for ten seconds at most: the engine's thread runs on its own.
  static func statistics(of llm: LLM, when condition: (EngineStatistics) -> Bool) async throws -> EngineStatistics {
    for _ in 0..<1000 {
      let statistics = llm.statistics
      if condition(statistics) { return statistics }
      try await Task.sleep(for: .milliseconds(10))
    }
    return llm.statistics
  }
}

extension EngineStatistics {
  /// Whether no request holds a page.
  var hasEveryPage: Bool { pools.allSatisfy { $0.heldPages == 0 && $0.freePages + $0.cachedPages == $0.totalPages } }
}

extension GenerationOutput {
  /// Tokens and the bits of all log-probabilities.
  var bits: [UInt32] {
    tokenIDs.map(UInt32.init)
      + logprobs.flatMap { [$0.logprob.bitPattern] + $0.top.flatMap { [UInt32($0.tokenID), $0.logprob.bitPattern] } }
  }
}
