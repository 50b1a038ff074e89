// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// What a request's penalties and its bias make of a row of logits.
///
/// For the logit l of a token, in this order:
/// 1. repetition penalty r (Keskar et al. 2019, CTRL, equation 3, with the sign cared for): where the token stands in the prompt or in the
///    answer, l becomes l / r if l > 0 and l · r otherwise;
/// 2. frequency and presence penalty (OpenAI): where the token stands c > 0 times in the answer, l becomes l − c · frequency − presence;
/// 3. bias: l becomes l + bias.
///
/// A request that asks for none of this has no adjustment, and its rows are never copied.
package struct LogitAdjustment {
  private let repetitionPenalty: Float
  private let presencePenalty: Float
  private let frequencyPenalty: Float
  private let bias: [(token: Int, value: Float)]
  /// How often each token that was seen stands in the answer; 0 where in the prompt alone.
  private var counts: [Int32: Int32] = [:]
  /// Tokens of the request that `counts` knows.
  private var counted = 0

  /// nil where the parameters change no logit.
  package init?(_ sampling: SamplingParams) {
    let hasPenalties = sampling.repetitionPenalty != 1 || sampling.presencePenalty != 0 || sampling.frequencyPenalty != 0
    if !hasPenalties && sampling.logitBias.isEmpty { return nil }
    repetitionPenalty = sampling.repetitionPenalty
    presencePenalty = sampling.presencePenalty
    frequencyPenalty = sampling.frequencyPenalty
    bias = sampling.logitBias.map { (token: $0.key, value: $0.value) }
  }

  /// Adjusts a row in place.
  /// - Parameters:
  ///   - tokens: the prompt and the answer so far; the same tokens as in the last call, and those that came since.
  ///   - promptLength: how many of them are the prompt.
  package mutating func apply(to row: inout MutableSpan<Float>, tokens: [Int32], promptLength: Int) {
    count(tokens, promptLength: promptLength)
    for (token, count) in counts {
      let token = Int(token)
      let logit = row[token]
      row[token] = Self.limited(logit > 0 ? logit / repetitionPenalty : logit * repetitionPenalty, from: logit)
      if count > 0 { row[token] -= Float(count) * frequencyPenalty + presencePenalty }
    }
    for (token, value) in bias { row[token] = Self.limited(row[token] + value, from: row[token]) }
  }

  /// What became infinite of a number that was not is the greatest or least number instead: a row has a best token whatever its penalties.
  private static func limited(_ adjusted: Float, from logit: Float) -> Float {
    adjusted.isInfinite && logit.isFinite ? Float(signOf: adjusted, magnitudeOf: .greatestFiniteMagnitude) : adjusted
  }

  private mutating func count(_ tokens: [Int32], promptLength: Int) {
    if repetitionPenalty == 1 { counted = max(counted, promptLength) }  // the prompt then says nothing
    while counted < tokens.count {
      counts[tokens[counted], default: 0] += counted < promptLength ? 0 : 1
      counted += 1
    }
  }
}
