// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import ArgumentParser
import Martlet

/// How the next token is chosen, and when an answer ends.
struct SamplingOptions: ParsableArguments {
  @Option(help: ArgumentHelp("0 always takes the most probable token; higher is more varied.", valueName: "t"))
  var temperature: Float = 0

  @Option(name: .customLong("top-k"), help: ArgumentHelp("Draw from the k most probable tokens only.", valueName: "k"))
  var topK: Int?

  @Option(
    name: .customLong("top-p"), help: ArgumentHelp("Draw from the most probable tokens that sum to this probability.", valueName: "p"))
  var topP: Float = 1

  @Option(
    name: .customLong("repetition-penalty"),
    help: ArgumentHelp(
      "Above 1 discourages the tokens of prompt and answer: their logits are divided by it, negative ones multiplied.", valueName: "r"))
  var repetitionPenalty: Float = 1

  @Option(
    name: .customLong("presence-penalty"), help: ArgumentHelp("Taken once from the logits of the answer's tokens, -2 to 2.", valueName: "p")
  )
  var presencePenalty: Float = 0

  @Option(
    name: .customLong("frequency-penalty"),
    help: ArgumentHelp("Taken from the logits of the answer's tokens as often as they stand there, -2 to 2.", valueName: "p"))
  var frequencyPenalty: Float = 0

  @Option(help: ArgumentHelp("End before this text; may be given several times.", valueName: "text"))
  var stop: [String] = []

  @Option(name: .customLong("max-tokens"), help: ArgumentHelp("The most tokens to generate.", valueName: "n"))
  var maxTokens = 256

  @Option(help: ArgumentHelp("The same seed gives the same tokens (default: drawn, and reported).", valueName: "n"))
  var seed: UInt64?

  func validate() throws {
    do {
      try params(seed: 0).validate()
    } catch {
      throw ValidationError("\(error)")
    }
  }

  func params(seed: UInt64) -> SamplingParams {
    SamplingParams(
      temperature: temperature, topK: topK, topP: topP, repetitionPenalty: repetitionPenalty, presencePenalty: presencePenalty,
      frequencyPenalty: frequencyPenalty, seed: seed, maxTokens: maxTokens, stop: stop)
  }
}
