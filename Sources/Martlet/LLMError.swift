// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletCore

/// What the engine refuses, with the limit and the option that moves it.
public enum LLMError: Error, Sendable, Hashable, CustomStringConvertible {
  /// The file cannot be served: what is missing or contradictory.
  case unusableModel(String)
  /// A value of ``EngineConfiguration`` that cannot work.
  case invalidConfiguration(option: String, value: String, reason: String)
  /// A value of ``SamplingParams`` out of its range.
  case invalidSampling(option: String, value: String, reason: String)
  /// Weights and cache need more memory than the device has; in bytes. Nothing was loaded.
  case modelTooLarge(weights: Int, cache: Int, available: Int, device: String)
  case emptyPrompt
  /// A text that is longer than any context; in bytes. It was not tokenized.
  case textTooLong(byteCount: Int, most: Int)
  /// A token id that the model does not have.
  case unknownToken(id: Int, vocabularySize: Int)
  /// The prompt leaves no room for a token in the context.
  case promptTooLong(tokens: Int, maxSequenceLength: Int)
  /// More key/value pages than the whole cache has.
  case cacheTooSmall(tokens: Int, available: String)
  /// The engine was shut down, or stopped by an error that it named.
  case stopped(String)
  /// A generation that another task reads, or that was read to its end.
  case alreadyRead
  /// The logits of a step hold no finite number: the weights or the arithmetic are broken.
  case notFinite(tokenIndex: Int)
  /// The same with a cache whose type has a largest value that keys or values may have passed, so that they became infinite.
  case cacheOverflow(tokenIndex: Int, dataType: DataType)

  public var description: String {
    switch self {
    case .unusableModel(let reason): "this model cannot be served: \(reason)"
    case .invalidConfiguration(let option, let value, let reason): "configuration: \(option) is \(value): \(reason)"
    case .invalidSampling(let option, let value, let reason): "sampling: \(option) is \(value): it \(reason)"
    case .modelTooLarge(let weights, let cache, let available, let device):
      "the model does not fit: its weights take \(weights) bytes and the key/value cache at least \(cache), device \(device) has about "
        + "\(available) free; take a smaller or more strongly quantised model, lower the cache's memory budget (--kv-cache-memory) "
        + "or its page size (--page-size), or end other programs"
    case .emptyPrompt: "the prompt has no tokens, and this model puts none before it; give it at least one"
    case .textTooLong(let byteCount, let most): "the prompt's text has \(byteCount) bytes, and at most \(most) are taken; shorten it"
    case .unknownToken(let id, let vocabularySize): "token id \(id) is outside the model's vocabulary 0..<\(vocabularySize)"
    case .promptTooLong(let tokens, let maxSequenceLength):
      "the prompt has \(tokens) tokens and the context holds \(maxSequenceLength), prompt and answer together; "
        + "shorten it or raise maxSequenceLength (--context)"
    case .cacheTooSmall(let tokens, let available):
      "a request of \(tokens) tokens can never fit into the key/value cache (\(available)); "
        + "lower maxTokens or raise the cache's memory budget (--kv-cache-memory)"
    case .stopped(let reason): "the engine does not run: \(reason)"
    case .alreadyRead: "this generation is read already, or was: iterate over it once, or ask for its output once"
    case .notFinite(let tokenIndex):
      "the logits for token \(tokenIndex) hold numbers that are not finite: the weights, or what they were quantised to, are broken; "
        + "fetch or convert the model again"
    case .cacheOverflow(let tokenIndex, let dataType):
      "the logits for token \(tokenIndex) hold numbers that are not finite: the key/value cache is \(dataType.rawValue), in which keys and "
        + "values above 65504 become infinite; keep them in bfloat16 (--kv-cache-dtype bf16, the default)"
    }
  }
}
