// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import MartletTemplates

/// What `martlet bench serve` found. Times are in seconds.
package struct ServeBenchReport: Encodable, Sendable {
  /// One request, as its client saw it. Times are from when it was to be sent.
  package struct Sample: Sendable, Hashable {
    /// When it was to be sent, since the beginning.
    package var began = 0.0
    package var ended: Double
    package var timeToFirstToken: Double?
    package var betweenEvents: [Double] = []
    /// Events with text in them, and when the last one came.
    package var events = 0
    package var lastEvent: Double?
    /// What the server says it took.
    package var promptTokens: Int?
    package var cachedTokens: Int?
    package var completionTokens: Int?
    /// Why it is no answer: a word for its kind, and what the server said.
    package var failure: String?
    package var message: String?

    package init(ended: Double) { self.ended = ended }

    mutating func add(usage: JSON?) {
      guard let usage, !usage.isNull else { return }
      promptTokens = usage["prompt_tokens"]?.wholeNumber ?? promptTokens
      completionTokens = usage["completion_tokens"]?.wholeNumber ?? completionTokens
      cachedTokens = usage["prompt_tokens_details"]?["cached_tokens"]?.wholeNumber ?? cachedTokens
    }
  }

  package var url: String
  package var model: String
  package var seed: UInt64
  /// How the prompts went over: `token_ids`, `exact_text` or `words`.
  package var prompts: String
  package var requests: Int
  package var completed: Int
  /// How many failed, by how.
  package var errors: [String: Int]
  /// What the server said to the first of each kind.
  package var errorMessages: [String: String]
  /// From when the first was to be sent to the end of the last.
  package var seconds: Double
  package var promptTokens: Int
  package var cachedTokens: Int
  package var generatedTokens: Int
  /// Whether tokens are the server's own numbers for all answers; where it gave none, events with text are counted, and prompts as they were meant.
  package var tokensAreServers: Bool
  /// Of the answers; fewer than tokens where a server joins tokens or holds back text.
  package var events: Int
  package var requestRate: Double
  package var promptRate: Double
  package var generationRate: Double
  package var timeToFirstToken: Percentiles?
  /// Between two events with text, and of each answer its mean between two tokens.
  package var interTokenTime: Percentiles?
  package var timePerOutputToken: Percentiles?
  package var latency: Percentiles?
  /// Of the processors, what measuring took meanwhile.
  package var clientSeconds: Double

  /// - Parameters:
  ///   - promptTokens: what the prompts were meant to have, in the order of `samples`.
  package init(
    url: String, model: String, seed: UInt64, prompts: String, samples: [Sample], promptTokens: [Int], clientSeconds: Double
  ) {
    self.url = url
    self.model = model
    self.seed = seed
    self.prompts = prompts
    self.clientSeconds = clientSeconds
    requests = samples.count
    var (errors, messages) = ([String: Int](), [String: String]())
    for sample in samples {
      guard let failure = sample.failure else { continue }
      errors[failure, default: 0] += 1
      messages[failure] = messages[failure] ?? sample.message
    }
    (self.errors, errorMessages) = (errors, messages)
    let answers = zip(samples, promptTokens).filter { $0.0.failure == nil }
    completed = answers.count
    let first = samples.map(\.began).min() ?? 0
    seconds = (samples.map { $0.began + $0.ended }.max() ?? 0) - first
    self.promptTokens = answers.reduce(0) { $0 + ($1.0.promptTokens ?? $1.1) }
    cachedTokens = answers.reduce(0) { $0 + ($1.0.cachedTokens ?? 0) }
    generatedTokens = answers.reduce(0) { $0 + ($1.0.completionTokens ?? $1.0.events) }
    tokensAreServers = answers.allSatisfy { $0.0.completionTokens != nil && $0.0.promptTokens != nil }
    events = answers.reduce(0) { $0 + $1.0.events }
    let time = Swift.max(seconds, 1e-9)
    requestRate = Double(completed) / time
    promptRate = Double(self.promptTokens) / time
    generationRate = Double(generatedTokens) / time
    timeToFirstToken = Percentiles(answers.compactMap(\.0.timeToFirstToken))
    interTokenTime = Percentiles(answers.flatMap(\.0.betweenEvents))
    timePerOutputToken = Percentiles(
      answers.compactMap { sample, _ in
        guard let first = sample.timeToFirstToken, let last = sample.lastEvent else { return nil }
        let tokens = sample.completionTokens ?? sample.events
        return tokens > 1 ? (last - first) / Double(tokens - 1) : nil
      })
    latency = Percentiles(answers.map(\.0.ended))
  }

  enum CodingKeys: String, CodingKey {
    case url, model, seed, prompts, requests, completed, errors, seconds, events
    case errorMessages = "error_messages"
    case promptTokens = "prompt_tokens"
    case cachedTokens = "cached_prompt_tokens"
    case generatedTokens = "generated_tokens"
    case tokensAreServers = "tokens_from_usage"
    case requestRate = "requests_per_s"
    case promptRate = "prompt_tokens_per_s"
    case generationRate = "generated_tokens_per_s"
    case timeToFirstToken = "time_to_first_token_s"
    case interTokenTime = "inter_token_time_s"
    case timePerOutputToken = "time_per_output_token_s"
    case latency = "latency_s"
    case clientSeconds = "client_cpu_s"
  }

  /// A table.
  package var text: String {
    func number(_ value: Double, _ digits: Int) -> String { String(format: "%.\(digits)f", value) }
    func column(_ text: String) -> String { String(repeating: " ", count: Swift.max(12 - text.count, 1)) + text }
    func row(_ name: String, _ values: Percentiles?) -> String {
      let cells = values.map { [$0.p50, $0.p90, $0.p99, $0.max].map { column(number($0 * 1000, 1)) }.joined() } ?? column("–")
      return name + String(repeating: " ", count: 28 - name.count) + cells + "\n"
    }
    var text = "\(model) at \(url), prompts as \(prompts.replacingOccurrences(of: "_", with: " "))\n"
    text += "\(completed) of \(requests) requests, \(promptTokens) prompt and \(generatedTokens) generated tokens"
    text += (tokensAreServers ? "" : " (counted here)") + " in \(number(seconds, 2)) s: \(number(requestRate, 2)) requests/s, "
    text += "\(number(promptRate, 1)) prompt tokens/s, \(number(generationRate, 1)) generated tokens/s\n"
    for (kind, count) in errors.sorted(by: { $0.value > $1.value || $0.value == $1.value && $0.key < $1.key }) {
      text += "\(count) failed: \(kind)" + (errorMessages[kind].map { " (\($0))" } ?? "") + "\n"
    }
    text += "\n" + String(repeating: " ", count: 28) + ["p50", "p90", "p99", "max"].map(column).joined() + "\n"
    text += row("time to first token, ms", timeToFirstToken)
    text += row("between events, ms", interTokenTime)
    text += row("mean between tokens, ms", timePerOutputToken)
    text += row("end to end, ms", latency)
    text += "\n\(events) events with text; \(cachedTokens) prompt tokens came from the server's cache; "
    text += "measuring took \(number(clientSeconds, 2)) s of a processor\n"
    return text
  }
}
