// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Martlet
import MartletCore
import MartletTestSupport
import Testing

/// What sampling parameters do inside the engine, on tiny models.
@Suite("Sampling in the engine", .timeLimit(.minutes(45)))
struct SamplingTests {
  private static let model = TinyModel(.llama, seed: 41)

  /// Presence and frequency penalty and bias change logits by differences, so log-probabilities do instead of logits: every step is asked for
  /// anew, with all of the vocabulary, and its penalties are taken here.
  @Test("penalises the tokens of the answer and adds the bias, step by step")
  func penalties() async throws {
    let llm = try Tiny.llm(Self.model, dataType: .f32)
    let prompt = Tiny.prompt(12, seed: 4)
    let bias: [Int: Float] = [17: 2.5, 200: -100]
    let sampling = SamplingParams(
      presencePenalty: 0.9, frequencyPenalty: 1.2, logitBias: bias, maxTokens: 24, ignoresEndTokens: true)
    let output = try await llm.generate(.tokenIDs(prompt), sampling: sampling).output()
    var answer: [Int] = []
    let all = SamplingParams(maxTokens: 1, logprobs: Self.model.vocabularySize, ignoresEndTokens: true)
    for _ in 0..<24 {
      let step = try await llm.generate(.tokenIDs(prompt + answer), sampling: all).output().logprobs[0].top
      #expect(step.count == Self.model.vocabularySize)
      let best = step.max { score($0) < score($1) }!
      func score(_ token: TokenLogprob.Alternative) -> Float {
        let count = answer.count { $0 == token.tokenID }
        return token.logprob - Float(count) * 1.2 - (count > 0 ? 0.9 : 0) + (bias[token.tokenID] ?? 0)
      }
      answer.append(best.tokenID)
    }
    #expect(output.tokenIDs == answer)
    let free = try await llm.generate(.tokenIDs(prompt), sampling: SamplingParams(maxTokens: 24, ignoresEndTokens: true)).output()
    #expect(free.tokenIDs != answer, "the penalties decided nothing")
  }

  @Test("never says a token of prompt or answer again where the repetition penalty is overwhelming")
  func repetition() async throws {
    let llm = try Tiny.llm(Self.model)
    let prompt = Tiny.prompt(30, seed: 5)
    // About half of the logits of random weights are above 0; a seen one falls to nearly 0, or far below.
    let output = try await llm.generate(
      .tokenIDs(prompt), sampling: SamplingParams(repetitionPenalty: 1e6, maxTokens: 40, ignoresEndTokens: true)
    ).output()
    #expect(output.tokenIDs.count == 40 && Set(output.tokenIDs).count == 40 && Set(output.tokenIDs).isDisjoint(with: prompt))
  }

  @Test("refuses a bias for a token that the model does not have")
  func unknownBias() throws {
    let llm = try Tiny.llm(Self.model)
    #expect { try llm.generate("a", sampling: SamplingParams(logitBias: [9999: 1])) } throws: { "\($0)".contains("9999") }
    #expect { try llm.generate("a", count: 0) } throws: { "\($0)".contains("count") }
  }

  @Test("reports what the prompt's tokens were worth, with the bits that scoring gives", arguments: [nil, 7])
  func promptLogprobs(chunkSize: Int?) async throws {
    let llm = try Tiny.llm(Self.model, chunkSize: chunkSize)
    let prompt = Tiny.prompt(40, seed: 6)
    let sampling = SamplingParams(maxTokens: 3, promptLogprobs: 4, ignoresEndTokens: true)
    let outputs = try await withThrowingTaskGroup(of: GenerationOutput.self) { group in
      for generation in try llm.generate([.tokenIDs(prompt), .tokenIDs(Tiny.prompt(9, seed: 7)), .tokenIDs([3])], sampling: sampling) {
        group.addTask { try await generation.output() }
      }
      return try await group.reduce(into: [:]) { $0[$1.promptTokenIDs.count] = $1 }
    }
    let output = try #require(outputs[40])
    #expect(output.promptLogprobs.map(\.tokenID) == Array(prompt.dropFirst()))
    #expect(output.promptLogprobs.map(\.logprob) == (try await llm.score(prompt)))
    for entry in output.promptLogprobs {
      #expect(entry.top.count == 4 && entry.top.map(\.logprob) == entry.top.map(\.logprob).sorted(by: >))
      #expect(entry.top[0].logprob >= entry.logprob)
    }
    #expect(outputs[9]?.promptLogprobs.count == 8 && outputs[1]?.promptLogprobs.isEmpty == true)
    #expect(try await llm.generate(.tokenIDs(prompt), sampling: SamplingParams(maxTokens: 1)).output().promptLogprobs.isEmpty)
  }

  @Test("gives several samples of a prompt, each as if it were alone")
  func samples() async throws {
    let llm = try Tiny.llm(Self.model)
    // Random weights are sure of themselves: their logits spread over tens.
    let sampling = SamplingParams(temperature: 20, seed: 99, maxTokens: 12, logprobs: 1, ignoresEndTokens: true)
    let prompts: [Prompt] = [.tokenIDs(Tiny.prompt(20, seed: 8)), .tokenIDs(Tiny.prompt(5, seed: 9))]
    let generations = try llm.generate(prompts, sampling: sampling, count: 5)
    #expect(generations.map(\.index) == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4])
    for (place, generation) in generations.enumerated() {
      let output = try await generation.output()
      #expect(output.index == place % 5)
      var alone = sampling
      alone.seed = sampling.seed(ofSample: output.index)
      #expect(output.bits == (try await llm.generate(prompts[place / 5], sampling: alone).output().bits))
    }
    var answers: Set<[Int]> = []
    for generation in try llm.generate(prompts[0], sampling: sampling, count: 3) { answers.insert(try await generation.output().tokenIDs) }
    #expect(answers.count == 3)
    #expect(answers.contains(try await llm.generate(prompts[0], sampling: sampling).output().tokenIDs))
  }
}
