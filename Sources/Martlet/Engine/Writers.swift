// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

package import MartletGrammar
package import MartletTokenizers

/// Turns a request's tokens into the text and the chunks that its reader gets.
package final class AnswerWriter {
  let sampling: SamplingParams
  /// What the chunks say of the prompt, and of the request.
  var cachedPromptTokens: Int?
  var pauses = 0
  private let channel: ChunkChannel
  private let endTokens: Set<Int32>
  private var decoder: IncrementalDecoder
  private var stops: StopMatcher
  /// What a token's bytes made certain, and the text of it that is told now: UTF-8, whose memory stays.
  private var piece: [UInt8] = []
  private var text: [UInt8] = []
  /// nil where the request changes no logit.
  var adjustment: LogitAdjustment?
  let logitsProcessor: LogitsProcessor?
  /// nil where the answer has no form.
  var form: FormKeeper?
  /// What the last chunk says; it is told once the engine's numbers know of the end.
  private var ending: Ending?
  /// What the prompt's tokens from the second on were worth, as far as they are computed; the first chunk takes them along.
  private var promptLogprobs: [TokenLogprob] = []
  /// The last of the prompt's tokens that was told.
  private(set) var promptTokensWritten = 0

  private struct Ending {
    var token: Int?
    var logprob: TokenLogprob?
    var reason: FinishReason
  }

  package init(
    _ sampling: SamplingParams, _ channel: ChunkChannel, tokenizer: any Tokenizer, logitsProcessor: LogitsProcessor? = nil,
    constraint: GrammarConstraint? = nil
  ) {
    self.sampling = sampling
    self.channel = channel
    endTokens = (sampling.ignoresEndTokens ? [] : tokenizer.endTokens).union(sampling.stopTokenIDs.map { Int32(truncatingIfNeeded: $0) })
    self.logitsProcessor = logitsProcessor
    form = constraint.map { FormKeeper($0, stopTokens: sampling.formStopTokens(tokenizer)) }
    decoder = IncrementalDecoder(tokenizer, continuesText: true, showsControlTokens: sampling.showsControlTokens)
    stops = StopMatcher(sampling.stop)
    adjustment = LogitAdjustment(sampling)
    piece.reserveCapacity(PendingChunk.reservedBytes)
    text.reserveCapacity(PendingChunk.reservedBytes)
  }

  /// Takes what the prompt's token at `index` ≥ 1 was worth; one that was taken before (the prompt was computed again) changes nothing.
  func writePrompt(_ logprob: TokenLogprob, at index: Int) {
    if index <= promptTokensWritten { return }
    promptLogprobs.append(logprob)
    promptTokensWritten = index
  }

  /// Takes the next token and tells the reader; or, at the answer's end, says why it ends and tells the reader in ``deliver()``.
  /// - Parameter isFull: no further token fits.
  func write(_ token: Int, _ logprob: TokenLogprob?, isFull: Bool) -> FinishReason? {
    text.removeAll(keepingCapacity: true)
    var reason: FinishReason?
    if endTokens.contains(Int32(token)) {
      reason = .endToken
      finishText()
    } else {
      piece.removeAll(keepingCapacity: true)
      decoder.append(Int32(token), to: &piece)
      if stops.push(piece, to: &text) {
        reason = .stopString
      } else if isFull {
        reason = .length
        finishText()
      }
    }
    if let reason {
      ending = Ending(token: token, logprob: logprob, reason: reason)
    } else {
      push(token, logprob, nil)
    }
    return reason
  }

  private func push(_ token: Int?, _ logprob: TokenLogprob?, _ reason: FinishReason?) {
    channel.push { pending in
      if let token {
        pending.append(token, logprob)
        pending.append(promptLogprobs: promptLogprobs)
      }
      pending.append(text: text)
      pending.cachedPromptTokens = cachedPromptTokens
      pending.pauses = pauses
      pending.finishReason = reason
    }
    if !promptLogprobs.isEmpty { promptLogprobs = [] }
  }

  /// Appends what is left of the text when no token follows. A stop string that only the last bytes completed still counts.
  private func finishText() {
    piece.removeAll(keepingCapacity: true)
    decoder.finish(to: &piece)
    if !stops.push(piece, to: &text) { stops.flush(to: &text) }
  }

  /// Ends the answer where it is; the reader is told in ``deliver()``.
  func end(_ reason: FinishReason) {
    text.removeAll(keepingCapacity: true)
    finishText()
    ending = Ending(reason: reason)
  }

  /// Tells the reader of the end.
  func deliver() {
    guard let ending else { return }
    self.ending = nil
    push(ending.token, ending.logprob, ending.reason)
  }

  func fail(_ error: any Error) { channel.fail(error) }
}

/// Collects what the tokens of a given sequence were worth.
package final class ScoreWriter {
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
