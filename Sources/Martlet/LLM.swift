// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Logging
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
  /// The most tokens of one request, prompt and answer.
  public let maxSequenceLength: Int
  /// The key/value cache as it was made, in words: type, pages, bytes, and how they were found.
  public let cacheSummary: String
  /// The most tokens of one request that the cache can hold.
  private let cacheCapacity: Int
  private let inbox: Inbox
  private let waker = Waker()
  private let clock: EngineClock

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
  private init(_ files: ModelFiles, _ configuration: EngineConfiguration, progress: @escaping (Double) throws -> Void) throws {
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
    nonisolated(unsafe) let owned = loop
    let waker = waker
    try waker.start()
    do {
      try LoopThread.run {
        owned.run()
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

// MARK: - Loading

extension LLM {
  /// Loads a model on a thread of its own: the caller's is free meanwhile, and no task waits for a processor because of it.
  ///
  /// - Parameters:
  ///   - path: as ``init(model:configuration:progress:)`` has it.
  ///   - configuration: where and how the model runs.
  ///   - progress: told, on the loading thread, the share of the model that is loaded, 0…1.
  /// - Throws: what the initialiser throws; `CancellationError` where the surrounding task is cancelled, within the time of one tensor, and
  ///   nothing is left of what was loaded.
  public static func load(
    model path: String, configuration: EngineConfiguration = EngineConfiguration(), progress: (@Sendable (Double) -> Void)? = nil
  ) async throws -> LLM {
    try await load(configuration, progress) { try ModelFiles(path: path) }
  }

  /// The same from files that are open already.
  public static func load(
    files: ModelFiles, configuration: EngineConfiguration = EngineConfiguration(), progress: (@Sendable (Double) -> Void)? = nil
  ) async throws -> LLM {
    try await load(configuration, progress) { files }
  }

  private static func load(
    _ configuration: EngineConfiguration, _ progress: (@Sendable (Double) -> Void)?, _ open: @escaping @Sendable () throws -> ModelFiles
  ) async throws -> LLM {
    let isCancelled = Guarded(false)
    return try await withTaskCancellationHandler {
      try await withCheckedThrowingContinuation { continuation in
        do {
          try LoopThread.run {
            continuation.resume(
              with: Result {
                try LLM(open(), configuration) { share in
                  if isCancelled.withLock({ $0 }) { throw CancellationError() }
                  progress?(share)
                }
              })
          }
        } catch {
          continuation.resume(throwing: error)
        }
      }
    } onCancel: {
      isCancelled.withLock { $0 = true }
    }
  }
}

// MARK: - The end

extension LLM {
  /// Whether the engine takes requests.
  public enum State: Sendable, Hashable {
    case running
    /// It takes no more, and finishes what it has.
    case shuttingDown
    /// Its thread has ended: by the failure that the error names, or, with none, after a shutdown.
    case ended(LLMError?)
  }

  public var state: State { inbox.engineState }
  /// Whether ``state`` is ``State/running``.
  public var isRunning: Bool { state == .running }

  /// Takes no more requests, finishes those that were submitted, and returns when the engine's thread has ended.
  ///
  /// - Parameter gracePeriod: how long requests have to finish, by ``EngineConfiguration/clock``. Those that have not finished then, or when the
  ///   surrounding task is cancelled, fail before the next step with ``LLMError/Code/stopped``. nil gives them all the time they need.
  public func shutdown(gracePeriod: Duration? = nil) async {
    inbox.close()
    await withTaskCancellationHandler {
      await withTaskGroup(of: Void.self) { group in
        if let gracePeriod {
          group.addTask { [inbox, clock] in
            // A sleep that is cut short means that the engine has ended, or that nobody waits for it any more.
            try? await clock.sleep(for: gracePeriod)
            inbox.stop()
          }
        }
        await inbox.waitForEnd()
        group.cancelAll()
      }
    } onCancel: {
      inbox.stop()
    }
  }

  /// Returns when the engine has ended: what a service of swift-service-lifecycle does, whose protocol this satisfies as it stands
  /// (`extension LLM: @retroactive Service {}`). Where the surrounding task is cancelled, requests that have not finished fail before the next step.
  ///
  /// - Throws: ``LLMError`` where a failure ended the engine, and not a shutdown.
  public func run() async throws {
    await withTaskCancellationHandler {
      await inbox.waitForEnd()
    } onCancel: {
      inbox.stop()
    }
    if case .ended(let failure?) = state { throw failure }
  }
}

// MARK: - Requests

extension LLM {
  /// The most samples of one prompt in one call.
  private static let mostSamples = 1 << 16
  /// The longest text of a prompt, in bytes: more than any context, and far less than where tokenizers run out of 32-bit places.
  package static let mostTextBytes = 1 << 28

  /// Submits a request. It runs from now on, together with the others.
  ///
  /// - Throws: ``LLMError`` where the request can never run: the error names the limit and the option that moves it.
  public func generate(
    _ prompt: Prompt, sampling: SamplingParams = SamplingParams(), options: RequestOptions = RequestOptions()
  ) throws -> Generation {
    try generate([prompt], sampling: sampling, options: options)[0]
  }

  /// Submits several samples of one prompt at once: sample i is drawn with ``SamplingParams/seed(ofSample:)``, so that sample 0 is what a
  /// request for one gives, and no sample depends on how many there are. With temperature 0 nothing is drawn, and all are the same.
  ///
  /// - Returns: `count` generations, in the order of their ``Generation/index``.
  /// - Throws: as ``generate(_:sampling:options:)-(Prompt,_,_)``.
  public func generate(
    _ prompt: Prompt, sampling: SamplingParams = SamplingParams(), count: Int, options: RequestOptions = RequestOptions()
  ) throws -> [Generation] {
    try generate([prompt], sampling: sampling, count: count, options: options)
  }

  /// Submits many requests at once: either all, or none and an error. They share steps from the first on, as far as they fit.
  ///
  /// - Parameters:
  ///   - prompts: any number.
  ///   - sampling: of every request.
  ///   - count: samples of each prompt, as ``generate(_:sampling:count:options:)-(Prompt,_,_,_)`` has them.
  ///   - options: of every request.
  /// - Returns: the samples of the first prompt, then those of the second, and so on.
  public func generate(
    _ prompts: [Prompt], sampling: SamplingParams = SamplingParams(), count: Int = 1, options: RequestOptions = RequestOptions()
  ) throws -> [Generation] {
    try sampling.validate()
    guard (1...Self.mostSamples).contains(count) else {
      throw LLMError.invalidSampling(option: "count", value: "\(count)", reason: "must be between 1 and \(Self.mostSamples)")
    }
    for token in Array(sampling.logitBias.keys) + sampling.stopTokenIDs where token < 0 || token >= model.vocabularySize {
      throw LLMError.unknownToken(id: token, vocabularySize: model.vocabularySize)
    }
    let tokens = try prompts.map { try tokenIDs(of: $0) }
    let lengths = try tokens.map { try maxLength(promptLength: $0.count, maxTokens: sampling.maxTokens) }
    let now = clock.now
    var submissions: [Submission] = []
    var generations: [Generation] = []
    let isAlone = prompts.count * count == 1
    for (tokens, maxLength) in zip(tokens, lengths) {
      for index in 0..<count {
        var sampling = sampling
        sampling.seed = sampling.seed(ofSample: index)
        let id = inbox.makeID()
        let name = options.id.map { isAlone ? $0 : "\($0)-\(generations.count)" } ?? "\(id)"
        let inbox = inbox
        let cancel: @Sendable () -> Void = { inbox.cancel(id) }
        let channel = ChunkChannel(waker: waker, abandoned: cancel)
        submissions.append(
          Submission(
            id: id, prompt: tokens.map(Int32.init), maxLength: maxLength, submitted: now, purpose: .generation(sampling, channel),
            options: options, name: name))
        generations.append(
          Generation(
            promptTokenIDs: tokens, index: index, id: name, metadata: options.metadata, reader: ChunkReader(channel), cancellation: cancel))
      }
    }
    try inbox.submit(submissions)
    return generations
  }

  /// log p(token i + 1 | tokens 0…i) in nats for every i: one value less than tokens. For perplexity.
  ///
  /// The tokens are taken as they are. A sequence shares steps with other requests like a prompt.
  /// - Throws: ``LLMError`` where the tokens can never run; `CancellationError` when the surrounding task was cancelled.
  public func score(_ tokenIDs: [Int]) async throws -> [Float] { try await scores(of: tokenIDs).map(\.logprob) }

  /// ``score(_:)``, and what the model would have said instead.
  package func scores(of tokenIDs: [Int]) async throws -> [TokenScore] {
    try check(tokenIDs)
    // Scoring answers nothing, so the sequence may fill the context.
    if tokenIDs.count > maxSequenceLength {
      throw LLMError.promptTooLong(tokens: tokenIDs.count, maxSequenceLength: maxSequenceLength)
    }
    if tokenIDs.count > cacheCapacity { throw LLMError.cacheTooSmall(tokens: tokenIDs.count, available: cacheSummary) }
    try Task.checkCancellation()
    let id = inbox.makeID()
    return try await withTaskCancellationHandler {
      try await withCheckedThrowingContinuation { continuation in
        let submission = Submission(
          id: id, prompt: tokenIDs.map(Int32.init), maxLength: tokenIDs.count + 1, submitted: clock.now, purpose: .scoring(continuation))
        do {
          try inbox.submit([submission])
          // A cancellation that came before the submission found nothing to end.
          if Task.isCancelled { inbox.cancel(id) }
        } catch {
          continuation.resume(throwing: error)
        }
      }
    } onCancel: {
      inbox.cancel(id)
    }
  }

  /// The tokens that a prompt becomes, as `generate` would submit it.
  public func tokenIDs(of prompt: Prompt) throws -> [Int] {
    let tokens: [Int]
    switch prompt {
    case .tokenIDs(let ids): tokens = ids
    case .text(let text):
      try check(text)
      tokens = tokenizer.beginning(tokenizer.encode(text, parsesSpecialTokens: false)).map(Int.init)
    case .chat(let messages, let tools, let documents, var options):
      if messages.isEmpty { throw LLMError.emptyPrompt }
      options.now = options.now ?? .now
      let text = try chatTemplate.get().render(messages, tools: tools, documents: documents, options: options)
      try check(text.text)
      tokens = tokenizer.promptTokens(of: text, specialTokensInContent: options.specialTokensInContent).map(Int.init)
    }
    try check(tokens)
    return tokens
  }

  private func check(_ text: String) throws(LLMError) {
    if text.utf8.count > Self.mostTextBytes { throw .textTooLong(byteCount: text.utf8.count, most: Self.mostTextBytes) }
  }

  private func check(_ tokens: [Int]) throws(LLMError) {
    if tokens.isEmpty { throw .emptyPrompt }
    for token in tokens where token < 0 || token >= model.vocabularySize {
      throw .unknownToken(id: token, vocabularySize: model.vocabularySize)
    }
  }

  /// The most tokens of a request, prompt and answer.
  private func maxLength(promptLength: Int, maxTokens: Int?) throws(LLMError) -> Int {
    if promptLength >= maxSequenceLength { throw .promptTooLong(tokens: promptLength, maxSequenceLength: maxSequenceLength) }
    // Without a wish of its own, an answer goes as far as context and cache do, but at least one token.
    let wish = maxTokens ?? max(min(maxSequenceLength, cacheCapacity + 1) - promptLength, 1)
    let length = min(promptLength + min(wish, maxSequenceLength), maxSequenceLength)
    if Request.mostCached(maxLength: length) > cacheCapacity {
      throw .cacheTooSmall(tokens: length, available: cacheSummary)
    }
    return length
  }
}
