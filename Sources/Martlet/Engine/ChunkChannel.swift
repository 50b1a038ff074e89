// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// The way out of the loop for one request: at most one chunk lies here, and grows until its reader takes it.
///
/// The loop never waits for a reader, and a slow reader never makes a queue: what several steps gave is one chunk when it comes. The reader
/// makes the memory: it takes what is pending and leaves an empty chunk with room, so that the loop only fills it and wakes who waits. Closing
/// the near end (no reader is left, or its task was cancelled) is told to the loop once, through the closure handed in.
package final class ChunkChannel: Sendable {
  private struct State {
    var pending = PendingChunk()
    /// Something was added to what is pending.
    var isReady = false
    /// Nothing follows what is pending.
    var isFinished = false
    /// The reader went before it had everything.
    var isAbandoned = false
    /// What the reader gets after what is pending, once.
    var failure: (any Error)?
    /// Woken when there is something to take.
    var reader: CheckedContinuation<Void, any Error>?
  }

  private let state = Guarded(State(pending: .reserved()))
  private let waker: Waker
  private let abandoned: @Sendable () -> Void

  /// - Parameters:
  ///   - waker: wakes the reader for the loop.
  ///   - abandoned: called at most once, on any thread, when nobody will read what is to come.
  package init(waker: Waker, abandoned: @escaping @Sendable () -> Void) {
    self.waker = waker
    self.abandoned = abandoned
  }

  // MARK: The loop's end

  /// Adds what a step gave to what is pending, and wakes the reader that waits for it. Nothing happens where nobody will read it.
  func push(_ add: (inout PendingChunk) -> Void) {
    let reader = state.withLock { state -> CheckedContinuation<Void, any Error>? in
      if state.isFinished { return nil }
      add(&state.pending)
      state.isReady = true
      if state.pending.finishReason != nil { state.isFinished = true }
      defer { state.reader = nil }
      return state.reader
    }
    if let reader { waker.wake(reader) }
  }

  /// Ends the stream with an error, behind what is pending.
  func fail(_ error: any Error) {
    let reader = state.withLock { state -> CheckedContinuation<Void, any Error>? in
      if state.isFinished { return nil }
      state.isFinished = true
      state.failure = error
      defer { state.reader = nil }
      return state.reader
    }
    if let reader { waker.wake(reader) }
  }

  // MARK: The reader's end

  /// The next chunk; nil at the end.
  /// - Throws: `CancellationError` where the surrounding task was cancelled before it had everything; ``LLMError`` (``LLMError/Code/alreadyRead``)
  ///   where another task waits for the next chunk; otherwise what stopped the engine.
  package func next(isolation: isolated (any Actor)?) async throws -> GenerationChunk? {
    // Somebody else's stream is not ended by a task that was cancelled.
    if state.withLock({ $0.reader != nil }) { throw LLMError.alreadyRead }
    var spare = PendingChunk.reserved()
    while true {
      if Task.isCancelled { abandon() }
      if let taken = take(leaving: &spare) { return try taken.get() }
      try await withTaskCancellationHandler {
        try await withCheckedThrowingContinuation(isolation: isolation) { continuation in
          let answer = state.withLock { state -> Result<Void, any Error>? in
            if state.reader != nil { return .failure(LLMError.alreadyRead) }
            if state.isReady || state.isFinished { return .success(()) }
            state.reader = continuation
            return nil
          }
          if let answer { continuation.resume(with: answer) }
        }
      } onCancel: {
        abandon()
      }
    }
  }

  /// What there is to take: a chunk, the end or the error; nil where there is nothing yet.
  private func take(leaving spare: inout PendingChunk) -> Result<GenerationChunk?, any Error>? {
    let taken = state.withLock { state -> Result<Bool, any Error>? in
      if state.isReady {
        state.isReady = false
        // What was said of the request goes on to hold.
        spare.cachedPromptTokens = state.pending.cachedPromptTokens
        spare.pauses = state.pending.pauses
        swap(&state.pending, &spare)
        return .success(true)
      }
      if let failure = state.failure {
        state.failure = nil
        return .failure(failure)
      }
      if state.isAbandoned { return .failure(CancellationError()) }
      return state.isFinished ? .success(false) : nil
    }
    return taken.map { taken in taken.map { $0 ? spare.chunk : nil } }
  }

  /// Nobody will read any more.
  func abandon() {
    let (isEarly, reader) = state.withLock { state in
      let hadEverything = state.isFinished && !state.isReady && state.failure == nil && !state.isAbandoned
      defer { state = State(isFinished: true, isAbandoned: !hadEverything) }
      return (!state.isFinished, state.reader)
    }
    reader?.resume()
    if isEarly { abandoned() }
  }
}

/// Held by whoever may still read a channel: the generation and its iterators. When the last one goes, the request ends.
final class ChunkReader: Sendable {
  let channel: ChunkChannel

  init(_ channel: ChunkChannel) { self.channel = channel }

  deinit { channel.abandon() }
}
