// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import MartletTestSupport
import Testing

/// `martlet bench engine` on the real default model.
@Suite(.serialized) struct BenchEngineTests {
  struct Report: Decodable {
    struct Percentiles: Decodable {
      var p50: Double
      var p90: Double
      var p99: Double
      var max: Double

      var isOrdered: Bool { 0 <= p50 && p50 <= p90 && p90 <= p99 && p99 <= max }
    }
    struct Pool: Decodable {
      var pages: Int
      var peak_pages: Int
    }
    var requests: Int
    var seconds: Double
    var prompt_tokens: Int
    var generated_tokens: Int
    var requests_per_s: Double
    var prompt_tokens_per_s: Double
    var generated_tokens_per_s: Double
    var time_to_first_token_s: Percentiles
    var inter_token_time_s: Percentiles
    var latency_s: Percentiles
    var prefix_hit_rate: Double
    var pauses: Int
    var steps: Int
    var tokens_per_step: Double
    var step_s: Double
    var model_share: Double
    var sampling_share: Double
    var overhead_share: Double
    var pools: [Pool]
  }

  private let model: String

  init() async throws { model = try await RealModelFile.path("smollm2-135m") }

  @Test func `JSON has rates, percentiles and the loop's numbers, and they agree with each other`() throws {
    let result = try CommandLine.run([
      "bench", "engine", "--model", model, "--requests", "6", "--prompt-tokens", "8..24", "--output-tokens", "4..8",
      // On a busy machine steps are slow, and prompts would come in pieces.
      "--step-time", "0", "--json",
    ])
    #expect(result.status == 0, "\(result.error)")
    let report = try result.json(Report.self)
    #expect(report.requests == 6)
    #expect((48...144).contains(report.prompt_tokens) && (24...48).contains(report.generated_tokens))
    for percentiles in [report.time_to_first_token_s, report.inter_token_time_s, report.latency_s] { #expect(percentiles.isOrdered) }
    #expect(report.time_to_first_token_s.p50 > 0 && report.latency_s.max <= report.seconds * 1.001)
    #expect(abs(report.generated_tokens_per_s * report.seconds - Double(report.generated_tokens)) < 1e-6 * Double(report.generated_tokens))
    #expect(abs(report.prompt_tokens_per_s * report.seconds - Double(report.prompt_tokens)) < 1e-6 * Double(report.prompt_tokens))
    #expect(abs(report.requests_per_s * report.seconds - 6) < 1e-5)
    #expect(abs(report.model_share + report.sampling_share + report.overhead_share - 1) < 1e-9)
    #expect(report.model_share > 0.5 && report.overhead_share > 0)
    // All fit one step: the answers' tokens after the first take as many steps as the longest has, and a few more where the engine began before all
    // had come.
    #expect((4...13).contains(report.steps) && report.pauses == 0)
    #expect(abs(report.tokens_per_step * Double(report.steps) - Double(report.prompt_tokens + report.generated_tokens - 6)) < 1e-6)
    #expect(report.pools.count == 1 && report.pools[0].peak_pages >= 6 && report.pools[0].peak_pages <= report.pools[0].pages)
  }

  @Test func `a prefix that all share is found, and arrivals are waited for`() throws {
    let result = try CommandLine.run([
      "bench", "engine", "--model", model, "--requests", "5", "--rate", "4", "--prompt-tokens", "4", "--output-tokens", "2",
      "--shared-prefix-tokens", "64", "--capacity-policy", "max-utilization", "--json",
    ])
    let report = try result.json(Report.self)
    #expect(report.prompt_tokens == 5 * 68 && report.generated_tokens == 10)
    // Two pages of 32 tokens of each but the first, if those before have been read when it comes.
    #expect(report.prefix_hit_rate > 0.1 && report.prefix_hit_rate <= 4 * 64 / 340.0)
    #expect(report.seconds > 0.05)
  }

  @Test func `a table is for people`() throws {
    let result = try CommandLine.run([
      "bench", "engine", "--model", model, "--requests", "2", "--prompt-tokens", "4", "--output-tokens", "2",
    ])
    #expect(result.status == 0, "\(result.error)")
    for words in ["time to first token, ms", "p99", "2 requests, 8 prompt and 4 generated tokens", "overhead of the loop", "pages held"] {
      #expect(result.output.contains(words), "\(result.output)")
    }
  }

  @Test func `what cannot work is said`() throws {
    let cases: [(arguments: [String], words: [String])] = [
      (["--rate", "0"], ["--rate", "above 0"]),
      (["--prompt-tokens", "9..3"], ["9..3"]),
      (["--shared-prefix-share", "2"], ["between 0 and 1"]),
      (["--batch-size", "600", "--step-tokens", "100"], ["--step-tokens", "600"]),
      (["--batch-size", "1048577"], ["--batch-size is 1048577", "1048576"]),
    ]
    for (arguments, words) in cases {
      let result = try CommandLine.run(["bench", "engine"] + arguments)
      #expect(result.status == 64)
      for word in words { #expect(result.error.contains(word), "\(result.error)") }
    }
  }
}
