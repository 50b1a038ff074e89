// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletFormats
public import MartletModels
public import MartletTokenizers

/// A language model that runs: load it once, ask it from any number of tasks at a time.
///
/// ```swift
/// let llm = try LLM(model: "smollm2-135m.gguf")
/// for try await chunk in try llm.generate("The capital of France is", sampling: SamplingParams(maxTokens: 32)) {
///   print(chunk.text, terminator: "")
/// }
/// ```
///
/// One thread owns the model, the cache and the scheduler, and steps as long as there is work. Requests that run at the same time share
/// its steps, and none of them can tell: a request's tokens depend on nothing but the request. When the last reference to the `LLM` goes,
/// what runs is finished first, then the thread ends and the memory is free.
public final class LLM: Sendable {
  /// What the model is.
  public let model: ModelConfiguration
  public let tokenizer: Tokenizer
  /// The most tokens of one request, prompt and answer.
  public let maxSequenceLength: Int
  private let engine: Engine

  /// Loads a model.
  ///
  /// - Parameters:
  ///   - path: a `.gguf` file.
  ///   - progress: told, on the calling thread, the share of the model that is loaded, 0…1.
  /// - Throws: ``LLMError``, `GGUFError`, `ModelError`, `AttentionError`, `KVCacheError` or `DeviceError`: each names the thing and the way out.
  public convenience init(
    model path: String, configuration: EngineConfiguration = EngineConfiguration(), progress: ((Double) -> Void)? = nil
  ) throws

  /// The same from a file that is open already.
  public init(file: GGUFFile, configuration: EngineConfiguration = EngineConfiguration(), progress: ((Double) -> Void)? = nil) throws

  deinit

  /// Submits a request. It runs from now on, together with the others.
  ///
  /// - Throws: ``LLMError`` where the request can never run: the error names the limit and the option that moves it.
  public func generate(_ prompt: Prompt, sampling: SamplingParams = SamplingParams()) throws -> Generation

  /// Submits many requests at once: either all, or none and an error. They may share steps from the first on.
  public func generate(_ prompts: [Prompt], sampling: SamplingParams = SamplingParams()) throws -> [Generation]

  /// log p(token i + 1 | tokens 0…i) in nats for every i: one value less than tokens. For perplexity.
  public func score(_ tokenIDs: [Int]) async throws -> [Float]

  /// The tokens that a prompt becomes, as ``generate(_:sampling:)-`` would submit it.
  public func tokenIDs(of prompt: Prompt) throws -> [Int]

  /// A look at the engine between two steps.
  public var statistics: EngineStatistics { get }

  /// Takes no more requests, finishes those that were submitted, and returns when the engine's thread has ended.
  public func shutdown() async
}
