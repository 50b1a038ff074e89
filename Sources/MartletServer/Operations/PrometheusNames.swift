// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
import Martlet

/// Whose names the engine's numbers have in `/metrics`: Martlet's own, and those of other servers, so that dashboards made for them show something.
///
/// What another server counts and Martlet does not know is left out, never guessed:
///
/// | names | what is left out |
/// |---|---|
/// | `vllm` | `admission_rejections_total` (refusals are answers of the class 5xx in `martlet_http_requests_total`), and what belongs to speculation, adapters, images, transfers and sleep |
/// | `llamacpp` | `n_tokens_max`, `n_busy_slots_per_decode`, and what belongs to speculation |
/// | `trtllm` | `kv_cache_reused_blocks_total` and `kv_cache_missed_blocks_total` (the engine counts tokens), `num_paused_requests` |
///
/// A request that ran out of time counts as `length`, as its answer says; one whose client has gone as `abort`.
public struct PrometheusNames: Sendable, Hashable {
  /// One server's names.
  enum Dialect: String, Sendable, CaseIterable {
    case martlet, vllm, llamacpp, trtllm

    var prefix: String {
      switch self {
      case .martlet: "martlet_"
      case .vllm: "vllm:"
      case .llamacpp: "llamacpp:"
      case .trtllm: "trtllm_"
      }
    }

    func labels(modelName: String) -> [(String, String)] {
      switch self {
      case .martlet, .llamacpp: []
      case .vllm: [("engine", "0"), ("model_name", modelName)]
      case .trtllm: [("model_name", modelName)]
      }
    }
  }

  private let dialects: Set<Dialect>

  /// Martlet's and vLLM's.
  public static let `default` = PrometheusNames(dialects: [.martlet, .vllm])

  private init(dialects: Set<Dialect>) { self.dialects = dialects }

  /// - Parameter list: some of `martlet`, `vllm`, `llamacpp` and `trtllm`, with commas between them.
  /// - Throws: ``PrometheusNamesError`` for anything else.
  public init(_ list: String) throws(PrometheusNamesError) {
    var dialects: Set<Dialect> = []
    for element in list.split(separator: ",", omittingEmptySubsequences: false) {
      let name = element.drop { $0 == " " }.reversed().drop { $0 == " " }.reversed()
      guard let dialect = Dialect(rawValue: String(name)) else { throw PrometheusNamesError(name: String(name)) }
      dialects.insert(dialect)
    }
    self.dialects = dialects
  }

  func contains(_ dialect: Dialect) -> Bool { dialects.contains(dialect) }
}

/// There are no such names of metrics.
public struct PrometheusNamesError: Error, Sendable, Hashable, CustomStringConvertible {
  /// What was asked for.
  public var name: String

  public var description: String {
    let known = PrometheusNames.Dialect.allCases.map(\.rawValue).joined(separator: ", ")
    return "metrics have no names \"\(name)\"; there are \(known), with commas between them"
  }
}

/// A name that another server has for something that Martlet knows.
struct PrometheusAlias: Sendable {
  /// Finds one of Martlet's own histograms by its name.
  typealias Histograms = (String) -> HistogramSeries.Values?

  enum Value: Sendable {
    case number(@Sendable (EngineStatistics, Histograms) -> Double?)
    /// One of Martlet's own under another name.
    case histogram(String)
    /// How many requests ended, by how they did.
    case ends
  }

  let name: String
  let kind: PrometheusRegistry.Kind
  let help: String
  let value: Value

  /// vLLM's words for an end.
  static let reasons: [(String, [EngineStatistics.End])] = [
    ("stop", [.endToken, .stopString, .embedded]), ("length", [.length, .deadline, .scored]), ("abort", [.cancelled]), ("error", [.failed]),
  ]

  static let table: [PrometheusNames.Dialect: [PrometheusAlias]] = [.vllm: vllm, .llamacpp: llamacpp, .trtllm: trtllm]

  private static func counter(_ name: String, _ help: String, _ value: @escaping @Sendable (EngineStatistics) -> Int) -> PrometheusAlias {
    PrometheusAlias(name: name, kind: .counter, help: help, value: .number { statistics, _ in Double(value(statistics)) })
  }

  private static func gauge(_ name: String, _ help: String, _ value: @escaping @Sendable (EngineStatistics) -> Double) -> PrometheusAlias {
    PrometheusAlias(name: name, kind: .gauge, help: help, value: .number { statistics, _ in value(statistics) })
  }

  private static func histogram(_ name: String, _ help: String, _ own: String) -> PrometheusAlias {
    PrometheusAlias(name: name, kind: .histogram, help: help, value: .histogram(own))
  }

  /// The names of vLLM 0.33.
  private static let vllm: [PrometheusAlias] = [
    gauge("num_requests_running", "Requests that hold pages of the cache.") { Double($0.runningRequests) },
    gauge("num_requests_waiting", "Requests that wait.") { Double($0.waitingRequests) },
    gauge("kv_cache_usage_perc", "The share of the cache's pages that requests hold, 0 to 1.", \.heldShare),
    counter("prompt_tokens_total", "Tokens of prompts, cached ones included.", \.admittedPromptTokens),
    counter("generation_tokens_total", "Tokens of answers.", \.generatedTokens),
    counter("prefix_cache_queries_total", "Tokens of prompts that were looked for in the cache.", \.admittedPromptTokens),
    counter("prefix_cache_hits_total", "Tokens of prompts that were in the cache.", \.cachedPromptTokens),
    counter("num_preemptions_total", "How often a request paused to make room.", \.pauses),
    PrometheusAlias(name: "request_success_total", kind: .counter, help: "Requests that ended, by how they did.", value: .ends),
    histogram("time_to_first_token_seconds", "From a request's submission to its first token.", "martlet_time_to_first_token_seconds"),
    histogram("inter_token_latency_seconds", "Between two tokens of one request.", "martlet_inter_token_time_seconds"),
    histogram(
      "request_time_per_output_token_seconds", "Between the tokens of one request, on average.", "martlet_time_per_output_token_seconds"),
    histogram("e2e_request_latency_seconds", "From a request's submission to its last token.", "martlet_request_time_seconds"),
    histogram("request_queue_time_seconds", "From a request's submission to its first step.", "martlet_queue_time_seconds"),
    histogram("request_prefill_time_seconds", "From a request's first step to its first token.", "martlet_prefill_time_seconds"),
    histogram("request_decode_time_seconds", "From a request's first token to its last.", "martlet_decode_time_seconds"),
    histogram("request_inference_time_seconds", "From a request's first step to its last token.", "martlet_inference_time_seconds"),
    histogram("request_prompt_tokens", "Tokens of a request's prompt.", "martlet_request_prompt_tokens"),
    histogram("request_generation_tokens", "Tokens of a request's answer.", "martlet_request_generated_tokens"),
    histogram("iteration_tokens_total", "Tokens of a step.", "martlet_step_tokens"),
  ]

  /// The names of llama.cpp's server; the two speeds are means since the start, where that server's are those since the last look.
  /// `kv_cache_usage_ratio`, which it has no more, is still on dashboards.
  private static let llamacpp: [PrometheusAlias] = [
    counter("prompt_tokens_total", "Tokens of prompts that were computed.", \.promptTokens),
    counter("prompt_tokens_cached_total", "Tokens of prompts that were in the cache.", \.cachedPromptTokens),
    PrometheusAlias(
      name: "prompt_seconds_total", kind: .counter, help: "Time of prompts, over all requests.",
      value: .number { $1("martlet_prefill_time_seconds")?.sum }),
    counter("tokens_predicted_total", "Tokens of answers.", \.generatedTokens),
    PrometheusAlias(
      name: "tokens_predicted_seconds_total", kind: .counter, help: "Time of answers, over all requests.",
      value: .number { $1("martlet_decode_time_seconds")?.sum }),
    counter("n_decode_total", "Steps.", \.steps),
    PrometheusAlias(
      name: "prompt_tokens_seconds", kind: .gauge, help: "Tokens of prompts by their time.",
      value: .number { rate($1("martlet_request_prompt_tokens")?.sum, $1("martlet_prefill_time_seconds")?.sum) }),
    PrometheusAlias(
      name: "predicted_tokens_seconds", kind: .gauge, help: "Tokens of answers by their time.",
      value: .number { rate($1("martlet_request_generated_tokens")?.sum, $1("martlet_decode_time_seconds")?.sum) }),
    gauge("requests_processing", "Requests that hold pages of the cache.") { Double($0.runningRequests) },
    gauge("requests_deferred", "Requests that wait.") { Double($0.waitingRequests) },
    gauge("kv_cache_usage_ratio", "The share of the cache's pages that requests hold, 0 to 1.", \.heldShare),
  ]

  /// The names of TensorRT-LLM. Blocks are the pages of all pools; those that are kept for requests that begin alike are free, as there.
  private static let trtllm: [PrometheusAlias] = [
    PrometheusAlias(name: "request_success_total", kind: .counter, help: "Requests that ended, by how they did.", value: .ends),
    histogram("e2e_request_latency_seconds", "From a request's submission to its last token.", "martlet_request_time_seconds"),
    histogram("time_to_first_token_seconds", "From a request's submission to its first token.", "martlet_time_to_first_token_seconds"),
    histogram(
      "time_per_output_token_seconds", "Between the tokens of one request, on average.", "martlet_time_per_output_token_seconds"),
    histogram("request_queue_time_seconds", "From a request's submission to its first step.", "martlet_queue_time_seconds"),
    gauge("kv_cache_utilization", "The share of the cache's pages that requests hold, 0 to 1.", \.heldShare),
    gauge("kv_cache_hit_rate", "The share of prompts' tokens that was in the cache.", \.prefixHitRate),
    gauge("kv_cache_max_blocks", "Pages of the cache.") { Double($0.pools.reduce(0) { $0 + $1.totalPages }) },
    gauge("kv_cache_free_blocks", "Pages that no request holds.") { Double($0.pools.reduce(0) { $0 + $1.totalPages - $1.heldPages }) },
    gauge("kv_cache_used_blocks", "Pages that requests hold.") { Double($0.pools.reduce(0) { $0 + $1.heldPages }) },
    gauge("num_requests_running", "Requests that hold pages of the cache.") { Double($0.runningRequests) },
    gauge("num_requests_waiting", "Requests that wait.") { Double($0.waitingRequests) },
    gauge("num_context_requests", "Requests whose prompts were in the last step.") { Double($0.lastContexts) },
    gauge("num_generation_requests", "Requests whose answers were in the last step.") { Double($0.lastGenerations) },
    gauge("num_scheduled_requests", "Requests in the last step.") { Double($0.lastContexts + $0.lastGenerations) },
  ]

  private static func rate(_ amount: Double?, _ seconds: Double?) -> Double? {
    guard let amount, let seconds else { return nil }
    return seconds > 0 ? amount / seconds : 0
  }
}

extension EngineStatistics {
  /// Of the pool that is fullest.
  fileprivate var heldShare: Double { pools.map { $0.totalPages == 0 ? 0 : Double($0.heldPages) / Double($0.totalPages) }.max() ?? 0 }
}
#endif
