// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import Martlet
import MartletCore

/// What `martlet bench engine` found. Times are in seconds.
struct EngineBenchReport: Encodable, Sendable {
  /// One request, as its reader saw it.
  struct Sample: Sendable {
    var arrival: Duration
    var timeToFirstToken = 0.0
    var betweenTokens: [Double] = []
    var latency = 0.0
    var tokens = 0
    var pauses = 0
  }

  struct Pool: Encodable {
    var window: Int?
    var pages: Int
    var peakPages: Int

    enum CodingKeys: String, CodingKey {
      case window, pages
      case peakPages = "peak_pages"
    }
  }

  var model: String
  var attentionBackend: String
  var device: String
  /// How products rounded rows.
  var activations: String
  var seed: UInt64
  var requests: Int
  /// From the first arrival to the end of the last answer.
  var seconds: Double
  var promptTokens: Int
  var generatedTokens: Int
  var requestRate: Double
  /// Prompt tokens, cached or not, of all requests by the whole time.
  var promptRate: Double
  var generationRate: Double
  var timeToFirstToken: Percentiles?
  var interTokenTime: Percentiles?
  var latency: Percentiles?
  var prefixHitRate: Double
  var pauses: Int
  var steps: Int
  /// Tokens that a step computed, on average.
  var tokensPerStep: Double
  /// A step's time on average, and the shares of the model, of sampling and of everything else on the engine's thread.
  var stepSeconds: Double
  var modelShare: Double
  var samplingShare: Double
  var overheadShare: Double
  var pools: [Pool]

  init(
    model: String, attentionBackend: String, device: String, activations: Activations, seed: UInt64, trace: RequestTrace, samples: [Sample],
    before: EngineStatistics, after: EngineStatistics
  ) {
    self.model = model
    self.attentionBackend = attentionBackend
    self.device = device
    self.activations = activations.rawValue
    self.seed = seed
    requests = samples.count
    let first = trace.requests.first?.arrival ?? .zero
    seconds = (samples.map { $0.arrival.seconds + $0.latency }.max() ?? 0) - first.seconds
    promptTokens = trace.requests.reduce(0) { $0 + $1.prompt.count }
    generatedTokens = samples.reduce(0) { $0 + $1.tokens }
    let time = Swift.max(seconds, 1e-9)
    requestRate = Double(requests) / time
    promptRate = Double(promptTokens) / time
    generationRate = Double(generatedTokens) / time
    timeToFirstToken = Percentiles(samples.map(\.timeToFirstToken))
    interTokenTime = Percentiles(samples.flatMap(\.betweenTokens))
    latency = Percentiles(samples.map(\.latency))
    let asked = after.admittedPromptTokens - before.admittedPromptTokens
    prefixHitRate = asked == 0 ? 0 : Double(after.cachedPromptTokens - before.cachedPromptTokens) / Double(asked)
    pauses = after.pauses - before.pauses
    steps = after.steps - before.steps
    // A generated token is computed by the step after the one that gave it, but for the last of each answer.
    let computed = after.promptTokens - before.promptTokens + generatedTokens - requests
    tokensPerStep = Double(computed) / Double(Swift.max(steps, 1))
    let model = (after.modelTime.total - before.modelTime.total).seconds
    let sampling = (after.samplingTime.total - before.samplingTime.total).seconds
    // The first turn after the pause begins when it wakes: waiting is not in it.
    let overhead = (after.overheadTime.total - before.overheadTime.total).seconds
    let all = Swift.max(model + sampling + overhead, 1e-9)
    stepSeconds = (after.stepTime.total - before.stepTime.total).seconds / Double(Swift.max(steps, 1))
    modelShare = model / all
    samplingShare = sampling / all
    overheadShare = overhead / all
    pools = after.pools.map { Pool(window: $0.window, pages: $0.totalPages, peakPages: $0.mostHeldPages) }
  }

  enum CodingKeys: String, CodingKey {
    case model, device, activations, seed, requests, seconds, pauses, steps, pools
    case attentionBackend = "attention_backend"
    case promptTokens = "prompt_tokens"
    case generatedTokens = "generated_tokens"
    case requestRate = "requests_per_s"
    case promptRate = "prompt_tokens_per_s"
    case generationRate = "generated_tokens_per_s"
    case timeToFirstToken = "time_to_first_token_s"
    case interTokenTime = "inter_token_time_s"
    case latency = "latency_s"
    case prefixHitRate = "prefix_hit_rate"
    case tokensPerStep = "tokens_per_step"
    case stepSeconds = "step_s"
    case modelShare = "model_share"
    case samplingShare = "sampling_share"
    case overheadShare = "overhead_share"
  }

  /// A table.
  var text: String {
    func number(_ value: Double, _ digits: Int) -> String { String(format: "%.\(digits)f", value) }
    func column(_ text: String) -> String { String(repeating: " ", count: Swift.max(12 - text.count, 1)) + text }
    func row(_ name: String, _ values: Percentiles?) -> String {
      let cells = values.map { [$0.p50, $0.p90, $0.p99, $0.max].map { column(number($0 * 1000, 1)) }.joined() } ?? column("–")
      return name + String(repeating: " ", count: 28 - name.count) + cells + "\n"
    }
    var text = "\(model), \(attentionBackend), \(device), activations \(activations)\n"
    text += "\(requests) requests, \(promptTokens) prompt and \(generatedTokens) generated tokens in \(number(seconds, 2)) s: "
    text +=
      "\(number(requestRate, 2)) requests/s, \(number(promptRate, 1)) prompt tokens/s, \(number(generationRate, 1)) generated tokens/s\n\n"
    text += String(repeating: " ", count: 28) + ["p50", "p90", "p99", "max"].map(column).joined() + "\n"
    text += row("time to first token, ms", timeToFirstToken)
    text += row("between tokens, ms", interTokenTime)
    text += row("end to end, ms", latency)
    text += "\n\(steps) steps of \(number(stepSeconds * 1000, 2)) ms and \(number(tokensPerStep, 1)) tokens: "
    text += "\(number(modelShare * 100, 2)) % model, \(number(samplingShare * 100, 2)) % sampling, "
    text += "\(number(overheadShare * 100, 2)) % overhead of the loop\n"
    text += "prefix hit rate \(number(prefixHitRate * 100, 1)) %, \(pauses) pauses\n"
    for pool in pools {
      text +=
        "at most \(pool.peakPages) of \(pool.pages) pages held" + (pool.window.map { " by layers with a window of \($0)" } ?? "") + "\n"
    }
    return text
  }
}
