// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer

/// The upper bounds of histograms. Those of vLLM where it has the same thing, so that its dashboards fit, with finer ones below: a small model's
/// token takes less than the 10 ms that vLLM's begin with.
enum PrometheusBuckets {
  static func bounds(_ name: String) -> [Double] {
    if let known = table[name] { return known }
    return name.hasSuffix("_seconds") ? latency : tokens
  }

  private static let firstToken = [
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560,
  ]
  private static let betweenTokens = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80,
  ]
  private static let latency = [
    0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920,
    7680,
  ]
  private static let tokens: [Double] = [
    1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000,
  ]
  private static let stepTokens: [Double] = [1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384]

  private static let table = [
    "martlet_time_to_first_token_seconds": firstToken, "martlet_inter_token_time_seconds": betweenTokens,
    "martlet_time_per_output_token_seconds": betweenTokens, "martlet_step_time_seconds": betweenTokens, "martlet_step_tokens": stepTokens,
  ]
}

/// What names mean.
enum PrometheusHelp {
  static func text(_ name: String, label: String) -> String { table[name] ?? "What the program calls \(label)." }

  private static let table = [
    "martlet_steps_total": "Steps: forward passes over some tokens of some requests.",
    "martlet_prompt_tokens_total":
      "Tokens of prompts that were computed: without what was cached, with what was computed again after a pause.",
    "martlet_generated_tokens_total": "Tokens of answers.",
    "martlet_cached_prompt_tokens_total": "Tokens of admitted prompts that were in the cache.",
    "martlet_pauses_total": "How often a request paused to make room for older ones.",
    "martlet_requests_total": "Requests that ended, by how they did.",
    "martlet_running_requests": "Requests that hold pages of the cache.",
    "martlet_waiting_requests": "Requests that wait to begin or to go on.",
    "martlet_free_pages": "Pages of the cache with nothing in them, by pool.",
    "martlet_cached_pages": "Pages that no request holds, kept for requests that begin alike, by pool.",
    "martlet_held_pages": "Pages that requests hold, by pool.",
    "martlet_step_tokens": "Tokens of a step.",
    "martlet_step_time_seconds": "What a step takes.",
    "martlet_time_to_first_token_seconds": "From a request's submission to its first token.",
    "martlet_inter_token_time_seconds": "Between two tokens of one request.",
    "martlet_queue_time_seconds": "From a request's submission to its first step.",
    "martlet_prefill_time_seconds": "From a request's first step to its first token.",
    "martlet_decode_time_seconds": "From a request's first token to its last.",
    "martlet_inference_time_seconds": "From a request's first step to its last token.",
    "martlet_request_time_seconds": "From a request's submission to its last token.",
    "martlet_time_per_output_token_seconds": "Between the tokens of one request, on average.",
    "martlet_request_prompt_tokens": "Tokens of a request's prompt.",
    "martlet_request_generated_tokens": "Tokens of a request's answer.",
    "martlet_http_active_requests": "HTTP requests that are being answered.",
    "martlet_http_requests_total": "HTTP requests that were answered, by route and class of status.",
    "martlet_http_request_time_seconds": "From a HTTP request's head to the end of its answer, by route.",
  ]
}
#endif
