// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Why a request ended.
public enum FinishReason: String, Sendable, Hashable, Codable {
  /// The model wrote an end token.
  case endToken = "stop"
  /// One of the stop strings appeared.
  case stopString = "stop_string"
  /// ``SamplingParams/maxTokens`` or the context length was reached.
  case length
  /// ``Generation/cancel()`` was called.
  case cancelled
  /// ``SamplingParams/timeout`` was over.
  case deadline
}

/// A token with its log-probability in nats, and the most probable tokens at its place.
public struct TokenLogprob: Sendable, Hashable, Codable {
  /// An alternative at the same place.
  public struct Alternative: Sendable, Hashable, Codable {
    public var tokenID: Int
    public var logprob: Float

    public init(tokenID: Int, logprob: Float) {
      self.tokenID = tokenID
      self.logprob = logprob
    }
  }

  public var tokenID: Int
  public var logprob: Float
  /// The most probable tokens, best first, as many as ``SamplingParams/logprobs`` asked for.
  public var top: [Alternative]

  public init(tokenID: Int, logprob: Float, top: [Alternative]) {
    self.tokenID = tokenID
    self.logprob = logprob
    self.top = top
  }
}

/// What was added to a request since the chunk before: by one step, or by several where the reader was slower than the engine.
///
/// A reader that is asleep costs one chunk's memory, not a queue of them; the engine never waits for it.
///
/// Text may lag behind tokens: a character of several tokens is given when it is whole, and text that may be the start of a stop string
/// is held back until it is known not to be.
public struct GenerationChunk: Sendable, Hashable, Codable {
  /// The text that became certain; may be empty.
  public var text: String
  /// The tokens that were added, the end token included.
  public var tokenIDs: [Int]
  /// One entry per token if ``SamplingParams/logprobs`` asked for them, else none.
  public var logprobs: [TokenLogprob]
  /// The prompt's tokens whose keys and values were in the cache already; nil where the request was cancelled before it began.
  public var cachedPromptTokens: Int?
  /// How often the request has paused so far to make room for older ones (``CapacityPolicy/maxUtilization``).
  public var pauses = 0
  /// In the chunk with the first token, if ``SamplingParams/promptLogprobs`` asked for them: an entry for every token of the prompt but the
  /// first. Else empty.
  public var promptLogprobs: [TokenLogprob]
  /// Set in the last chunk.
  public var finishReason: FinishReason?

  public init(
    text: String, tokenIDs: [Int], logprobs: [TokenLogprob] = [], promptLogprobs: [TokenLogprob] = [], finishReason: FinishReason? = nil
  ) {
    self.text = text
    self.tokenIDs = tokenIDs
    self.logprobs = logprobs
    self.promptLogprobs = promptLogprobs
    self.finishReason = finishReason
  }
}

/// A whole answer.
public struct GenerationOutput: Sendable, Hashable, Codable {
  /// What the request is called: ``RequestOptions/id``, or a number.
  public var id: String
  /// ``RequestOptions/metadata``.
  public var metadata: [String: String]
  public var promptTokenIDs: [Int]
  /// The tokens generated, the end token included.
  public var tokenIDs: [Int]
  /// Their text: without the end token, without the stop string and what follows it.
  public var text: String
  public var finishReason: FinishReason
  /// One entry per token if ``SamplingParams/logprobs`` asked for them, else empty.
  public var logprobs: [TokenLogprob]
  /// The prompt's tokens whose keys and values were in the cache already. It depends on what ran before.
  public var cachedPromptTokens = 0
  /// How often the request paused to make room for older ones (``CapacityPolicy/maxUtilization``). It depends on what ran beside it, as
  /// ``cachedPromptTokens`` does.
  public var pauses = 0
  /// One entry for every token of the prompt but the first if ``SamplingParams/promptLogprobs`` asked for them, else empty.
  public var promptLogprobs: [TokenLogprob]
  /// Which sample of the prompt this is: 0 for the first or only one.
  public var index: Int

  public init(
    promptTokenIDs: [Int], tokenIDs: [Int], text: String, finishReason: FinishReason, logprobs: [TokenLogprob] = [],
    promptLogprobs: [TokenLogprob] = [], index: Int = 0, id: String = "", metadata: [String: String] = [:]
  ) {
    self.id = id
    self.metadata = metadata
    self.promptTokenIDs = promptTokenIDs
    self.tokenIDs = tokenIDs
    self.text = text
    self.finishReason = finishReason
    self.logprobs = logprobs
    self.promptLogprobs = promptLogprobs
    self.index = index
  }
}
