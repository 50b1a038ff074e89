// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

extension LLM {
  /// The vector of a text.
  ///
  /// - Throws: as ``embed(_:options:)-([Prompt],_)``.
  public func embed(_ text: Prompt, options: EmbeddingOptions = EmbeddingOptions()) async throws -> Embedding {
    try await embed([text], options: options)[0]
  }

  /// The vectors of texts, of a model that makes some: its files name a pooling, or ``EngineConfiguration/pooling`` does.
  ///
  /// Texts share steps, packed without padding, as far as they fit. A text's vector is the same to the bit whoever shares its step: other texts of the call, or those of
  /// other calls. Nothing is put before a text but what the model's tokenizer does: where a model wants an instruction, write it.
  ///
  /// ```swift
  /// let llm = try LLM(model: "all-MiniLM-L6-v2")
  /// let vectors = try await llm.embed(["A swift never lands.", "Birds that sleep in the air"])
  /// let cosine = zip(vectors[0].values, vectors[1].values).reduce(0) { $0 + $1.0 * $1.1 }
  /// ```
  ///
  /// - Parameters:
  ///   - texts: any number. A conversation is written by the model's template; token ids are taken as they are.
  ///   - options: of all.
  /// - Returns: a vector for each text, in their order.
  /// - Throws: ``LLMError`` where the model makes no vectors (``LLMError/Code/makesNoEmbeddings``), where a text is too long, and where too much waits already;
  ///   `CancellationError` when the surrounding task was cancelled.
  public func embed(_ texts: [Prompt], options: EmbeddingOptions = EmbeddingOptions()) async throws -> [Embedding] {
    try check(options)
    return try await embed(texts.map { try prepareEmbedding(of: $0, options: options) }, options: options)
  }

  /// Refuses what no text could be asked for, before one is looked at.
  package func check(_ options: EmbeddingOptions) throws(LLMError) {
    guard let embeddingSize else { throw .makesNoEmbeddings(model: model.name) }
    if let dimensions = options.dimensions, !(1...embeddingSize).contains(dimensions) {
      throw .invalidEmbedding(option: "dimensions", value: "\(dimensions)", reason: "must be between 1 and the model's \(embeddingSize)")
    }
  }

  /// The tokens of a text, cut if that is wanted.
  package func prepareEmbedding(
    of text: Prompt, options: EmbeddingOptions, mostTextBytes: Int = LLM.mostTextBytes
  ) throws -> PreparedPrompt {
    let prepared = try prepare(text, mostTextBytes: mostTextBytes)
    guard prepared.tokenIDs.count > maxSequenceLength else { return prepared }
    guard options.truncates else {
      throw LLMError.textTooLong(tokens: prepared.tokenIDs.count, maxSequenceLength: maxSequenceLength)
    }
    // What closes a text stays at its end.
    var after: [Int] = []
    if case .text = text { after = tokenizer.textFrame.after.map(Int.init) }
    after = Array(after.suffix(maxSequenceLength))
    return PreparedPrompt(tokenIDs: prepared.tokenIDs.prefix(maxSequenceLength - after.count) + after, key: nil)
  }

  /// The same for texts that are prepared already.
  package func embed(_ texts: [PreparedPrompt], options: EmbeddingOptions) async throws -> [Embedding] {
    try check(options)
    if texts.isEmpty { return [] }
    var all: [[Float]] = []
    var rest = texts[...]
    while !rest.isEmpty {
      let part = portion(of: rest)
      all += try await vectors(of: part, options)
      rest = rest.dropFirst(part.count)
    }
    return zip(texts, all).map { text, vector in
      Embedding(values: shortened(vector, options.dimensions), tokenCount: text.tokenIDs.count)
    }
  }

  /// The texts of a call that wait at one time: so many that steps are full, and no more, so that other calls have their turn and one of thousands
  /// is within the limits of what may wait.
  private func portion(of texts: ArraySlice<PreparedPrompt>) -> ArraySlice<PreparedPrompt> {
    let most = min(inbox.limits.requests ?? .max, Self.mostTextsAtOnce)
    var (count, tokens) = (0, 0)
    for text in texts.prefix(most) {
      tokens += text.tokenIDs.count
      if count > 0, let limit = inbox.limits.tokens, tokens > limit { break }
      count += 1
    }
    return texts.prefix(count)
  }

  private static let mostTextsAtOnce = 256

  private func vectors(of texts: ArraySlice<PreparedPrompt>, _ options: EmbeddingOptions) async throws -> [[Float]] {
    try Task.checkCancellation()
    let ids = texts.map { _ in inbox.makeID() }
    return try await withTaskCancellationHandler {
      try await withCheckedThrowingContinuation { continuation in
        let reply = EmbeddingReply(continuation, count: texts.count)
        let now = clock.now
        let submissions = zip(ids, texts).enumerated().map { index, text in
          Submission(
            id: text.0, prompt: text.1.tokenIDs.map(Int32.init), maxLength: text.1.tokenIDs.count, submitted: now,
            purpose: .embedding(reply, index), name: options.id ?? "\(text.0)")
        }
        do {
          try inbox.submit(submissions)
          // A cancellation that came before the submission found nothing to end.
          if Task.isCancelled { for id in ids { inbox.cancel(id) } }
        } catch {
          reply.fail(error)
        }
      }
    } onCancel: {
      for id in ids { inbox.cancel(id) }
    }
  }

  private func shortened(_ vector: [Float], _ dimensions: Int?) -> [Float] {
    guard let dimensions, dimensions < vector.count else { return vector }
    let values = vector.prefix(dimensions)
    guard pooling?.normalizes == true else { return Array(values) }
    let length = max(values.reduce(0) { $0 + Double($1) * Double($1) }.squareRoot(), 1e-12)
    return values.map { Float(Double($0) / length) }
  }
}

/// Where the vectors of a call come together: the loop fills it, and the one who called waits for all.
package final class EmbeddingReply: Sendable {
  private struct State {
    var vectors: [[Float]]
    var missing: Int
    var continuation: CheckedContinuation<[[Float]], any Error>?
  }

  private let state: Guarded<State>

  init(_ continuation: CheckedContinuation<[[Float]], any Error>, count: Int) {
    state = Guarded(State(vectors: Array(repeating: [], count: count), missing: count, continuation: continuation))
  }

  /// The vector of a text, each once.
  func deliver(_ vector: [Float], at index: Int) {
    let (continuation, vectors) = state.withLock { state in
      state.vectors[index] = vector
      state.missing -= 1
      guard state.missing == 0 else { return (CheckedContinuation<[[Float]], any Error>?.none, [[Float]]()) }
      defer { state.continuation = nil }
      return (state.continuation, state.vectors)
    }
    continuation?.resume(returning: vectors)
  }

  /// The first failure ends the call; what comes after it reaches nobody.
  func fail(_ error: any Error) {
    let continuation = state.withLock { state in
      defer { state.continuation = nil }
      return state.continuation
    }
    continuation?.resume(throwing: error)
  }
}
