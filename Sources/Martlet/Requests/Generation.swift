// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletTokenizers

/// One request on its way: an asynchronous sequence of what the engine's steps add to it.
///
/// The work goes on whether or not somebody iterates; what nobody has taken yet is one chunk that grows: for a reader
/// that keeps up, in memory that the reader made, for a slow one in more, amortised. Let go of the generation, cancel the task that iterates
/// over it, or call ``cancel()``, and the request's pages are free before the engine's next step. Iterate once, or ask for ``output()`` once:
///
/// | What happens | A loop over the chunks | ``output()`` |
/// |---|---|---|
/// | The answer ends: an end token, a stop string, a limit | ends behind the chunk with the ``FinishReason`` | returns |
/// | ``cancel()`` is called, or ``SamplingParams/timeout`` is over | the same | returns what there is |
/// | The reader's task is cancelled | throws `CancellationError` | throws `CancellationError` |
/// | The request or the engine fails, or the engine is shut down before the end | throws the error | throws the error |
/// | Somebody else reads it, or has | throws ``LLMError/Code/alreadyRead``, or ends at once | throws ``LLMError/Code/alreadyRead`` |
///
/// What ended is in ``LLM/statistics`` before its last chunk is handed out.
public struct Generation: AsyncSequence, Sendable {
  public typealias Element = GenerationChunk
  public typealias Failure = any Error

  /// The tokens that the prompt became, the beginning-of-text token included where the model has one.
  public let promptTokenIDs: [Int]
  /// Which sample of the prompt this is: 0 for the first or only one.
  public let index: Int
  /// What the request is called: ``RequestOptions/id``, or a number.
  public let id: String
  /// ``RequestOptions/metadata``.
  public let metadata: [String: String]
  let reader: ChunkReader
  let cancellation: @Sendable () -> Void
  /// nil where the answer cannot be remembered.
  let remembering: Remembering?

  /// Where the answer is remembered, and what it answered.
  struct Remembering: Sendable {
    let answers: AnswerMemory
    let prompt: AnswerMemory.PromptKey
  }

  public struct AsyncIterator: AsyncIteratorProtocol {
    let reader: ChunkReader

    public mutating func next() async throws -> GenerationChunk? { try await reader.channel.next(isolation: nil) }

    public mutating func next(isolation actor: isolated (any Actor)?) async throws -> GenerationChunk? {
      try await reader.channel.next(isolation: actor)
    }
  }

  public func makeAsyncIterator() -> AsyncIterator { AsyncIterator(reader: reader) }

  /// Ends the request before the next step; the last chunk then says ``FinishReason/cancelled``.
  public func cancel() { cancellation() }

  /// Remembers which tokens the answer was, so that a conversation which goes on after it has them again.
  ///
  /// A later ``Prompt/chat(_:tools:documents:options:)`` that begins with what this one said, and goes on with `message`, gets the tokens of this
  /// prompt and of this answer in place of what its text would become, and so the keys and values that are kept for them. It must be the same
  /// to the template: where that writes the history otherwise than it wrote this prompt, or the message otherwise when something follows, nothing is replaced. Who
  /// sends the message back may leave white space at the ends of its texts away, write a call's arguments with other spaces or in another order,
  /// and name calls otherwise, unless the template writes the names.
  ///
  /// Nothing happens for a prompt that is no conversation, for more of an answer (`ChatOptions.continuesFinalMessage`), where
  /// ``EngineConfiguration/rememberedAnswers`` is 0, and for an answer that a stop string ended: its last tokens are no part of what it says.
  ///
  /// - Parameters:
  ///   - message: what the answer says, taken apart as the client will send it back.
  ///   - tokenIDs: all tokens of the answer, as chunks or ``GenerationOutput/tokenIDs`` have them.
  ///   - finishReason: how it ended.
  public func remember(_ message: ChatMessage, tokenIDs: [Int], finishReason: FinishReason) {
    guard let remembering, finishReason != .stopString else { return }
    // What ends an answer is no text, and the template writes an end of its own.
    let said = finishReason == .endToken ? tokenIDs.dropLast() : tokenIDs[...]
    if said.isEmpty { return }
    remembering.answers.remember(
      message,
      AnswerMemory.Answer(
        promptTokenIDs: promptTokenIDs.map(Int32.init), tokenIDs: said.map(Int32.init), callIDs: message.toolCalls.map(\.id)),
      after: remembering.prompt)
  }

  /// Waits for the end and gives everything at once.
  ///
  /// - Throws: `CancellationError` when the surrounding task was cancelled; ``LLMError/Code/alreadyRead`` where somebody else reads the generation
  ///   or has read it to its end; otherwise what stopped the engine.
  public func output() async throws -> GenerationOutput {
    var output = GenerationOutput(
      promptTokenIDs: promptTokenIDs, tokenIDs: [], text: "", finishReason: .cancelled, index: index, id: id,
      metadata: metadata)
    for try await chunk in self {
      output.text += chunk.text
      output.tokenIDs += chunk.tokenIDs
      output.logprobs += chunk.logprobs
      output.cachedPromptTokens = chunk.cachedPromptTokens ?? output.cachedPromptTokens
      output.pauses = chunk.pauses
      output.promptLogprobs += chunk.promptLogprobs
      if let reason = chunk.finishReason {
        output.finishReason = reason
        return output
      }
    }
    throw LLMError.alreadyRead
  }
}
