// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import Martlet

/// A loaded model that runs what another program asks for and sleeps in between: so programs are measured in turns.
struct ModelBenchTurns {
  /// A line of standard input.
  private struct Order: Decodable {
    var run: String
  }

  /// A line of standard output. Times are in seconds.
  private struct Answer: Encodable {
    /// How long loading took: the first line, before any order.
    var loadSeconds: Double?
    /// From the submission to the last token.
    var seconds: Double?
    var timeToFirstToken: Double?
    /// From when every request had its first token to the last one, and the tokens that came then.
    var generationSeconds: Double?
    var generatedTokens: Int?
    /// Why it was not run.
    var error: String?

    enum CodingKeys: String, CodingKey {
      case seconds, error
      case loadSeconds = "load_s"
      case timeToFirstToken = "time_to_first_token_s"
      case generationSeconds = "generation_s"
      case generatedTokens = "tokens_after_first"
    }
  }

  let plan: ModelBenchPlan
  let device: ProcessorOptions

  /// Runs until standard input ends.
  func run(path: String) async throws {
    let began = ContinuousClock.now
    let llm = try await LLM.load(model: path, configuration: plan.configuration(device: device.makeDevice()))
    try Terminal.writeJSON(Answer(loadSeconds: (ContinuousClock.now - began).seconds))
    let timer = ModelRunTimer(llm: llm, seed: plan.seed)
    var series = 0
    while let line = readLine() {
      try Task.checkCancellation()
      series += 1
      try Terminal.writeJSON(try await answer(line, timer, series: series))
    }
    await llm.shutdown()
  }

  private func answer(_ line: String, _ timer: ModelRunTimer, series: Int) async throws -> Answer {
    guard let order = try? JSONDecoder().decode(Order.self, from: Data(line.utf8)), let workload = ModelWorkload(order.run) else {
      return Answer(error: "\(line) is no order; one looks like {\"run\": \"8x128+64\"}")
    }
    do {
      let sample = try await timer.run(workload, series: series)
      return Answer(
        seconds: sample.end, timeToFirstToken: sample.firstToken, generationSeconds: sample.generationSeconds,
        generatedTokens: sample.tokensAfterFirst)
    } catch let error as LLMError {
      return Answer(error: words(of: error))
    }
  }
}
