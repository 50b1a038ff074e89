// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Logging
public import MartletAnswers
public import MartletFormats
public import MartletModels
public import MartletTokenizers

/// A language model that runs: load it once, ask it from any number of tasks at a time.
///
/// ```swift
/// let llm = try LLM(model: "smollm2-135m.gguf")
/// for try await chunk in try llm.generate("The capital of France is", sampling: SamplingParams(maxTokens: 32)) {
///   print(chunk.text, terminator: "")
/// }
/// ```
///
/// One thread owns the model, the cache and the scheduler, and steps as long as there is work. Requests that run at the same time share
/// its steps, and none of them can tell: a request's tokens depend on nothing but the request. When the last reference to the `LLM` goes,
/// what runs is finished first, then the thread ends and the memory is free.
public final class LLM: Sendable {
  /// What the model is.
  public let model: ModelConfiguration
  public let tokenizer: any Tokenizer
  /// How conversations are written: the configuration's, or the file's; the error says why there is none.
  public let chatTemplate: Result<ChatTemplate, TokenizerError>
  /// How the model's answers are written, as the chat template says; plain text without one.
  public let answerFormat: AnswerFormat
  /// The most tokens of one request, prompt and answer.
  public let maxSequenceLength: Int
  /// The key/value cache as it was made, in words: type, pages, bytes, and how they were found.
  public let cacheSummary: String
  /// The most tokens of one request that the cache can hold.
  package let cacheCapacity: Int
  let inbox: Inbox
  let waker = Waker()
  let clock: EngineClock
  /// nil where ``EngineConfiguration/rememberedAnswers`` is 0.
  let answers: AnswerMemory?

  /// Loads a model.
  ///
  /// - Parameters:
  ///   - path: a `.gguf` file (of several parts the first), or a directory as Hugging Face's hub has it.
  ///   - configuration: where and how the model runs.
  ///   - progress: told, on the calling thread, the share of the model that is loaded, 0…1.
  /// - Throws: ``LLMError``, `GGUFError`, `CheckpointError`, `TokenizerError`, `ModelError`, `AttentionError`, `KVCacheError` or `DeviceError`: each names the
  ///   thing and the way out.
  public convenience init(
    model path: String, configuration: EngineConfiguration = EngineConfiguration(), progress: ((Double) -> Void)? = nil
  ) throws {
    try self.init(files: ModelFiles(path: path), configuration: configuration, progress: progress)
  }

  /// The same from a file that is open already.
  public convenience init(
    file: GGUFFile, configuration: EngineConfiguration = EngineConfiguration(), progress: ((Double) -> Void)? = nil
  ) throws {
    try self.init(files: .gguf(GGUFCheckpoint(file)), configuration: configuration, progress: progress)
  }

  /// The same from files that are open already.
  public convenience init(
    files: ModelFiles, configuration: EngineConfiguration = EngineConfiguration(), progress: ((Double) -> Void)? = nil
  ) throws {
    try self.init(files, configuration) { progress?($0) }
  }

  /// - Parameter progress: may end the loading with an error, as often as it is called.
  init(_ files: ModelFiles, _ configuration: EngineConfiguration, progress: @escaping (Double) throws -> Void) throws {
    try progress(0)
    let source = try files.source(for: configuration.models)
    if !source.ignoredSettings.isEmpty {
      configuration.logger?.notice(
        "settings of the model that this build does not know, and takes to change nothing",
        metadata: ["settings": "\(source.ignoredSettings.joined(separator: ", "))"])
    }
    let (tokenizer, filesTemplate) = try files.readTokenizer()
    try progress(0)
    let parts = try EngineParts(source, configuration: configuration, progress: progress)
    let model = parts.runner.model.configuration
    // Control tokens may lie beyond the rows (Gemma 3 has one for images): a prompt with such a token is refused, not the model.
    let beyond = min(model.vocabularySize, tokenizer.vocabularySize)..<tokenizer.vocabularySize
    guard beyond.allSatisfy({ tokenizer.isControl(Int32($0)) }) else {
      throw LLMError.unusableModel(
        "its tokenizer has \(tokenizer.vocabularySize) tokens and its embedding \(model.vocabularySize) rows")
    }
    self.model = model
    self.tokenizer = tokenizer
    // A template from elsewhere writes this model's tokens, unless it brings its own.
    chatTemplate =
      configuration.chatTemplate.map { .success($0.with(specialTokens: tokenizer.templateTokens.merging($0.specialTokens) { $1 })) }
      ?? filesTemplate
    answerFormat = (try? chatTemplate.get()).map { AnswerFormat($0) } ?? AnswerFormat()
    answers =
      configuration.rememberedAnswers > 0 ? AnswerMemory(byteLimit: configuration.rememberedAnswers, tokenizer: tokenizer) : nil
    maxSequenceLength = parts.maxSequenceLength
    cacheSummary = parts.cacheSummary
    cacheCapacity = parts.cacheCapacity
    let clock = EngineClock(configuration.clock)
    self.clock = clock
    let inbox = Inbox(
      statistics: parts.statistics,
      limits: Inbox.Limits(requests: configuration.maxWaitingRequests, tokens: configuration.maxWaitingTokens))
    self.inbox = inbox
    configuration.logger?.info(
      "the model is loaded",
      metadata: [
        "name": "\(model.name)", "architecture": "\(model.architecture)", "context": "\(maxSequenceLength)", "cache": "\(cacheSummary)",
      ])
    let loop = EngineLoop(
      inbox: inbox, runner: parts.runner, scheduler: parts.scheduler, tokenizer: tokenizer, logger: configuration.logger,
      meters: configuration.metricsFactory.map { EngineMeters($0, poolCount: parts.statistics.pools.count) }, clock: clock,
      targetStepTime: configuration.targetStepTime)
    // The thread becomes the only owner of the loop: this function keeps nothing that reaches it.
    nonisolated(unsafe) var owned: EngineLoop? = loop
    let waker = waker
    try waker.start()
    do {
      try LoopThread.run {
        let end = owned?.run()
        // Whoever waits for the end finds the memory free.
        owned = nil
        if let end { inbox.end(end.reason, isFailure: end.isFailure) }
        waker.close()
      }
    } catch {
      waker.close()
      throw error
    }
  }

  deinit { inbox.close() }

  /// A look at the engine between two steps.
  public var statistics: EngineStatistics { inbox.statistics }
}
