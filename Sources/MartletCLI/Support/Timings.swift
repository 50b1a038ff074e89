// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation

/// Takes the times of a batch of requests that start together.
struct Stopwatch {
  private let loadTime: Duration
  private var begin = ContinuousClock.now
  private(set) var promptTokens = 0
  /// When each request's first token came.
  private var firstToken: [ContinuousClock.Instant?] = []
  private var lastToken = ContinuousClock.now
  private var tokens = 0
  /// Tokens after each request's first.
  var written: Int { tokens - firstToken.count { $0 != nil } }

  init(loadTime: Duration) { self.loadTime = loadTime }

  mutating func start(promptTokens: [Int]) {
    begin = .now
    self.promptTokens = promptTokens.reduce(0, +)
    firstToken = promptTokens.map { _ in nil }
  }

  /// - Returns: whether this was the request's first token.
  mutating func note(index: Int, tokens count: Int) -> Bool {
    guard count > 0 else { return false }
    lastToken = .now
    tokens += count
    guard firstToken[index] == nil else { return false }
    firstToken[index] = lastToken
    return true
  }

  func timings() -> Timings {
    let firsts = firstToken.compactMap { $0 }
    guard let first = firsts.min(), let last = firsts.max() else { return Timings(load: loadTime.seconds) }
    // Prompts are read until the last request has its first token; answers are written from the first first token on.
    let reading = begin.duration(to: last).seconds
    let writing = first.duration(to: lastToken).seconds
    return Timings(
      load: loadTime.seconds, timeToFirstToken: begin.duration(to: first).seconds,
      promptRate: reading > 0 ? Double(promptTokens) / reading : nil,
      generationRate: writing > 0 && written > 0 ? Double(written) / writing : nil)
  }
}

/// What `--json` calls `timings`; a rate is null where there was nothing to divide.
struct Timings: Encodable {
  /// Seconds.
  var load: Double
  /// Seconds.
  var timeToFirstToken: Double?
  /// Prompt tokens, all requests, by the time until every request had its first token.
  var promptRate: Double?
  /// Tokens after each request's first, by the time from the first token of all to the last.
  var generationRate: Double?

  enum CodingKeys: String, CodingKey {
    case load = "load_s"
    case timeToFirstToken = "time_to_first_token_s"
    case promptRate = "prompt_tokens_per_s"
    case generationRate = "generation_tokens_per_s"
  }

  /// Spelled out, because the synthesised one leaves out what is nil.
  func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(load, forKey: .load)
    try container.encode(timeToFirstToken, forKey: .timeToFirstToken)
    try container.encode(promptRate, forKey: .promptRate)
    try container.encode(generationRate, forKey: .generationRate)
  }

  /// - Parameters:
  ///   - prompt: tokens of all prompts.
  ///   - written: tokens after each request's first.
  func sentence(prompt: Int, written: Int) -> String {
    func number(_ value: Double?, _ format: String) -> String { value.map { String(format: format, $0) } ?? "–" }
    let reading = prompt >= Rates.fewestToRead ? promptRate.map { String(format: " (prompt at %.0f tokens/s)", $0) } : nil
    let writing = written >= Rates.fewestToWrite ? generationRate.map { String(format: ", then %.1f tokens/s", $0) } : nil
    return "Loaded in \(number(load, "%.2f")) s; first token after \(number(timeToFirstToken, "%.2f")) s" + (reading ?? "")
      + (writing ?? "")
      + "."
  }
}

/// Speeds as they are told to a person: only where enough was done for them to mean something.
enum Rates {
  /// A few tokens take as long as one, for the weights are read once for all of them.
  static let fewestToRead = 64
  /// Fewer come in a time in which anything else may have happened.
  static let fewestToWrite = 8

  /// Tokens a second of a prompt; nil where they say nothing.
  static func reading(tokens: Int, seconds: Double) -> Double? { tokens >= fewestToRead && seconds > 0 ? Double(tokens) / seconds : nil }

  /// Tokens a second of an answer after its first; nil where they say nothing.
  static func writing(tokens: Int, seconds: Double) -> Double? { tokens >= fewestToWrite && seconds > 0 ? Double(tokens) / seconds : nil }
}
