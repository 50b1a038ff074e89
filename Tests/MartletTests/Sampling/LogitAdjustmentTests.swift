// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import Martlet
import MartletTestSupport
import Testing

/// Penalties and bias against their formulas, written plainly over the whole row in double.
@Suite("Penalties and bias")
struct LogitAdjustmentTests {
  private static func expected(_ logits: [Float], _ params: SamplingParams, prompt: [Int32], answer: [Int32]) -> [Double] {
    logits.indices.map { token in
      var logit = Double(logits[token])
      let count = answer.count { $0 == Int32(token) }
      if count > 0 || prompt.contains(Int32(token)) {
        logit = logit > 0 ? logit / Double(params.repetitionPenalty) : logit * Double(params.repetitionPenalty)
      }
      logit -= Double(params.frequencyPenalty) * Double(count) + (count > 0 ? Double(params.presencePenalty) : 0)
      return logit + Double(params.logitBias[token] ?? 0)
    }
  }

  static let params: [SamplingParams] = [
    SamplingParams(repetitionPenalty: 1.3), SamplingParams(repetitionPenalty: 0.8), SamplingParams(presencePenalty: 1.5),
    SamplingParams(frequencyPenalty: -0.5), SamplingParams(logitBias: [3: 4, 11: -100]),
    SamplingParams(repetitionPenalty: 1.1, presencePenalty: -0.3, frequencyPenalty: 0.7, logitBias: [0: 1, 5: -2]),
  ]

  @Test("follow their formulas, token after token", arguments: params.indices)
  func formulas(index: Int) throws {
    let params = Self.params[index]
    var generator = SeededGenerator(seed: UInt64(50 + index))
    let prompt = (0..<9).map { _ in Int32.random(in: 0..<20, using: &generator) }
    var adjustment = try #require(LogitAdjustment(params))
    var answer: [Int32] = []
    for _ in 0..<12 {
      let logits = (0..<20).map { _ in generator.normal() * 3 }
      var row = logits
      var span = row.mutableSpan
      adjustment.apply(to: &span, tokens: prompt + answer, promptLength: prompt.count)
      // Three roundings of numbers below 130: 3 · 130 · 2⁻²⁴.
      for (found, wanted) in zip(row, Self.expected(logits, params, prompt: prompt, answer: answer)) {
        #expect(abs(Double(found) - wanted) < 3e-5)
      }
      answer.append(Int32.random(in: 0..<20, using: &generator))
    }
  }

  /// l / r, l · r and l + bias can leave the range of floats, though every part is in it.
  @Test("leave a row with a best token, whatever they are")
  func extremes() throws {
    var sampler = Sampler()
    for penalty in [0x1p-149, 0x1p-133, 0x1p-126, 1e38] as [Float] {
      for bias in [-3e38, 0, 3e38] as [Float] {
        var adjustment = try #require(LogitAdjustment(SamplingParams(repetitionPenalty: penalty, logitBias: [0: bias, 1: -bias])))
        var row: [Float] = [20, -20, 1, 2, -.infinity, .nan]
        var span = row.mutableSpan
        adjustment.apply(to: &span, tokens: [0, 1, 4, 5], promptLength: 4)
        #expect(row[0].isFinite && row[1].isFinite && row[4] == -.infinity && row[5].isNaN)
        for temperature in [0, 1] as [Float] {
          let token = sampler.sample(row.span, SamplingParams(temperature: temperature, topK: 2), tokenIndex: 0)
          #expect(token == LogitRow.argmax(row.span), "\(row)")
        }
      }
    }
  }

  @Test("take no copy of a row where nothing is asked for")
  func nothing() {
    #expect(LogitAdjustment(SamplingParams(temperature: 1, topK: 3)) == nil)
    #expect(LogitAdjustment(SamplingParams(repetitionPenalty: 1, presencePenalty: 0, logitBias: [:])) == nil)
  }

  @Test("are refused out of their range, by name")
  func validation() {
    let wrong: [(String, SamplingParams)] = [
      ("repetitionPenalty", SamplingParams(repetitionPenalty: 0)), ("repetitionPenalty", SamplingParams(repetitionPenalty: .infinity)),
      ("presencePenalty", SamplingParams(presencePenalty: 2.5)), ("presencePenalty", SamplingParams(presencePenalty: .nan)),
      ("frequencyPenalty", SamplingParams(frequencyPenalty: -3)), ("logitBias[7]", SamplingParams(logitBias: [7: .nan])),
      ("promptLogprobs", SamplingParams(promptLogprobs: -1)),
    ]
    for (option, params) in wrong {
      #expect { try params.validate() } throws: { "\($0)".contains(option) }
    }
  }

  @Test("give samples seeds that are their own, and the first one the request's")
  func seeds() {
    var seeds: Set<UInt64> = []
    for seed in 0..<50 as Range<UInt64> {
      let params = SamplingParams(seed: seed)
      #expect(params.seed(ofSample: 0) == seed)
      for index in 0..<50 { seeds.insert(params.seed(ofSample: index)) }
    }
    #expect(seeds.count == 2500)
  }
}
