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
  /// Values of a vector, where the model makes vectors (``embed(_:options:)-([Prompt],_)``); nil where it writes text.
  public let embeddingSize: Int?
  /// Whether tokens have places in time, height and width (``Prompt/placedTokenIDs(_:_:)``).
  public let takesTokenPositions: Bool
  /// How the model's states become vectors; nil where it writes text.
  public let pooling: Pooling?
  /// The key/value cache as it was made, in words: type, pages, bytes, and how they were found.
  public let cacheSummary: String
  /// The most tokens of one request that the cache can hold.
  package let cacheCapacity: Int
  let inbox: Inbox
  let waker = Waker()
  let clock: EngineClock
  let forms: FormCompiler
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
    let reading = try TokenizerReading(files)
    let pooling: Pooling?
    let engine: Engine
    do {
      let progress = { (share: Double) in
        try reading.throwFailure()
        try progress(share)
      }
      try progress(0)
      pooling = try configuration.pooling ?? Pooling(source)
      if let pooling {
        engine = .embedding(try EmbeddingParts(source, pooling: pooling, configuration: configuration, progress: progress))
      } else {
        engine = .text(try EngineParts(source, configuration: configuration, progress: progress))
      }
    } catch {
      // What is wrong with the tokenizer comes first, whichever was faster.
      _ = try reading.result()
      throw error
    }
    let (tokenizer, filesTemplate) = try reading.result()
    let model = engine.model
    // Control tokens may lie beyond the rows (Gemma 3 has one for images): a prompt with such a token is refused, not the model.
    let beyond = min(model.vocabularySize, tokenizer.vocabularySize)..<tokenizer.vocabularySize
    guard beyond.allSatisfy({ tokenizer.isControl(Int32($0)) }) else {
      throw LLMError.unusableModel(
        "its tokenizer has \(tokenizer.vocabularySize) tokens and its embedding \(model.vocabularySize) rows")
    }
    self.model = model
    self.tokenizer = tokenizer
    forms = FormCompiler(tokenizer, vocabularySize: model.vocabularySize)
    // A template from elsewhere writes this model's tokens, unless it brings its own.
    chatTemplate =
      configuration.chatTemplate.map { .success($0.with(specialTokens: tokenizer.templateTokens.merging($0.specialTokens) { $1 })) }
      ?? filesTemplate
    answerFormat = (try? chatTemplate.get()).map { AnswerFormat($0) } ?? AnswerFormat()
    answers =
      configuration.rememberedAnswers > 0 ? AnswerMemory(byteLimit: configuration.rememberedAnswers, tokenizer: tokenizer) : nil
    self.pooling = pooling
    embeddingSize = engine.embeddingSize
    takesTokenPositions = engine.takesTokenPositions
    maxSequenceLength = engine.maxSequenceLength
    cacheSummary = engine.cacheSummary
    cacheCapacity = engine.cacheCapacity
    let clock = EngineClock(configuration.clock)
    self.clock = clock
    let inbox = Inbox(
      statistics: engine.statistics,
      limits: Inbox.Limits(requests: configuration.maxWaitingRequests, tokens: configuration.maxWaitingTokens))
    self.inbox = inbox
    configuration.logger?.info(
      "the model is loaded",
      metadata: [
        "name": "\(model.name)", "architecture": "\(model.architecture)", "context": "\(maxSequenceLength)", "cache": "\(cacheSummary)",
      ])
    // The thread becomes the only owner of the loop: this function keeps nothing that reaches it.
    nonisolated(unsafe) var owned: (() -> (reason: LLMError, isFailure: Bool))? = engine.loop(inbox, tokenizer, clock, configuration)
    let waker = waker
    try waker.start()
    do {
      try LoopThread.run {
        let end = owned?()
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

  /// What runs the model: a loop that writes text, or one that makes vectors.
  private enum Engine {
    case text(EngineParts)
    case embedding(EmbeddingParts)

    var model: ModelConfiguration {
      switch self {
      case .text(let parts): parts.runner.model.configuration
      case .embedding(let parts): parts.runner.model.configuration
      }
    }

    var embeddingSize: Int? {
      switch self {
      case .text: nil
      case .embedding(let parts): parts.runner.model.embeddingSize
      }
    }

    var takesTokenPositions: Bool {
      switch self {
      case .text(let parts): parts.runner.model.takesTokenPositions
      case .embedding: false
      }
    }

    var maxSequenceLength: Int {
      switch self {
      case .text(let parts): parts.maxSequenceLength
      case .embedding(let parts): parts.maxSequenceLength
      }
    }

    var cacheSummary: String {
      switch self {
      case .text(let parts): parts.cacheSummary
      case .embedding: "none: the model makes vectors"
      }
    }

    var cacheCapacity: Int {
      switch self {
      case .text(let parts): parts.cacheCapacity
      case .embedding(let parts): parts.maxSequenceLength
      }
    }

    var statistics: EngineStatistics {
      switch self {
      case .text(let parts): parts.statistics
      case .embedding: EngineStatistics()
      }
    }

    /// Runs to the engine's end, and says why that came.
    func loop(
      _ inbox: Inbox, _ tokenizer: any Tokenizer, _ clock: EngineClock, _ configuration: EngineConfiguration
    ) -> () -> (reason: LLMError, isFailure: Bool) {
      let meters = configuration.metricsFactory.map { EngineMeters($0, poolCount: statistics.pools.count) }
      switch self {
      case .text(let parts):
        let loop = EngineLoop(
          inbox: inbox, runner: parts.runner, scheduler: parts.scheduler, tokenizer: tokenizer, logger: configuration.logger,
          meters: meters, clock: clock, targetStepTime: configuration.targetStepTime, observer: configuration.stepObserver)
        return { [place = parts.place, logger = configuration.logger] in
          place.take(logger)
          return loop.run()
        }
      case .embedding(let parts):
        let loop = EmbeddingLoop(
          inbox: inbox, runner: parts.runner, maxSequenceLength: parts.maxSequenceLength, logger: configuration.logger, meters: meters,
          clock: clock)
        return { [place = parts.place, logger = configuration.logger] in
          place.take(logger)
          return loop.run()
        }
      }
    }
  }

  /// A look at the engine between two steps.
  public var statistics: EngineStatistics { inbox.statistics }
}

/// The files' tokenizer, read by a thread of its own beside the weights: the tables of a large vocabulary take a tenth of a second.
private struct TokenizerReading {
  typealias Contents = (tokenizer: any Tokenizer, chatTemplate: Result<ChatTemplate, TokenizerError>)

  private let end = Guarded<Result<Contents, TokenizerError>?>(nil)

  init(_ files: ModelFiles) throws {
    let end = end
    try LoopThread.run {
      let result = Result { () throws(TokenizerError) in try files.readTokenizer() }
      end.withLock { $0 = result }
      end.signal()
    }
  }

  /// Throws where reading has failed by now.
  func throwFailure() throws {
    if case .failure(let error)? = end.withLock({ $0 }) { throw error }
  }

  /// Waits until all is read.
  func result() throws -> Contents { try end.wait(until: { $0 != nil }, { $0! }).get() }
}
