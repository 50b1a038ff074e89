// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import Logging
public import MartletAttention
public import MartletCore
public import MartletKVCache
public import MartletModels
public import MartletTokenizers
public import Metrics

/// Everything an engine needs besides the model file. Nothing is looked up elsewhere: no environment, no global.
public struct EngineConfiguration: Sendable {
  /// The most tokens of one request, prompt and answer, when nobody says otherwise and the model can do more.
  public static let defaultMaxSequenceLength = 8192
  /// The most that ``maxNumTokens`` can be: rows of queries are counted in 32 bits.
  static let mostNumTokens = 1 << 20
  /// The same of a text whose vector is asked for. A text is read in one step, so that working memory grows with it.
  public static let defaultMaxEmbeddingLength = 2048

  /// nil makes a `CPUDevice` with the best instruction set and all threads that the process may use.
  public var device: (any Device)?
  /// By name, in any case.
  public var attentionBackend: String
  public var attentionBackends: AttentionBackendRegistry
  public var models: ModelRegistry
  /// How keys and values are cached.
  public var kvCache: KVCacheConfig
  /// How attention's layers are quantised beyond that: scales of e4m3 keys and values, queries in e4m3. Models take attention's output as
  /// floats: `fp8Output` must be false.
  public var quantConfig: QuantConfig
  /// How products round the rows that they multiply with weights; a device says which it has (`Device.activations`). With each, no token depends on
  /// anything but its request; answers of two of them differ by rounding. Routers of experts are `exact` whatever it says.
  public var activations: Activations
  /// In which form models with latent attention (MLA) read prompts. `absorbed` keeps the law of one arithmetic. `expanded` takes fewer operations for long
  /// chunks of prompts and leaves that law, because there then are two: with it tokens depend, by rounding, on the chunks in which a prompt is read, and so
  /// on the step's other requests (`LatentPrompts`). It takes memory for a second copy of one matrix of each layer, and for keys and values of some heads
  /// of the longest sequence, which is counted before a weight is read. Other models refuse it, and so do engines that make vectors.
  public var latentPrompts: LatentPrompts
  /// The most tokens of one request, prompt and answer; nil is the model's context length, at most ``defaultMaxSequenceLength``, or
  /// ``defaultMaxEmbeddingLength`` where the model makes vectors.
  public var maxSequenceLength: Int?
  /// The most requests in one step.
  public var maxBatchSize: Int
  /// The most tokens in one step. Working memory grows with it.
  public var maxNumTokens: Int
  /// The most tokens of one prompt in one step; nil is as many as fit and as ``targetStepTime`` allows.
  public var chunkSize: Int?
  /// What a step may take while somebody's answer is generated; nil sets no limit. Prompts that arrive meanwhile are computed in chunks that this
  /// machine can do in the time, and of at least eight tokens; so answers flow on, and cancellations, deadlines and new requests are seen
  /// within a step. Where the prompts that wait would take long, more than a second by default, a step may take longer, up to 1.6 times this,
  /// until they are read: a stream then comes a little slower, and a prompt, of which a step otherwise reads little beside the answers, much sooner.
  /// While nobody generates, a step takes as many tokens as ``maxNumTokens`` allows. No token depends on it.
  public var targetStepTime: Duration?
  /// The most requests that may wait to begin, or to go on after a pause; more are refused (``LLMError/Code/overloaded``). nil sets no limit. A call that submits several
  /// requests at once is taken or refused as a whole. Every request waits until the next step, also where there is room for it: allow for as many as may come in one.
  public var maxWaitingRequests: Int?
  /// The most tokens that the prompts of waiting requests may have together; nil sets no limit.
  public var maxWaitingTokens: Int?
  /// Whether requests that run may have to pause.
  public var capacityPolicy: CapacityPolicy
  /// Makes the model answer with vectors, pooled in this way; nil is as its files say, which for most models is not at all. An engine either writes text or makes
  /// vectors; one that makes them has no cache, and a step holds a whole text at least, whatever ``maxNumTokens`` says.
  public var pooling: Pooling?
  /// How conversations are written; nil is as the model's file says.
  public var chatTemplate: ChatTemplate?
  /// The most bytes that are kept to know which tokens answers were (``Generation/remember(_:tokenIDs:finishReason:)``); 0 keeps none. What was of
  /// use longest ago goes first.
  public var rememberedAnswers: Int
  /// Receives what is worth telling; nil is silence. The engine never makes a logger of its own.
  public var logger: Logger?
  /// Receives what the engine counts and measures; nil is none. Counters: `martlet_steps_total`, `martlet_prompt_tokens_total`,
  /// `martlet_cached_prompt_tokens_total` (of admitted prompts, what was in the cache), `martlet_generated_tokens_total`,
  /// `martlet_pauses_total`, and `martlet_requests_total` with the dimension `end` (a raw value of ``EngineStatistics/End``). Gauges:
  /// `martlet_running_requests`, `martlet_waiting_requests`, and with the dimension `pool` (a place in ``EngineStatistics/pools``)
  /// `martlet_free_pages`, `martlet_cached_pages`, `martlet_held_pages`. A recorder: `martlet_step_tokens`, the tokens of a step. Timers:
  /// `martlet_step_time`, `martlet_time_to_first_token` (from the submission on), `martlet_inter_token_time` (between two tokens of one
  /// request). Of every request that ends and has at least one token, the timers `martlet_queue_time` (submission to first step),
  /// `martlet_prefill_time` (to the first token), `martlet_decode_time` (first token to last), `martlet_inference_time` (first step to last
  /// token), `martlet_request_time` (submission to last token) and `martlet_time_per_output_token` (their mean), and the recorders
  /// `martlet_request_prompt_tokens` and `martlet_request_generated_tokens`.
  public var metricsFactory: (any MetricsFactory)?
  /// What deadlines and measured times go by.
  public var clock: any Clock<Duration>
  /// Told of the steps of an engine that writes text; nil asks nobody.
  package var stepObserver: (any StepObserver)?

  public init(
    device: (any Device)? = nil, attentionBackend: String = "TRTLLM", attentionBackends: AttentionBackendRegistry = .builtIn,
    models: ModelRegistry = .builtIn, kvCache: KVCacheConfig = KVCacheConfig(), quantConfig: QuantConfig = QuantConfig(),
    activations: Activations = .exact, latentPrompts: LatentPrompts = .absorbed, maxSequenceLength: Int? = nil, maxBatchSize: Int = 16,
    maxNumTokens: Int = 512, chunkSize: Int? = nil, targetStepTime: Duration? = .milliseconds(100), maxWaitingRequests: Int? = nil,
    maxWaitingTokens: Int? = nil, capacityPolicy: CapacityPolicy = .guaranteedNoEvict, pooling: Pooling? = nil,
    chatTemplate: ChatTemplate? = nil,
    rememberedAnswers: Int = 1 << 24, logger: Logger? = nil, metricsFactory: (any MetricsFactory)? = nil,
    clock: any Clock<Duration> = ContinuousClock()
  ) {
    self.device = device
    self.attentionBackend = attentionBackend
    self.attentionBackends = attentionBackends
    self.models = models
    self.kvCache = kvCache
    self.quantConfig = quantConfig
    self.activations = activations
    self.latentPrompts = latentPrompts
    self.maxSequenceLength = maxSequenceLength
    self.maxBatchSize = maxBatchSize
    self.maxNumTokens = maxNumTokens
    self.chunkSize = chunkSize
    self.targetStepTime = targetStepTime
    self.maxWaitingRequests = maxWaitingRequests
    self.maxWaitingTokens = maxWaitingTokens
    self.capacityPolicy = capacityPolicy
    self.pooling = pooling
    self.chatTemplate = chatTemplate
    self.rememberedAnswers = rememberedAnswers
    self.logger = logger
    self.metricsFactory = metricsFactory
    self.clock = clock
  }

  /// - Throws: ``LLMError/Code/invalidConfiguration`` for the first limit that cannot work.
  func validate() throws(LLMError) {
    func check(_ holds: Bool, _ option: String, _ value: Int, _ reason: String) throws(LLMError) {
      if !holds { throw .invalidConfiguration(option: option, value: "\(value)", reason: reason) }
    }
    if quantConfig.fp8Output {
      throw .invalidConfiguration(
        option: "quantConfig.fp8Output", value: "true", reason: "models read attention's output as floats; leave it false")
    }
    try check(maxBatchSize >= 1, "maxBatchSize", maxBatchSize, "at least one request must fit a step")
    try check(
      maxNumTokens >= maxBatchSize, "maxNumTokens", maxNumTokens,
      "a step must hold one token of each of maxBatchSize = \(maxBatchSize) requests")
    try check(maxNumTokens <= Self.mostNumTokens, "maxNumTokens", maxNumTokens, "a step holds at most \(Self.mostNumTokens) tokens")
    try check(chunkSize ?? 1 >= 1, "chunkSize", chunkSize ?? 0, "a chunk holds at least one token")
    if let targetStepTime, targetStepTime <= .zero {
      throw .invalidConfiguration(option: "targetStepTime", value: "\(targetStepTime)", reason: "must be positive; nil sets no limit")
    }
    try check(maxWaitingRequests ?? 1 >= 1, "maxWaitingRequests", maxWaitingRequests ?? 0, "a request must be able to arrive")
    try check(maxWaitingTokens ?? 1 >= 1, "maxWaitingTokens", maxWaitingTokens ?? 0, "a prompt must be able to arrive")
    try check(rememberedAnswers >= 0, "rememberedAnswers", rememberedAnswers, "a number of bytes is not negative; 0 keeps no answers")
    try check(maxSequenceLength ?? 2 >= 2, "maxSequenceLength", maxSequenceLength ?? 0, "a prompt token and an answer token must fit")
  }

  /// - Parameter layers: of the model, whose attention has a cache.
  /// - Throws: ``LLMError/Code/invalidConfiguration`` for prompts that it cannot read in the form that is asked for.
  func validate(latentPromptsOf layers: [AttentionLayerSpec]) throws(LLMError) {
    guard case .expanded(let leastTokens) = latentPrompts else { return }
    func refuse(_ reason: String) throws(LLMError) {
      throw .invalidConfiguration(option: "latentPrompts", value: "\(latentPrompts)", reason: reason)
    }
    guard let mla = layers.lazy.compactMap(\.mla).first else {
      return try refuse("the model has no latent attention, or no cache of it to expand; leave it absorbed")
    }
    if let leastTokens, leastTokens < 1 { try refuse("a chunk holds at least one token") }
    if latentPrompts.leastExpandedTokens(mla) == nil {
      try refuse(
        "keys and values of this model's sizes take more operations than its latents; leave it absorbed, or say from how many tokens on")
    }
  }

  /// - Throws: ``LLMError/Code/invalidConfiguration`` for what the device that the model is to run on does not have.
  func validate(on device: any Device) throws(LLMError) {
    guard device.activations.contains(activations) else {
      let names = device.activations.map(\.rawValue).joined(separator: ", ")
      throw .invalidConfiguration(
        option: "activations", value: activations.rawValue,
        reason: "device \(device.name), \(device.summary), has no such products; choose one of those that it has (\(names))")
    }
  }
}
