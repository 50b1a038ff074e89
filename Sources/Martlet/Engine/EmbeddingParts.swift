// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletAttention
import MartletCPU
import MartletCore
import MartletModels

/// What an engine is made of whose model answers with vectors.
package struct EmbeddingParts {
  package let runner: EmbeddingRunner
  let maxSequenceLength: Int
  let place: LoopPlace

  /// The most texts of a step: beyond, they would not fill it better.
  private static let mostTexts = 512

  package init(
    _ source: any ModelSource, pooling: Pooling, configuration: EngineConfiguration, progress: ((Double) throws -> Void)?
  ) throws {
    try configuration.validate()
    let architecture = try configuration.models.architecture(of: source)
    let backend = try configuration.attentionBackends.backend(named: configuration.attentionBackend)
    let device = try configuration.device ?? CPUDevice()
    try configuration.validate(on: device)
    // What is expanded is read from a cache, and there is none.
    try configuration.validate(latentPromptsOf: [])
    let trained = try ModelConfiguration(source).contextLength
    let maxSequenceLength = configuration.maxSequenceLength ?? min(trained, EngineConfiguration.defaultMaxEmbeddingLength)
    if maxSequenceLength > trained {
      throw LLMError.invalidConfiguration(
        option: "maxSequenceLength", value: "\(maxSequenceLength)", reason: "the model was made for texts of at most \(trained) tokens")
    }
    // A text is whole in its step.
    let maxNumTokens = max(configuration.maxNumTokens, maxSequenceLength)
    let context = AttentionContext(
      device: device, kvCache: nil, maxNumRequests: min(maxNumTokens, Self.mostTexts), maxNumTokens: maxNumTokens,
      maxSequenceLength: maxSequenceLength, workerCount: device.workerCount,
      quantConfig: configuration.quantConfig)
    try MemoryCheck.run(
      source, layers: architecture.attentionLayers(of: source, on: device),
      workingBytes: architecture.workingByteCount(of: source, maxNumTokens: maxNumTokens, on: device), backend: backend, context: context,
      chunkSize: maxNumTokens)
    let model = try architecture.load(
      source, pooling: pooling,
      in: ModelContext(
        attention: context, attentionBackend: backend, maxLogitRows: 1, activations: configuration.activations, progress: progress))
    runner = try EmbeddingRunner(model: model, context: context)
    try device.reserve(productRows: context.populatedTokens)
    place = LoopPlace(device)
    self.maxSequenceLength = maxSequenceLength
  }
}
