// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
import Martlet
import MartletTemplates

/// How a request wants its tokens chosen: OpenAI's fields, and vLLM's beyond them.
enum SamplingFields {
  static let temperature = Field<Double>.number(
    "temperature", "0 always takes the most probable token; higher is more varied.", in: 0...100)
  static let topP = Field<Double>.number("top_p", "Draw from the most probable tokens that sum to this probability.", in: 0...1)
  static let topK = Field<Int>.integer("top_k", "Draw from the k most probable tokens; 0 and -1 are all.", in: -1...Int.max)
  static let minP = Field<Double>.number("min_p", "Draw from tokens at least this many times as probable as the most probable.", in: 0...1)
  static let repetitionPenalty = Field<Double>.number(
    "repetition_penalty", "Above 1 discourages the tokens of prompt and answer.", in: 0.01...100)
  static let presencePenalty = Field<Double>.number("presence_penalty", "Taken once from the logits of the answer's tokens.", in: -2...2)
  static let frequencyPenalty = Field<Double>.number(
    "frequency_penalty", "Taken from the logits of the answer's tokens as often as they stand there.", in: -2...2)
  static let logitBias = Field<JSON.Object>.object(
    "logit_bias", "Added to the logits of tokens, by id: -100 bans a token, 100 forces it.",
    schema: [
      "type": "object", "propertyNames": ["pattern": "^[0-9]{1,9}$"],
      "additionalProperties": ["type": "number", "minimum": -100, "maximum": 100],
    ])
  static let seed = Field<Int>.integer(
    "seed", "The same seed gives the same answer. Without one it is drawn, and reported.", in: .min ... .max)
  static let stop = Field<[String]>.strings("stop", "The answer ends before the first of these texts.", atMost: 64)
  static let stopTokenIDs = Field<[Int]>.integers("stop_token_ids", "The answer ends with the first of these tokens.", atMost: 1024)
  static let ignoreEOS = Field<Bool>.bool("ignore_eos", "Go on past the model's end tokens. For measurements.")
  static let minTokens = Field<Int>.integer("min_tokens", "Not supported above 0.", in: 0...0)
  static let n = Field<Int>.integer("n", "How many answers.", in: 1...1024)
  static let bestOf = Field<Int>.integer("best_of", "Not supported above n.", in: 1...1024)
  static let priority = Field<Int>.integer(
    "priority", "Of requests that wait, the lowest begins first, as in vLLM.", in: -1_000_000...1_000_000)
  static let user = Field<String>.string("user", "Requests of different users take turns where they wait.")

  static let table: [any AnyField] = common + [n, bestOf]
  /// What APIs with one answer have too.
  static let common: [any AnyField] = [
    temperature, topP, topK, minP, repetitionPenalty, presencePenalty, frequencyPenalty, logitBias, seed, stop, stopTokenIDs, ignoreEOS,
    minTokens, priority, user,
  ]

  /// What a request says, over what the server does without a word.
  static func read(_ fields: Fields, over standard: SamplingParams) throws -> SamplingParams {
    var params = standard
    if let value = try fields(temperature) { params.temperature = Float(value) }
    if let value = try fields(topP) {
      // OpenAI takes 0: the smallest set there is.
      if Float(value) == 0 { params.topK = 1 } else { params.topP = Float(value) }
    }
    if let value = try fields(topK) { params.topK = value > 0 ? value : nil }
    if let value = try fields(minP) { params.minP = Float(value) }
    if let value = try fields(repetitionPenalty) { params.repetitionPenalty = Float(value) }
    if let value = try fields(presencePenalty) { params.presencePenalty = Float(value) }
    if let value = try fields(frequencyPenalty) { params.frequencyPenalty = Float(value) }
    if let bias = try fields(logitBias) {
      for (key, value) in bias.members {
        let param = fields.prefix + "logit_bias"
        guard let token = Int(key) else {
          throw APIError.invalid(param, "logit_bias has the key \(JSON.string(key).shown), which is no token id")
        }
        guard let amount = value.anyNumber, (-100...100).contains(amount) else {
          throw APIError.invalid(param, "logit_bias of token \(token) must be a number from -100 to 100; it is \(value.shown)")
        }
        params.logitBias[token] = Float(amount)
      }
    }
    params.seed = try fields(seed).map { UInt64(bitPattern: Int64($0)) } ?? UInt64.random(in: 0...UInt64(Int64.max))
    if let value = try fields(stop) { params.stop = value }
    if let value = try fields(stopTokenIDs) { params.stopTokenIDs = Set(value) }
    if let value = try fields(ignoreEOS) { params.ignoresEndTokens = value }
    try fields.check([minTokens])
    let count = try fields(n) ?? 1
    if let best = try fields(bestOf), best != count { throw APIError.unsupported("best_of", "best_of other than n is not supported") }
    return params
  }

  /// How the request stands among others.
  static func options(_ fields: Fields, id: String) throws -> RequestOptions {
    RequestOptions(id: id, priority: -(try fields(priority) ?? 0), fairnessKey: try fields(user))
  }
}
#endif
