// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// What a request's reader has not taken yet, in the form in which the loop adds to it: in place, and without memory of its own as long as
/// it stays within what was reserved when it was made.
struct PendingChunk {
  /// A reader that is so many tokens behind makes the loop take memory for it, amortised.
  static let reservedTokens = 32
  static let reservedBytes = 256

  /// UTF-8.
  private(set) var text: [UInt8] = []
  private(set) var tokenIDs: [Int] = []
  private(set) var logprobs: [TokenLogprob] = []
  private(set) var promptLogprobs: [TokenLogprob] = []
  var cachedPromptTokens: Int?
  var pauses = 0
  var finishReason: FinishReason?

  /// An empty one with memory.
  static func reserved() -> PendingChunk {
    var chunk = PendingChunk()
    chunk.text.reserveCapacity(reservedBytes)
    chunk.tokenIDs.reserveCapacity(reservedTokens)
    return chunk
  }

  mutating func append(text bytes: [UInt8]) { text.append(contentsOf: bytes) }

  mutating func append(_ token: Int, _ logprob: TokenLogprob?) {
    tokenIDs.append(token)
    if let logprob { logprobs.append(logprob) }
  }

  mutating func append(promptLogprobs more: [TokenLogprob]) { if !more.isEmpty { promptLogprobs += more } }

  /// What the reader gets.
  var chunk: GenerationChunk {
    var chunk = GenerationChunk(
      text: String(decoding: text, as: UTF8.self), tokenIDs: tokenIDs, logprobs: logprobs, promptLogprobs: promptLogprobs,
      finishReason: finishReason)
    chunk.cachedPromptTokens = cachedPromptTokens
    chunk.pauses = pauses
    return chunk
  }
}
