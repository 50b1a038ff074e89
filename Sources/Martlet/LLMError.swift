// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

package import MartletCore
package import MartletGrammar

/// What the engine refuses, or could not do.
///
/// A program looks at ``code``, a person reads ``description``, which names the limit and the property that moves it. More codes may come, so a
/// `switch` over them has a `default`.
public struct LLMError: Error, Sendable, Hashable, CustomStringConvertible {
  /// Which failure it is.
  public struct Code: RawRepresentable, Sendable, Hashable, Codable {
    public let rawValue: String
    public init(rawValue: String) { self.rawValue = rawValue }

    /// The file cannot be served: something is missing or contradictory.
    public static let unusableModel = Code(rawValue: "unusableModel")
    /// A value of ``EngineConfiguration`` that cannot work.
    public static let invalidConfiguration = Code(rawValue: "invalidConfiguration")
    /// A value of ``SamplingParams`` out of its range.
    public static let invalidSampling = Code(rawValue: "invalidSampling")
    /// A form of answers (``SamplingParams/form``) that cannot be compiled, or that this model cannot hold.
    public static let invalidForm = Code(rawValue: "invalidForm")
    /// An answer could not be continued in its form (``SamplingParams/form``).
    public static let formFailed = Code(rawValue: "formFailed")
    /// Weights and cache need more memory than the device has. Nothing was loaded.
    public static let modelTooLarge = Code(rawValue: "modelTooLarge")
    /// A prompt without tokens.
    public static let emptyPrompt = Code(rawValue: "emptyPrompt")
    /// A text that is longer than any context. It was not tokenized.
    public static let textTooLong = Code(rawValue: "textTooLong")
    /// A token id that the model does not have.
    public static let unknownToken = Code(rawValue: "unknownToken")
    /// Positions of a prompt's tokens that the model does not take, or that do not fit its tokens or its context.
    public static let invalidPositions = Code(rawValue: "invalidPositions")
    /// The prompt leaves no room for a token in the context.
    public static let promptTooLong = Code(rawValue: "promptTooLong")
    /// The request needs more key/value pages than the whole cache has.
    public static let cacheTooSmall = Code(rawValue: "cacheTooSmall")
    /// As many requests wait as ``EngineConfiguration/maxWaitingRequests`` and ``EngineConfiguration/maxWaitingTokens`` allow. Try again later.
    public static let overloaded = Code(rawValue: "overloaded")
    /// A call that is above ``EngineConfiguration/maxWaitingRequests`` or ``EngineConfiguration/maxWaitingTokens`` by itself: trying again does not
    /// help.
    public static let exceedsWaitingLimit = Code(rawValue: "exceedsWaitingLimit")
    /// The engine was shut down, or stopped by an error that it names.
    public static let stopped = Code(rawValue: "stopped")
    /// The generation is read by another task, or was read to its end.
    public static let alreadyRead = Code(rawValue: "alreadyRead")
    /// The logits of a step hold no finite number: the weights or the arithmetic are broken.
    public static let notFinite = Code(rawValue: "notFinite")
    /// The same with a cache whose type has a largest value that keys or values may have passed, so that they became infinite.
    public static let cacheOverflow = Code(rawValue: "cacheOverflow")
    /// A model that makes vectors was asked for text.
    public static let writesNoText = Code(rawValue: "writesNoText")
    /// A model that writes text was asked for vectors.
    public static let makesNoEmbeddings = Code(rawValue: "makesNoEmbeddings")
    /// A value of ``EmbeddingOptions`` out of its range.
    public static let invalidEmbedding = Code(rawValue: "invalidEmbedding")
  }

  public let code: Code
  /// A sentence that names the thing and the way out.
  public let description: String
  /// The property that moves the limit or has the wrong value, as `description` writes it; nil where none does.
  public let property: String?

  public init(_ code: Code, _ description: String, property: String? = nil) {
    self.code = code
    self.description = description
    self.property = property
  }
}

// MARK: - Each failure in words

extension LLMError {
  static func unusableModel(_ reason: String) -> LLMError { LLMError(.unusableModel, "this model cannot be served: \(reason)") }

  package static func invalidConfiguration(option: String, value: String, reason: String) -> LLMError {
    LLMError(.invalidConfiguration, "configuration: \(option) is \(value): \(reason)", property: option)
  }

  package static func invalidSampling(option: String, value: String, reason: String) -> LLMError {
    LLMError(.invalidSampling, "sampling: \(option) is \(value): it \(reason)", property: option)
  }

  package static func invalidForm(_ form: AnswerForm, _ error: GrammarError) -> LLMError {
    LLMError(
      .invalidForm, "sampling: form is a \(form.name) that cannot be held: \(error); change it, or leave the form out", property: "form")
  }

  static func formWithoutEnd(model: String) -> LLMError {
    LLMError(
      .invalidForm,
      "sampling: form cannot be held: the model \"\(model)\" has no token that ends an answer; name a control token that does (stopTokenIDs)",
      property: "form")
  }

  static func formFailed(tokenIndex: Int, _ error: GrammarError) -> LLMError {
    LLMError(.formFailed, "the answer cannot be held to its form at token \(tokenIndex): \(error)", property: "form")
  }

  static func nothingAllowed(tokenIndex: Int) -> LLMError {
    LLMError(
      .formFailed,
      "the answer cannot be held to its form at token \(tokenIndex): no token that the form allows there has a finite logit; change the form or the "
        + "logits processor, or take a model whose tokens can spell it", property: "form")
  }

  /// Sizes in bytes.
  package static func modelTooLarge(weights: Int, cache: Int, working: Int = 0, available: Int, device: String) -> LLMError {
    LLMError(
      .modelTooLarge,
      "the model does not fit: its weights take \(weights) bytes and the key/value cache at least \(cache)\(working > 0 ? ", what its layers work in \(working)" : ""), "
        + "device \(device) has about \(available) free; take a smaller or more strongly quantised model, lower the cache's memory budget (kvCache.budget) "
        + "or its page size (kvCache.pageSize)\(working > 0 ? ", take fewer tokens a step (maxNumTokens)" : ""), or end other programs",
      property: "kvCache.budget")
  }

  package static let emptyPrompt = LLMError(
    .emptyPrompt, "the prompt has no tokens, and this model puts none before it; give it at least one")

  package static func textTooLong(byteCount: Int, most: Int) -> LLMError {
    LLMError(.textTooLong, "the prompt's text has \(byteCount) bytes, and at most \(most) are taken; shorten it")
  }

  package static func writesNoText(model: String) -> LLMError {
    LLMError(
      .writesNoText, "the model \"\(model)\" makes vectors of texts and writes none; ask it for embeddings, or load a model that writes")
  }

  package static func makesNoEmbeddings(model: String) -> LLMError {
    LLMError(
      .makesNoEmbeddings,
      "the model \"\(model)\" writes text and makes no embeddings: its files name no pooling; load a model that is made for them, or say by what this "
        + "one's states are pooled (pooling)", property: "pooling")
  }

  package static func invalidEmbedding(option: String, value: String, reason: String) -> LLMError {
    LLMError(.invalidEmbedding, "embedding: \(option) is \(value): it \(reason)", property: option)
  }

  package static func textTooLong(tokens: Int, maxSequenceLength: Int) -> LLMError {
    LLMError(
      .promptTooLong,
      "the text has \(tokens) tokens, and the model reads \(maxSequenceLength) at once; shorten it, have its end left out (truncates), or raise "
        + "the limit where the model allows it (maxSequenceLength)", property: "maxSequenceLength")
  }

  static let vectorNotFinite = LLMError(
    .notFinite,
    "the vector holds numbers that are not finite: the weights, or what they were quantised to, are broken; fetch or convert the model again"
  )

  package static func unknownToken(id: Int, vocabularySize: Int) -> LLMError {
    LLMError(.unknownToken, "token id \(id) is outside the model's vocabulary 0..<\(vocabularySize)")
  }

  static func invalidPositions(_ reason: String) -> LLMError { LLMError(.invalidPositions, "the prompt's positions: \(reason)") }

  package static func promptTooLong(tokens: Int, maxSequenceLength: Int) -> LLMError {
    LLMError(
      .promptTooLong,
      "the prompt has \(tokens) tokens and the context holds \(maxSequenceLength), prompt and answer together; "
        + "shorten it or raise the context (maxSequenceLength)", property: "maxSequenceLength")
  }

  package static func cacheTooSmall(tokens: Int, available: String) -> LLMError {
    LLMError(
      .cacheTooSmall,
      "a request of \(tokens) tokens can never fit into the key/value cache (\(available)); "
        + "lower maxTokens or raise the cache's memory budget (kvCache.budget)", property: "kvCache.budget")
  }

  package static func overloaded(requests: Int, waitingRequests: Int, limit: Int) -> LLMError {
    LLMError(
      .overloaded,
      "\(waitingRequests) requests wait, and with \(requests) more they would be over the limit of \(limit) (maxWaitingRequests); "
        + "try again later", property: "maxWaitingRequests")
  }

  package static func overloaded(tokens: Int, waitingTokens: Int, limit: Int) -> LLMError {
    LLMError(
      .overloaded,
      "prompts of \(waitingTokens) tokens wait, and with \(tokens) more they would be over the limit of \(limit) (maxWaitingTokens); "
        + "try again later", property: "maxWaitingTokens")
  }

  package static func exceedsWaitingLimit(count: Int, of what: String, limit: Int, property: String) -> LLMError {
    LLMError(
      .exceedsWaitingLimit, "\(count) \(what) in one call are more than may ever wait, \(limit) (\(property)); submit fewer, or raise it",
      property: property)
  }

  package static func stopped(_ reason: String) -> LLMError { LLMError(.stopped, "the engine does not run: \(reason)") }

  package static let alreadyRead = LLMError(
    .alreadyRead, "this generation is read already, or was: iterate over it once, or ask for its output once")

  package static func notFinite(tokenIndex: Int) -> LLMError {
    LLMError(
      .notFinite,
      "the logits for token \(tokenIndex) hold numbers that are not finite: the weights, or what they were quantised to, are broken; "
        + "fetch or convert the model again")
  }

  package static func cacheOverflow(tokenIndex: Int, dataType: DataType) -> LLMError {
    LLMError(
      .cacheOverflow,
      "the logits for token \(tokenIndex) hold numbers that are not finite: the key/value cache is \(dataType.rawValue), in which keys and "
        + "values above 65504 become infinite; keep them in bfloat16, the default (kvCache.dataType)", property: "kvCache.dataType")
  }
}

extension String {
  /// A message that calls settings by other names, for whoever sets them by these: names are words of letters and full stops.
  package func replacingNames(_ names: [String: String]) -> String {
    var text = ""
    var rest = self[...]
    while !rest.isEmpty {
      var word = rest.prefix { $0.isLetter || $0 == "." }
      while word.last == "." { word.removeLast() }  // of a sentence
      text += word.isEmpty ? String(rest.removeFirst()) : names[String(word)] ?? String(word)
      rest.removeFirst(word.count)
    }
    return text
  }
}
