// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import ArgumentParser
import Martlet

/// How the next token is chosen, and when an answer ends.
///
/// A number may follow its option after a space also where it is negative: the parser would else take it for another option.
struct SamplingOptions: ParsableArguments {
  @Option(
    name: .customLong("max-tokens"), parsing: .unconditional,
    help: ArgumentHelp("The most tokens of an answer (default: 256; in a chat as many as the context has room for).", valueName: "n"))
  var maxTokens: Int?

  @Option(parsing: .unconditional, help: ArgumentHelp("0 always takes the most probable token; higher is more varied.", valueName: "t"))
  var temperature: Float = 0

  @Option(
    name: .customLong("top-p"), parsing: .unconditional,
    help: ArgumentHelp("Draw from the most probable tokens that sum to this probability.", valueName: "p"))
  var topP: Float = 1

  @Option(
    name: .customLong("top-k"), parsing: .unconditional, help: ArgumentHelp("Draw from the k most probable tokens only.", valueName: "k"))
  var topK: Int?

  @Option(
    name: .customLong("min-p"), parsing: .unconditional,
    help: ArgumentHelp("Draw from tokens at least this many times as probable as the most probable.", valueName: "p"))
  var minP: Float = 0

  @Option(
    parsing: .unconditional, help: ArgumentHelp("The same seed gives the same tokens (default: drawn, and reported).", valueName: "n"))
  var seed: UInt64?

  @Option(
    parsing: .unconditionalSingleValue,
    help: ArgumentHelp(
      "End before this text; may be given several times. One that begins with three dashes is given as --stop=TEXT.", valueName: "text"))
  var stop: [String] = []

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("End the answer this many seconds after it was asked for, with what there is.", valueName: "seconds"))
  var timeout: Double?

  @Option(
    name: .customLong("repetition-penalty"), parsing: .unconditional,
    help: ArgumentHelp(
      "Above 1 discourages the tokens of prompt and answer: their logits are divided by it, negative ones multiplied.", valueName: "r"))
  var repetitionPenalty: Float = 1

  @Option(
    name: .customLong("presence-penalty"), parsing: .unconditional,
    help: ArgumentHelp("Taken once from the logits of the answer's tokens, -2 to 2.", valueName: "p")
  )
  var presencePenalty: Float = 0

  @Option(
    name: .customLong("frequency-penalty"), parsing: .unconditional,
    help: ArgumentHelp("Taken from the logits of the answer's tokens as often as they stand there, -2 to 2.", valueName: "p"))
  var frequencyPenalty: Float = 0

  @Option(
    name: .customLong("logit-bias"), parsing: .unconditionalSingleValue,
    help: ArgumentHelp("Add to the logit of a token, by id: -100 bans it, 100 forces it; may be given again.", valueName: "id=bias"))
  var logitBias: [LogitBiasArgument] = []

  func validate() throws {
    if let timeout, !(timeout > 0 && timeout <= Self.longestTimeout) {
      throw ValidationError("--timeout is \(timeout); it must be above 0 and at most 1e9")
    }
    do {
      try params(seed: 0, maxTokens: nil).validate()
    } catch {
      throw ValidationError(words(of: error))
    }
  }

  /// In seconds; more is no deadline that anybody means.
  static let longestTimeout = 1e9

  /// - Parameter maxTokens: of an answer where the option says nothing.
  func params(seed: UInt64, maxTokens most: Int?) -> SamplingParams {
    SamplingParams(
      temperature: temperature, topK: topK, topP: topP, minP: minP, repetitionPenalty: repetitionPenalty,
      presencePenalty: presencePenalty, frequencyPenalty: frequencyPenalty,
      logitBias: Dictionary(logitBias.map { ($0.token, $0.bias) }) { $1 }, seed: seed, maxTokens: maxTokens ?? most,
      timeout: timeout.map { .seconds($0) }, stop: stop)
  }
}

/// `1234=-100`.
struct LogitBiasArgument: ExpressibleByArgument {
  var token: Int
  var bias: Float

  init?(argument: String) {
    let parts = argument.split(separator: "=", omittingEmptySubsequences: false)
    guard parts.count == 2, let token = Int(parts[0]), let bias = Float(parts[1]), bias.isFinite else { return nil }
    self.token = token
    self.bias = bias
  }
}
