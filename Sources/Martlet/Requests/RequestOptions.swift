// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// How a request stands among others, and what a service knows it by. No token depends on any of it but for ``logitsProcessor``.
public struct RequestOptions: Sendable {
  /// What log lines and the answer call the request; nil gives it a number. Several samples or prompts of one call get `-0`, `-1`, … behind it.
  /// The engine never looks a request up by it, so it need not be unique.
  public var id: String?
  /// Of two requests that wait, the one with the higher priority begins first. It hurries nothing that runs, and it cannot starve others: every
  /// eighth request that begins is the one that has waited longest.
  public var priority: Int
  /// Requests with the same key, a user's or a tenant's, wait in a queue of their own, and the queues take turns, so that a key with a thousand
  /// requests does not keep another's only one waiting for all of them. nil is a key like any other.
  public var fairnessKey: String?
  /// Handed through to ``Generation/metadata``, ``GenerationOutput/metadata`` and the engine's log lines, untouched.
  public var metadata: [String: String]
  /// Changes the logits of every token of the answer before it is chosen; nil, the default, changes nothing.
  public var logitsProcessor: LogitsProcessor?

  public init(
    id: String? = nil, priority: Int = 0, fairnessKey: String? = nil, metadata: [String: String] = [:],
    logitsProcessor: LogitsProcessor? = nil
  ) {
    self.id = id
    self.priority = priority
    self.fairnessKey = fairnessKey
    self.metadata = metadata
    self.logitsProcessor = logitsProcessor
  }
}

/// Changes a row of logits, one for each token of the vocabulary, after penalties and bias, and before the form (``SamplingParams/form``) and temperature.
///
/// It is called on the engine's thread, between two steps of all requests: it must neither wait nor take longer than a sampler may (a
/// millisecond for a vocabulary of 150 000), because everybody waits for it; what it took is counted as ``EngineStatistics/samplingTime``.
/// It may ban tokens with −∞. Where it leaves no finite logit the request fails, and no other. Log-probabilities remain the model's own.
public typealias LogitsProcessor = @Sendable (_ logits: inout MutableSpan<Float>, _ context: LogitsContext) -> Void

/// Which token the logits are for.
public struct LogitsContext: Sendable, Hashable {
  /// The tokens of the prompt and of the answer so far.
  public var tokenIDs: [Int32]
  /// How many of them are the prompt.
  public var promptTokenCount: Int

  public init(tokenIDs: [Int32], promptTokenCount: Int) {
    self.tokenIDs = tokenIDs
    self.promptTokenCount = promptTokenCount
  }
}
