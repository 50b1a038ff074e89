// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// The way out of the loop for one request: at most one chunk lies here, and grows until its reader takes it.
///
/// The loop never waits for a reader, and a slow reader never makes a queue: what several steps gave is one chunk when it comes. Closing the
/// near end (no reader is left, or its task was cancelled) is told to the loop once, through the closure handed in.
final class ChunkChannel: Sendable {
  private struct State {
    var pending: GenerationChunk?
    /// Nothing follows what is pending.
    var isFinished = false
    /// What the reader gets after what is pending, once.
    var failure: (any Error)?
    var reader: CheckedContinuation<GenerationChunk?, any Error>?
  }

  private let state = Guarded(State())
  private let abandoned: @Sendable () -> Void

  /// - Parameter abandoned: called at most once, on any thread, when nobody will read what is to come.
  init(abandoned: @escaping @Sendable () -> Void) { self.abandoned = abandoned }

  // MARK: The loop's end

  /// Hands over what a step gave: to the reader that waits, or to what is pending already. Nothing happens where nobody will read it.
  func push(_ chunk: GenerationChunk) {
    let reader = state.withLock { state -> CheckedContinuation<GenerationChunk?, any Error>? in
      if state.isFinished { return nil }
      if chunk.finishReason != nil { state.isFinished = true }
      if let reader = state.reader {
        state.reader = nil
        return reader
      }
      if state.pending == nil { state.pending = chunk } else { state.pending?.append(chunk) }
      return nil
    }
    reader?.resume(returning: chunk)
  }

  /// Ends the stream with an error, behind what is pending.
  func fail(_ error: any Error) {
    let reader = state.withLock { state -> CheckedContinuation<GenerationChunk?, any Error>? in
      if state.isFinished { return nil }
      state.isFinished = true
      if state.reader == nil { state.failure = error }
      defer { state.reader = nil }
      return state.reader
    }
    reader?.resume(throwing: error)
  }

  // MARK: The reader's end

  /// The next chunk; nil at the end, and where the surrounding task is cancelled.
  /// - Precondition: one task reads.
  func next(isolation: isolated (any Actor)?) async throws -> GenerationChunk? {
    try await withTaskCancellationHandler {
      try await withCheckedThrowingContinuation(isolation: isolation) { continuation in
        let ready = state.withLock { state -> Result<GenerationChunk?, any Error>? in
          precondition(state.reader == nil, "two tasks read one generation; iterate over it once")
          if let chunk = state.pending {
            state.pending = nil
            return .success(chunk)
          }
          if let failure = state.failure {
            state.failure = nil
            return .failure(failure)
          }
          if state.isFinished { return .success(nil) }
          state.reader = continuation
          return nil
        }
        if let ready { continuation.resume(with: ready) }
      }
    } onCancel: {
      abandon()
    }
  }

  /// Nobody will read any more.
  func abandon() {
    let (isEarly, reader) = state.withLock { state in
      defer { state = State(pending: nil, isFinished: true, failure: nil, reader: nil) }
      return (!state.isFinished, state.reader)
    }
    reader?.resume(returning: nil)
    if isEarly { abandoned() }
  }
}

/// Held by whoever may still read a channel: the generation and its iterators. When the last one goes, the request ends.
final class ChunkReader: Sendable {
  let channel: ChunkChannel

  init(_ channel: ChunkChannel) { self.channel = channel }

  deinit { channel.abandon() }
}

extension GenerationChunk {
  /// Joins what a later step gave.
  mutating func append(_ later: GenerationChunk) {
    text += later.text
    tokenIDs += later.tokenIDs
    logprobs += later.logprobs
    promptLogprobs += later.promptLogprobs
    cachedPromptTokens = cachedPromptTokens ?? later.cachedPromptTokens
    finishReason = later.finishReason
  }
}
