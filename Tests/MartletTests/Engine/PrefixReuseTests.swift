// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Martlet
import MartletCore
import MartletKVCache
import MartletTestSupport
import Testing

/// What prefix reuse saves, and that nobody can tell otherwise.
@Suite("Prefix reuse", .timeLimit(.minutes(2)))
struct PrefixReuseTests {
  struct Variant: Sendable, CustomTestStringConvertible {
    var backend: String
    var dataType: DataType
    var testDescription: String { "\(backend), \(dataType.rawValue)" }

    static let all = ["TRTLLM", "FLASHINFER"].flatMap { backend in
      [DataType.bf16, .f8e4m3].map { Variant(backend: backend, dataType: $0) }
    }
  }

  private static let sampling = SamplingParams(maxTokens: 12, logprobs: 5, ignoresEndTokens: true)

  @Test("changes no bit of an answer", arguments: TinyModel.Architecture.allCases, Variant.all)
  func bits(architecture: TinyModel.Architecture, variant: Variant) async throws {
    let model = TinyModel(architecture, seed: 41)
    func llm(reusing: Bool) throws -> LLM {
      try Tiny.llm(model, backend: variant.backend, dataType: variant.dataType, chunkSize: 24, reusesPrefixes: reusing)
    }
    let (reusing, plain) = (try llm(reusing: true), try llm(reusing: false))
    let long = Tiny.prompt(150, seed: 5)
    // A conversation that grows, one that parts from it inside a page, and the same again.
    let prompts = [long, long + Tiny.prompt(30, seed: 6), Array(long[..<70]) + Tiny.prompt(20, seed: 7), Array(long[..<70]), long]
    // Pages of 16 tokens, at least one token left.
    for (prompt, cached) in zip(prompts, [0, 144, 64, 64, 144]) {
      let output = try await reusing.generate(.tokenIDs(prompt), sampling: Self.sampling).output()
      let truth = try await plain.generate(.tokenIDs(prompt), sampling: Self.sampling).output()
      #expect(output.bits == truth.bits && output.text == truth.text)
      #expect(output.cachedPromptTokens == cached && truth.cachedPromptTokens == 0)
    }
    // What an answer wrote is a prefix as well.
    let answer = try await plain.generate(.tokenIDs(long), sampling: Self.sampling).output()
    let next = long + answer.tokenIDs
    let turn = try await reusing.generate(.tokenIDs(next), sampling: Self.sampling).output()
    #expect(turn.cachedPromptTokens == 160)
    #expect(turn.bits == (try await plain.generate(.tokenIDs(next), sampling: Self.sampling).output()).bits)
    // A scored text needs every token's logits: it is computed whole.
    let scores = try await reusing.score(long)
    #expect(scores.map(\.bitPattern) == (try await plain.score(long)).map(\.bitPattern))
  }

  @Test("makes a repeated prompt cost its last page only")
  func repeatedPrompt() async throws {
    let llm = try Tiny.llm(TinyModel(.llama, seed: 42))
    let prompt = Prompt.tokenIDs(Tiny.prompt(200, seed: 8))
    let sampling = SamplingParams(maxTokens: 1)
    _ = try await llm.generate(prompt, sampling: sampling).output()
    let first = try await Tiny.statistics(of: llm) { $0.finishedRequests == 1 }
    #expect(first.promptTokens == 200 && first.cachedPromptTokens == 0)
    let output = try await llm.generate(prompt, sampling: sampling).output()
    let second = try await Tiny.statistics(of: llm) { $0.finishedRequests == 2 }
    #expect(second.promptTokens == 208 && second.cachedPromptTokens == 192 && output.cachedPromptTokens == 192)
    #expect(second.admittedPromptTokens == 400 && second.prefixHitRate == 0.48)
    #expect(second.pools.allSatisfy { $0.heldPages == 0 && $0.cachedPages == 12 && $0.freePages + 12 == $0.totalPages })
  }

  @Test("lets 32 requests hold a prefix of 1000 tokens once")
  func common() async throws {
    // Pages of 16 tokens: 62 whole ones of the prefix, and 3 of its own for each request's last 48 tokens.
    let model = TinyModel(.llama, seed: 43) { $0.contextLength = 1200 }
    let bytesPerPage = 16 * model.numLayers * model.numKVHeads * model.headDim * 2 * 2
    let pages = 62 + 32 * 5
    let llm = try Tiny.llm(
      model, budget: .bytes(pages * bytesPerPage), context: 1200, maxBatchSize: 32, maxNumTokens: 256, capacityPolicy: .maxUtilization)
    let common = Tiny.prompt(1000, seed: 9)
    _ = try await llm.generate(.tokenIDs(common), sampling: SamplingParams(maxTokens: 1)).output()
    let prompts = (0..<32).map { Prompt.tokenIDs(common + Tiny.prompt(8, seed: UInt64(500 + $0))) }
    let generations = try llm.generate(prompts, sampling: SamplingParams(maxTokens: 40, ignoresEndTokens: true))
    for generation in generations { #expect(try await generation.output().cachedPromptTokens == 992) }
    let statistics = try await Tiny.statistics(of: llm) { $0.finishedRequests == 33 }
    // 32 times 66 pages would be ten times the pages that there are; nobody had to pause.
    #expect(statistics.pauses == 0 && statistics.pools[0].totalPages == pages)
  }
}
