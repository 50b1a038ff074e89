// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletTokenizers

/// Turns a request's tokens into the text and the chunks that its reader gets.
final class AnswerWriter {
  let sampling: SamplingParams
  /// What the chunks say of the prompt.
  var cachedPromptTokens: Int?
  private let channel: ChunkChannel
  private let endTokens: Set<Int32>
  private var decoder: IncrementalDecoder
  private var stops: StopMatcher
  /// nil where the request changes no logit.
  var adjustment: LogitAdjustment?
  /// What the prompt's tokens from the second on were worth, as far as they are computed; the first chunk takes them along.
  private var promptLogprobs: [TokenLogprob] = []
  /// The last of the prompt's tokens that was told.
  private(set) var promptTokensWritten = 0

  init(_ sampling: SamplingParams, _ channel: ChunkChannel, tokenizer: any Tokenizer) {
    self.sampling = sampling
    self.channel = channel
    endTokens = sampling.ignoresEndTokens ? [] : tokenizer.endTokens
    decoder = IncrementalDecoder(tokenizer, continuesText: true)
    stops = StopMatcher(sampling.stop)
    adjustment = LogitAdjustment(sampling)
  }

  /// Takes what the prompt's token at `index` ≥ 1 was worth; one that was taken before (the prompt was computed again) changes nothing.
  func writePrompt(_ logprob: TokenLogprob, at index: Int) {
    if index <= promptTokensWritten { return }
    promptLogprobs.append(logprob)
    promptTokensWritten = index
  }

  /// Takes the next token, tells the reader, and says why the answer is at its end, if it is.
  /// - Parameter isFull: no further token fits.
  func write(_ token: Int, _ logprob: TokenLogprob?, isFull: Bool) -> FinishReason? {
    var chunk = GenerationChunk(text: "", tokenIDs: [token], logprobs: logprob.map { [$0] } ?? [], promptLogprobs: promptLogprobs)
    promptLogprobs = []
    chunk.cachedPromptTokens = cachedPromptTokens
    if endTokens.contains(Int32(token)) {
      chunk.finishReason = .endToken
      chunk.text = rest()
    } else {
      let (text, isStopped) = stops.push(decoder.append(Int32(token)))
      chunk.text = text
      if isStopped {
        chunk.finishReason = .stopString
      } else if isFull {
        chunk.finishReason = .length
        chunk.text += rest()
      }
    }
    channel.push(chunk)
    return chunk.finishReason
  }

  /// What is left of the text when no token follows. A stop string that only the last bytes completed still counts.
  private func rest() -> String {
    let (text, isStopped) = stops.push(decoder.finish())
    return isStopped ? text : text + stops.flush()
  }

  /// Ends the answer where it is.
  func end(_ reason: FinishReason) { channel.push(GenerationChunk(text: rest(), tokenIDs: [], finishReason: reason)) }

  func fail(_ error: any Error) { channel.fail(error) }
}

/// Collects what the tokens of a given sequence were worth.
final class ScoreWriter {
  private(set) var scores: [TokenScore] = []
  private let continuation: CheckedContinuation<[TokenScore], any Error>

  init(_ continuation: CheckedContinuation<[TokenScore], any Error>, count: Int) {
    self.continuation = continuation
    scores.reserveCapacity(count)
  }

  func write(_ score: TokenScore) { scores.append(score) }
  func finish() { continuation.resume(returning: scores) }
  func fail(_ error: any Error) { continuation.resume(throwing: error) }
}
