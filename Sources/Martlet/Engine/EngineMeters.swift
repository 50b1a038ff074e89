// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Metrics

/// The engine's numbers in the application's metrics system; the names are those of ``EngineConfiguration/metricsFactory``.
package struct EngineMeters {
  private let steps: Counter
  private let promptTokens: Counter
  private let generatedTokens: Counter
  private let cachedPromptTokens: Counter
  private let pauses: Counter
  private let running: Gauge
  private let waiting: Gauge
  private let stepTokens: Recorder
  private let stepTime: Timer
  private let timeToFirstToken: Timer
  private let interTokenTime: Timer
  private let queueTime: Timer
  private let prefillTime: Timer
  private let decodeTime: Timer
  private let inferenceTime: Timer
  private let requestTime: Timer
  private let timePerOutputToken: Timer
  private let requestPromptTokens: Recorder
  private let requestGeneratedTokens: Recorder
  private let finished: [EngineStatistics.End: Counter]
  /// Of each pool.
  private let freePages: [Gauge]
  private let cachedPages: [Gauge]
  private let heldPages: [Gauge]

  init(_ factory: any MetricsFactory, poolCount: Int) {
    func pages(_ label: String) -> [Gauge] {
      (0..<poolCount).map { Gauge(label: label, dimensions: [("pool", "\($0)")], factory: factory) }
    }
    freePages = pages("martlet_free_pages")
    cachedPages = pages("martlet_cached_pages")
    heldPages = pages("martlet_held_pages")
    cachedPromptTokens = Counter(label: "martlet_cached_prompt_tokens_total", dimensions: [], factory: factory)
    pauses = Counter(label: "martlet_pauses_total", dimensions: [], factory: factory)
    steps = Counter(label: "martlet_steps_total", dimensions: [], factory: factory)
    promptTokens = Counter(label: "martlet_prompt_tokens_total", dimensions: [], factory: factory)
    generatedTokens = Counter(label: "martlet_generated_tokens_total", dimensions: [], factory: factory)
    running = Gauge(label: "martlet_running_requests", dimensions: [], factory: factory)
    waiting = Gauge(label: "martlet_waiting_requests", dimensions: [], factory: factory)
    stepTokens = Recorder(label: "martlet_step_tokens", dimensions: [], aggregate: true, factory: factory)
    stepTime = Timer(label: "martlet_step_time", dimensions: [], factory: factory)
    timeToFirstToken = Timer(label: "martlet_time_to_first_token", dimensions: [], factory: factory)
    interTokenTime = Timer(label: "martlet_inter_token_time", dimensions: [], factory: factory)
    queueTime = Timer(label: "martlet_queue_time", dimensions: [], factory: factory)
    prefillTime = Timer(label: "martlet_prefill_time", dimensions: [], factory: factory)
    decodeTime = Timer(label: "martlet_decode_time", dimensions: [], factory: factory)
    inferenceTime = Timer(label: "martlet_inference_time", dimensions: [], factory: factory)
    requestTime = Timer(label: "martlet_request_time", dimensions: [], factory: factory)
    timePerOutputToken = Timer(label: "martlet_time_per_output_token", dimensions: [], factory: factory)
    requestPromptTokens = Recorder(label: "martlet_request_prompt_tokens", dimensions: [], aggregate: true, factory: factory)
    requestGeneratedTokens = Recorder(label: "martlet_request_generated_tokens", dimensions: [], aggregate: true, factory: factory)
    var finished: [EngineStatistics.End: Counter] = [:]
    for end in EngineStatistics.End.allCases {
      finished[end] = Counter(label: "martlet_requests_total", dimensions: [("end", end.rawValue)], factory: factory)
    }
    self.finished = finished
  }

  func step(tokens: Int, promptTokens: Int, generatedTokens: Int, time: Duration) {
    steps.increment()
    self.promptTokens.increment(by: promptTokens)
    self.generatedTokens.increment(by: generatedTokens)
    stepTokens.record(tokens)
    stepTime.recordNanoseconds(time.nanoseconds)
  }

  func requests(running: Int, waiting: Int) {
    self.running.record(running)
    self.waiting.record(waiting)
  }

  /// What the choice of a step's requests led to.
  func admitted(cachedPromptTokens: Int, pauses: Int) {
    self.cachedPromptTokens.increment(by: cachedPromptTokens)
    self.pauses.increment(by: pauses)
  }

  func pages(pool: Int, free: Int, cached: Int, held: Int) {
    freePages[pool].record(free)
    cachedPages[pool].record(cached)
    heldPages[pool].record(held)
  }

  func firstToken(after time: Duration) { timeToFirstToken.recordNanoseconds(time.nanoseconds) }
  func nextToken(after time: Duration) { interTokenTime.recordNanoseconds(time.nanoseconds) }

  /// The end of a request that has no parts.
  func end(_ end: EngineStatistics.End) { finished[end]?.increment() }

  /// A request's end. The parts of its time are told of requests that have at least one token: of others they say nothing about the engine.
  func end(_ end: EngineStatistics.End, of request: Request) {
    finished[end]?.increment()
    guard let began = request.began, let first = request.firstTokenTime, let last = request.lastTokenTime else { return }
    queueTime.recordNanoseconds((began - request.submitted).nanoseconds)
    prefillTime.recordNanoseconds((first - began).nanoseconds)
    decodeTime.recordNanoseconds((last - first).nanoseconds)
    inferenceTime.recordNanoseconds((last - began).nanoseconds)
    requestTime.recordNanoseconds((last - request.submitted).nanoseconds)
    let count = request.tokens.count - request.promptLength
    if count > 1 { timePerOutputToken.recordNanoseconds((last - first).nanoseconds / Int64(count - 1)) }
    requestPromptTokens.record(request.promptLength)
    requestGeneratedTokens.record(count)
  }
}

extension Duration {
  fileprivate var nanoseconds: Int64 { components.seconds * 1_000_000_000 + components.attoseconds / 1_000_000_000 }
}
