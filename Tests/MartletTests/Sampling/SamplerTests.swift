// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import Martlet
import MartletTestSupport
import Testing

/// The sampler against filters written plainly in double.
@Suite("The sampler")
struct SamplerTests {
  private static func row(_ count: Int, seed: UInt64, spread: Float = 3) -> [Float] {
    var generator = SeededGenerator(seed: seed)
    return (0..<count).map { _ in generator.normal() * spread }
  }

  /// The tokens that the filters keep, best first, with their probabilities.
  private static func filtered(_ logits: [Float], _ params: SamplingParams) -> [(id: Int, probability: Double)] {
    let largest = Double(logits.max()!)
    var kept = logits.enumerated().map { (id: $0.offset, probability: exp((Double($0.element) - largest) / Double(params.temperature))) }
    kept.sort { $0.probability == $1.probability ? $0.id < $1.id : $0.probability > $1.probability }
    if let topK = params.topK { kept = Array(kept.prefix(topK)) }
    func normalise() {
      let total = kept.reduce(0) { $0 + $1.probability }
      for index in kept.indices { kept[index].probability /= total }
    }
    normalise()
    if params.topP < 1 {
      var mass = 0.0
      kept = Array(
        kept.prefix { token in
          defer { mass += token.probability }
          return mass < Double(params.topP)
        })
    }
    kept = kept.filter { $0.probability >= Double(params.minP) * kept[0].probability }
    normalise()
    return kept
  }

  @Test("takes the best token at temperature 0, of equals the lowest id", arguments: 1...70)
  func greedy(count: Int) {
    var sampler = Sampler()
    var logits = Self.row(count, seed: UInt64(count))
    for index in logits.indices { logits[index] = (logits[index] * 2).rounded() }  // many equals
    let expected = logits.firstIndex(of: logits.max()!)
    #expect(sampler.sample(logits.span, SamplingParams(), tokenIndex: 0) == expected)
  }

  @Test(
    "takes the best token at temperatures so low that no other is drawn",
    arguments: [0x1p-149, 0x1p-133, 0x1p-128, 1e-37, 1e-30] as [Float])
  func cold(temperature: Float) {
    var sampler = Sampler()
    for seed in 0..<50 as Range<UInt64> {
      let logits = Self.row(300, seed: seed)
      let best = logits.firstIndex(of: logits.max()!)
      for (topK, topP) in [(nil, 1), (5, 1), (nil, 0.5), (5, 0.5)] as [(Int?, Float)] {
        let params = SamplingParams(temperature: temperature, topK: topK, topP: topP, seed: seed)
        #expect(sampler.sample(logits.span, params, tokenIndex: 3) == best, "top-k \(topK ?? 0), top-p \(topP)")
      }
    }
  }

  @Test("passes over what is not a number, and has no answer where nothing is")
  func notANumber() {
    var sampler = Sampler()
    var logits = Array(repeating: Float.nan, count: 40)
    #expect(sampler.sample(logits.span, SamplingParams(), tokenIndex: 0) == nil)
    #expect(sampler.sample(logits.span, SamplingParams(temperature: 1), tokenIndex: 0) == nil)
    logits[17] = -3
    #expect(sampler.sample(logits.span, SamplingParams(), tokenIndex: 0) == 17)
    #expect(sampler.sample(logits.span, SamplingParams(temperature: 1, topK: 5), tokenIndex: 0) == 17)
    #expect(sampler.sample(logits.span, SamplingParams(temperature: 1), tokenIndex: 0) == 17)
  }

  static let params: [SamplingParams] = [
    SamplingParams(temperature: 1), SamplingParams(temperature: 0.5), SamplingParams(temperature: 2, topK: 4),
    SamplingParams(temperature: 1, topP: 0.7), SamplingParams(temperature: 1, minP: 0.1),
    SamplingParams(temperature: 1.5, topK: 9, topP: 0.9, minP: 0.05), SamplingParams(temperature: 1, topK: 1),
    SamplingParams(temperature: 3, topP: 0.999),
  ]

  /// 20000 draws: the number of times that a token of probability p comes has a deviation of √(n·p·(1 − p)); five of them, and one draw,
  /// are passed by chance once in a million tokens, and the draws are seeded.
  @Test("draws every token as often as its probability says", arguments: params.indices)
  func distribution(index: Int) {
    let logits = Self.row(12, seed: 7, spread: 1.5)
    var params = Self.params[index]
    let expected = Self.filtered(logits, params)
    var sampler = Sampler()
    var counts = Array(repeating: 0, count: logits.count)
    let draws = 20_000
    for draw in 0..<draws {
      params.seed = UInt64(draw / 100)
      counts[sampler.sample(logits.span, params, tokenIndex: draw % 100)!] += 1
    }
    for token in expected {
      let mean = Double(draws) * token.probability
      #expect(abs(Double(counts[token.id]) - mean) <= 1 + 5 * (mean * (1 - token.probability)).squareRoot(), "token \(token.id)")
      counts[token.id] = 0
    }
    #expect(counts.allSatisfy { $0 == 0 }, "tokens were drawn that the filters do not keep")
  }

  @Test("keeps the tokens that plain filters keep, in a large vocabulary too", arguments: params.indices)
  func largeVocabulary(index: Int) {
    var params = Self.params[index]
    var sampler = Sampler()
    for seed in 0..<20 {
      let logits = Self.row(5000, seed: UInt64(100 + seed))
      params.seed = UInt64(seed)
      var kept = Self.filtered(logits, params)
      // Without a limit on their number, tokens are walked in the order of ids.
      if params.topK == nil && params.topP == 1 { kept.sort { $0.id < $1.id } }
      var remaining = Sampler.uniform(seed: params.seed, index: 3)
      let expected = kept.first { token in
        remaining -= token.probability
        return remaining < 0
      }
      #expect(sampler.sample(logits.span, params, tokenIndex: 3) == expected?.id)
    }
  }

  @Test("draws numbers that depend on seed and index alone, evenly in 0..<1")
  func uniform() {
    var counts = Array(repeating: 0, count: 20)
    for seed in 0..<100 as Range<UInt64> {
      for index in 0..<100 {
        let number = Sampler.uniform(seed: seed, index: index)
        #expect(number == Sampler.uniform(seed: seed, index: index))
        counts[Int(number * 20)] += 1
      }
    }
    // 500 expected, deviation 22.
    #expect(counts.allSatisfy { abs($0 - 500) < 110 }, "\(counts)")
  }

  @Test("sums exponentials as double does, to 3·10⁻⁷", arguments: [1, 15, 16, 17, 511, 513, 4999, 262_144])
  func logSumExp(count: Int) {
    let logits = Self.row(count, seed: UInt64(count), spread: 8)
    let largest = logits.max()!
    let exact = logits.reduce(0.0) { $0 + exp(Double($1) - Double(largest)) }
    #expect(abs(LogitRow.sumOfExponentials(logits.span, maximum: largest) / exact - 1) < 3e-7)
    #expect(abs(LogitRow.logSumExp(logits.span) - (Double(largest) + log(exact))) < 1e-6)
  }

  @Test("reports the log-probabilities of the token and of the best")
  func logprobs() {
    let logits = Self.row(300, seed: 9)
    var sampler = Sampler()
    let found = sampler.logprob(of: 123, in: logits.span, top: 5)
    let total = log(logits.reduce(0.0) { $0 + exp(Double($1)) })
    #expect(abs(Double(found.logprob) - (Double(logits[123]) - total)) < 1e-5)
    let best = logits.indices.sorted { logits[$0] > logits[$1] }.prefix(5)
    #expect(found.top.map(\.tokenID) == Array(best))
    for alternative in found.top { #expect(abs(Double(alternative.logprob) - (Double(logits[alternative.tokenID]) - total)) < 1e-5) }
  }

  @Test("refuses values out of their range, by name")
  func validation() {
    let wrong: [(String, SamplingParams)] = [
      ("temperature", SamplingParams(temperature: -1)), ("topK", SamplingParams(topK: 0)), ("topP", SamplingParams(topP: 0)),
      ("topP", SamplingParams(topP: 1.5)), ("minP", SamplingParams(minP: -0.1)), ("maxTokens", SamplingParams(maxTokens: 0)),
      ("stop", SamplingParams(stop: ["a", ""])), ("logprobs", SamplingParams(logprobs: -1)),
      ("temperature", SamplingParams(temperature: .nan)),
    ]
    for (option, params) in wrong {
      #expect { try params.validate() } throws: { "\($0)".contains(option) }
    }
  }
}
