// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletLibc

/// Chooses the next token from a row of logits.
///
/// The choice depends on the row, the parameters and the number of the token alone: the sampler holds scratch memory, never a state.
package struct Sampler {
  private var candidates = Candidates()

  package init() {}

  /// The token for place `tokenIndex` of the answer; nil where no logit is finite.
  package mutating func sample(_ logits: Span<Float>, _ params: SamplingParams, tokenIndex: Int) -> Int? {
    let scale = 1 / params.temperature
    // So cold that not even the next best float would be drawn.
    if scale.isInfinite { return LogitRow.argmax(logits) }
    let maximum = LogitRow.maximum(logits)
    guard maximum.isFinite else { return nil }
    let draw = Self.uniform(seed: params.seed, index: tokenIndex)
    func weight(_ logit: Float) -> Double { exp(Double(logit - maximum) * Double(scale)) }  // relative to the most probable

    let topK = params.topK.flatMap { $0 < logits.count ? $0 : nil }
    if topK == nil && params.topP == 1 { return drawFromAll(logits, draw, minP: params.minP, weight) }

    var total: Double
    if let topK {
      candidates.select(topK, of: logits)
      total = candidates.elements.reduce(0) { $0 + weight($1.logit) }
    } else {
      total = LogitRow.sumOfExponentials(logits, maximum: maximum, scale: scale)
      selectMass(Double(params.topP) * total, of: logits, maximum: maximum, temperature: params.temperature, weight)
    }
    var kept = 0
    var mass = 0.0
    for candidate in candidates.elements {
      let weight = weight(candidate.logit)
      if kept > 0 && (mass >= Double(params.topP) * total || weight < Double(params.minP)) { break }
      mass += weight
      kept += 1
    }
    var remaining = draw * mass
    for candidate in candidates.elements.prefix(kept) {
      remaining -= weight(candidate.logit)
      if remaining < 0 { return Int(candidate.id) }
    }
    return Int(candidates.elements[kept - 1].id)  // rounding left a little over
  }

  /// Without a limit on their number: token after token, in the order of ids.
  private func drawFromAll(_ logits: Span<Float>, _ draw: Double, minP: Float, _ weight: (Float) -> Double) -> Int? {
    var total = 0.0
    for index in logits.indices {
      let weight = weight(logits[index])
      if weight >= Double(minP) { total += weight }
    }
    var remaining = draw * total
    var last: Int?
    for index in logits.indices {
      let weight = weight(logits[index])
      if weight < Double(minP) || weight == 0 || weight.isNaN { continue }
      remaining -= weight
      last = index
      if remaining < 0 { break }
    }
    return last
  }

  /// Selects the best tokens until they weigh `wanted` together. Most of the mass lies close to the best, so the search begins there and
  /// reaches further only while it must.
  private mutating func selectMass(
    _ wanted: Double, of logits: Span<Float>, maximum: Float, temperature: Float, _ weight: (Float) -> Double
  ) {
    var reach: Float = 8  // e⁻⁸ of the best's probability
    while true {
      let threshold = maximum - reach * temperature
      candidates.select(atLeast: threshold.isFinite ? threshold : -.greatestFiniteMagnitude, of: logits)
      let mass = candidates.elements.reduce(0) { $0 + weight($1.logit) }
      // Beyond e⁻¹⁰⁰ nothing is left that could be missing but the roundings of two ways to sum.
      if mass >= wanted || reach > 100 { return }
      reach *= 2
    }
  }

  /// A number in 0..<1: a pure function of seed and index.
  ///
  /// SplitMix64 (Steele, Lea, Flood 2014) is counter-based by nature: its state is the seed plus the index times an odd constant, its output
  /// that state, mixed. The seed is mixed before, so that neighbouring seeds do not share a stream that is only shifted.
  package static func uniform(seed: UInt64, index: Int) -> Double {
    let state = mix(seed &+ 0x9E37_79B9_7F4A_7C15) &+ UInt64(truncatingIfNeeded: index &+ 1) &* 0x9E37_79B9_7F4A_7C15
    return Double(mix(state) >> 11) * 0x1p-53
  }

  /// A seed for sample `index` of a prompt: the seed itself for the first; the others lie far apart, also for neighbouring seeds.
  package static func seed(_ seed: UInt64, sample index: Int) -> UInt64 {
    index == 0 ? seed : mix(mix(seed) ^ UInt64(truncatingIfNeeded: index) &* 0xD1B5_4A32_D192_ED03)
  }

  private static func mix(_ value: UInt64) -> UInt64 {
    var z = value
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
}

// MARK: - Log-probabilities

extension Sampler {
  /// The log-probability of a token and of the `count` most probable ones.
  package mutating func logprob(of token: Int, in logits: Span<Float>, top count: Int) -> TokenLogprob {
    let normaliser = LogitRow.logSumExp(logits)
    func logprob(_ logit: Float) -> Float { Float(Double(logit) - normaliser) }
    candidates.select(min(count, logits.count), of: logits)
    return TokenLogprob(
      tokenID: token, logprob: logprob(logits[token]),
      top: candidates.elements.map { TokenLogprob.Alternative(tokenID: Int($0.id), logprob: logprob($0.logit)) })
  }
}
