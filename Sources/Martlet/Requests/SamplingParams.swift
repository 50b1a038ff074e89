// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletKVCache
import MartletTokenizers

/// How the next token is chosen, and when a request ends.
///
/// Everything applies in one order: ``repetitionPenalty``, then ``frequencyPenalty`` and ``presencePenalty``, then ``logitBias``, then
/// ``RequestOptions/logitsProcessor``, then ``form``, then temperature, ``topK``, ``topP``, ``minP``; the token is then drawn from what is left,
/// renormalised. With the default, temperature 0, the token is the most probable one of those that the form allows after penalties and bias (of equals
/// the one with the lowest id) and the filters and the seed say nothing.
///
/// The draw for token number i of a request is a pure function of (``seed``, i): a request's tokens depend on nothing but the request.
public struct SamplingParams: Sendable, Hashable {
  /// Logits are divided by this; 0, the default, is greedy.
  public var temperature: Float
  /// Keep the k most probable tokens; nil keeps all.
  public var topK: Int?
  /// Keep the most probable tokens whose probabilities sum to at least p (the one that crosses p is kept); 1 keeps all.
  public var topP: Float
  /// Keep tokens at least `minP` times as probable as the most probable; 0 keeps all.
  public var minP: Float
  /// Makes the logit l of every token of the prompt and of the answer so far l / penalty where l > 0, and l · penalty elsewhere (Keskar et
  /// al. 2019, CTRL); above 1 discourages, below 1 encourages, 1, the default, does nothing.
  public var repetitionPenalty: Float
  /// Taken once from the logit of every token of the answer so far, −2…2 (OpenAI's definition: the prompt does not count); 0 does nothing.
  public var presencePenalty: Float
  /// Taken from the logit of every token of the answer so far as often as it stands there, −2…2 (OpenAI's definition); 0 does nothing.
  public var frequencyPenalty: Float
  /// Added to the logits of these tokens, by id; −100 bans a token and 100 forces it, in effect.
  public var logitBias: [Int: Float]
  /// The same seed gives the same tokens.
  public var seed: UInt64
  /// The most tokens to generate; nil goes on to the end of the context. A request also ends, with the same reason, where the context is full.
  public var maxTokens: Int?
  /// A request that has not ended this long after its submission, waiting included, ends before the engine's next step, with
  /// ``FinishReason/deadline`` and what it has; nil gives it all the time it needs. Measured by ``EngineConfiguration/clock``.
  public var timeout: Duration?
  /// The text ends before the first of these that appears, also across token borders.
  public var stop: [String]
  /// The answer ends with the first of these tokens that is generated, as it does with the model's own end tokens (``FinishReason/endToken``):
  /// the token counts, and is no text. They hold also where ``ignoresEndTokens``.
  public var stopTokenIDs: Set<Int>
  /// What the answer's text must be; nil, the default, leaves that to the model. The model's end tokens, and those of ``stopTokenIDs`` that are control
  /// tokens, come only where the form may end, other control tokens never. ``stop``, ``maxTokens``, ``timeout`` and a text token among ``stopTokenIDs``
  /// may end the answer before its form does, and ``FinishReason`` says so for all but the last.
  public var form: AnswerForm?
  /// For every token, report its log-probability and those of this many most probable tokens (0: its own alone); nil reports none.
  ///
  /// Log-probabilities are those of the model, before penalties, bias, form, temperature and filters, in nats.
  public var logprobs: Int?
  /// For every token of the prompt but the first, report its log-probability and those of this many most probable tokens at its place
  /// (0: its own alone); nil reports none. Every row of the prompt is then computed, whatever a cache could spare: a vocabulary's width of
  /// work a token.
  public var promptLogprobs: Int?
  /// How long the keys and values of the request's tokens are kept for requests that begin alike, against those of others; nil is
  /// `KVCacheConfig.retention`. No token changes by it.
  public var cacheRetention: KVRetention?
  /// Go on past the model's end tokens, which then are tokens like others. For measurements, and not together with a ``form``.
  public var ignoresEndTokens: Bool
  /// The text has the names of control tokens in it, such as `<|channel|>` or `[TOOL_CALLS]`, for whoever reads an answer's structure (an
  /// `AnswerParser` whose `AnswerFormat` needs control tokens); stop strings see them too. The token that ends the answer is no text either way.
  /// vLLM calls the opposite `skip_special_tokens`.
  public var showsControlTokens: Bool

  public init(
    temperature: Float = 0, topK: Int? = nil, topP: Float = 1, minP: Float = 0, repetitionPenalty: Float = 1, presencePenalty: Float = 0,
    frequencyPenalty: Float = 0, logitBias: [Int: Float] = [:], seed: UInt64 = 0, maxTokens: Int? = nil, timeout: Duration? = nil,
    stop: [String] = [], stopTokenIDs: Set<Int> = [], form: AnswerForm? = nil, logprobs: Int? = nil, promptLogprobs: Int? = nil,
    cacheRetention: KVRetention? = nil, ignoresEndTokens: Bool = false, showsControlTokens: Bool = false
  ) {
    self.temperature = temperature
    self.topK = topK
    self.topP = topP
    self.minP = minP
    self.repetitionPenalty = repetitionPenalty
    self.presencePenalty = presencePenalty
    self.frequencyPenalty = frequencyPenalty
    self.logitBias = logitBias
    self.seed = seed
    self.maxTokens = maxTokens
    self.timeout = timeout
    self.stop = stop
    self.stopTokenIDs = stopTokenIDs
    self.form = form
    self.logprobs = logprobs
    self.promptLogprobs = promptLogprobs
    self.cacheRetention = cacheRetention
    self.ignoresEndTokens = ignoresEndTokens
    self.showsControlTokens = showsControlTokens
  }

  /// What sample `index` of a prompt is drawn with, a pure function of ``seed`` and `index`: ``seed`` itself for sample 0. A request with this
  /// seed gives the tokens of that sample alone.
  public func seed(ofSample index: Int) -> UInt64 { Sampler.seed(seed, sample: index) }

  /// Those of ``stopTokenIDs`` that a form lets come where it may end: control tokens. The others are text, to which the form applies.
  func formStopTokens(_ tokenizer: any Tokenizer) -> [Int] {
    let further = stopTokenIDs.filter { tokenizer.isControl(Int32(truncatingIfNeeded: $0)) }
    return further.filter { !tokenizer.endTokens.contains(Int32(truncatingIfNeeded: $0)) }.sorted()
  }

  /// A longer ``timeout`` is no deadline that anybody means.
  static let longestTimeout = Duration.seconds(1_000_000_000)

  /// - Throws: ``LLMError/Code/invalidSampling`` for the first value out of its range.
  public func validate() throws(LLMError) {
    func check(_ holds: Bool, _ option: String, _ value: some CustomStringConvertible, _ reason: String) throws(LLMError) {
      if !holds { throw .invalidSampling(option: option, value: value.description, reason: reason) }
    }
    try check(temperature >= 0 && temperature.isFinite, "temperature", temperature, "must be 0 (greedy) or positive")
    try check((topK ?? 1) >= 1, "topK", topK ?? 0, "must be at least 1; leave it out to keep all tokens")
    try check(topP > 0 && topP <= 1, "topP", topP, "must be above 0 and at most 1")
    try check(minP >= 0 && minP <= 1, "minP", minP, "must be between 0 and 1")
    try check(
      repetitionPenalty > 0 && repetitionPenalty.isFinite, "repetitionPenalty", repetitionPenalty, "must be positive; 1 does nothing")
    try check(abs(presencePenalty) <= 2, "presencePenalty", presencePenalty, "must be between -2 and 2")
    try check(abs(frequencyPenalty) <= 2, "frequencyPenalty", frequencyPenalty, "must be between -2 and 2")
    for (token, bias) in logitBias {
      try check(bias.isFinite, "logitBias[\(token)]", bias, "must be a finite number; -100 bans a token in effect")
    }
    try check((maxTokens ?? 1) >= 1, "maxTokens", maxTokens ?? 0, "must be at least 1")
    try check((timeout ?? .seconds(1)) > .zero, "timeout", timeout ?? .zero, "must be positive; leave it out for no deadline")
    try check(
      (timeout ?? .zero) <= Self.longestTimeout, "timeout", timeout ?? .zero, "must be at most 1e9 seconds; leave it out for no deadline")
    try check((logprobs ?? 0) >= 0, "logprobs", logprobs ?? 0, "must not be negative")
    try check((promptLogprobs ?? 0) >= 0, "promptLogprobs", promptLogprobs ?? 0, "must not be negative")
    try check(
      form == nil || !ignoresEndTokens, "ignoresEndTokens", true, "cannot be with a form: an end token says that the form is whole")
    try check(!stop.contains(""), "stop", "\"\"", "must not be empty: every text contains it")
  }
}
