// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

package import MartletGrammar

extension LLM {
  /// The most samples of one prompt in one call.
  private static let mostSamples = 1 << 16

  /// Submits a request. It runs from now on, together with the others.
  ///
  /// - Throws: ``LLMError`` where the request can never run: the error names the limit and the property that moves it; also where too much
  ///   waits already, and where the engine has ended.
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
    // Before a prompt is written: that may take long.
    try sampling.validate()
    return try generate(try prompts.map { try prepare($0) }, sampling: sampling, count: count, options: options)
  }

  /// The same for prompts that are prepared already.
  package func generate(
    _ prompts: [PreparedPrompt], sampling: SamplingParams, count: Int = 1, options: RequestOptions = RequestOptions()
  ) throws -> [Generation] {
    if embeddingSize != nil { throw LLMError.writesNoText(model: model.name) }
    try sampling.validate()
    guard (1...Self.mostSamples).contains(count) else {
      throw LLMError.invalidSampling(option: "count", value: "\(count)", reason: "must be between 1 and \(Self.mostSamples)")
    }
    for token in Array(sampling.logitBias.keys) + sampling.stopTokenIDs where token < 0 || token >= model.vocabularySize {
      throw LLMError.unknownToken(id: token, vocabularySize: model.vocabularySize)
    }
    let tokens = prompts.map(\.tokenIDs)
    let lengths = try prompts.map { try maxLength(of: $0, maxTokens: sampling.maxTokens) }
    // Before anything is made for them.
    try inbox.checkRoom(for: Inbox.Waiting(requests: tokens.count * count, tokens: tokens.reduce(0) { $0 + $1.count } * count))
    let constraint = try constraint(of: sampling)
    let now = clock.now
    var submissions: [Submission] = []
    var generations: [Generation] = []
    let isAlone = prompts.count * count == 1
    for (prepared, maxLength) in zip(prompts, lengths) {
      let tokens = prepared.tokenIDs
      let remembers = answers.flatMap { answers in prepared.key.map { Generation.Remembering(answers: answers, prompt: $0) } }
      let prompt = tokens.map(Int32.init)  // one for all samples
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
            id: id, prompt: prompt, positions: prepared.positions, maxLength: maxLength, submitted: now,
            purpose: .generation(sampling, channel), options: options, constraint: constraint, name: name))
        generations.append(
          Generation(
            promptTokenIDs: tokens, index: index, id: name, metadata: options.metadata, reader: ChunkReader(channel), cancellation: cancel,
            remembering: remembers))
      }
    }
    do {
      try inbox.submit(submissions)
    } catch {
      // So that the generations, which nobody will read, have nothing to cancel.
      for submission in submissions { submission.fail(error) }
      throw error
    }
    return generations
  }

  /// The form of the answers, compiled; nil where they have none.
  private func constraint(of sampling: SamplingParams) throws(LLMError) -> GrammarConstraint? {
    guard let form = sampling.form else { return nil }
    if !tokenizer.endTokens.contains(where: { $0 < model.vocabularySize }) && sampling.formStopTokens(tokenizer).isEmpty {
      throw .formWithoutEnd(model: model.name)
    }
    do { return try compile(form) } catch { throw .invalidForm(form, error) }
  }

  /// Compiles a form, or finds it compiled, so that a request with it does not wait for that, and its caller can say in words of its own what is
  /// wrong with it.
  @discardableResult
  package func compile(_ form: AnswerForm) throws(GrammarError) -> GrammarConstraint { try forms.constraint(for: form) }

  /// log p(token i + 1 | tokens 0…i) in nats for every i: one value less than tokens. For perplexity.
  ///
  /// The tokens are taken as they are. A sequence shares steps with other requests like a prompt.
  /// - Throws: ``LLMError`` where the tokens can never run; `CancellationError` when the surrounding task was cancelled.
  public func score(_ tokenIDs: [Int]) async throws -> [Float] { try await scores(of: tokenIDs).map(\.logprob) }

  /// ``score(_:)``, and what the model would have said instead.
  package func scores(of tokenIDs: [Int]) async throws -> [TokenScore] {
    if embeddingSize != nil { throw LLMError.writesNoText(model: model.name) }
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
}
