// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Martlet
import MartletCore
import MartletKVCache
import MartletTestSupport
import Testing

/// What prefix reuse saves, and that nobody can tell otherwise.
@Suite("Prefix reuse", .timeLimit(.minutes(45)))
struct PrefixReuseTests {
  struct Variant: Sendable, CustomTestStringConvertible {
    var backend: String
    var dataType: DataType
    var testDescription: String { "\(backend), \(dataType.rawValue)" }

    static let all = ["TRTLLM", "FLASHINFER"].flatMap { backend in
      [DataType.bf16, .f8e4m3, .i8, .f32].map { Variant(backend: backend, dataType: $0) }
    }
  }

  private static let sampling = SamplingParams(maxTokens: 12, logprobs: 5, ignoresEndTokens: true)

  @Test("changes no bit of an answer", arguments: TinyModel.Architecture.allCases, Variant.all)
  func bits(architecture: TinyModel.Architecture, variant: Variant) async throws {
    let model = TinyModel(architecture, seed: 41)
    func llm(reusing: Bool) throws -> LLM {
      // Pages for 32 requests at a time: with one at a time, nothing is given up.
      try Tiny.llm(
        model, backend: variant.backend, dataType: variant.dataType, maxBatchSize: 32, chunkSize: 24, reusesPrefixes: reusing)
    }
    let (reusing, plain) = (try llm(reusing: true), try llm(reusing: false))
    let long = Tiny.prompt(150, seed: 5)
    // A conversation that grows, prompts that part from it after every token of a page of 16, and the same again.
    var prompts = [long, long + Tiny.prompt(30, seed: 6), Array(long[..<70]), long]
    for parted in 64...80 { prompts.append(Array(long[..<parted]) + [(long[parted] + 1) % 256] + Tiny.prompt(9, seed: UInt64(parted))) }
    // What an answer wrote is a prefix as well.
    prompts.append(long + (try await plain.generate(.tokenIDs(long), sampling: Self.sampling).output()).tokenIDs)
    /// The tokens that were computed so far, of every request.
    var computed: [[Int]] = []
    for prompt in prompts {
      let output = try await reusing.generate(.tokenIDs(prompt), sampling: Self.sampling).output()
      let truth = try await plain.generate(.tokenIDs(prompt), sampling: Self.sampling).output()
      #expect(output.bits == truth.bits && output.text == truth.text)
      // As far as it agrees with one of them, at least one token left.
      let agreement = computed.map { earlier in zip(earlier, prompt).prefix { $0 == $1 }.count }.max() ?? 0
      #expect(output.cachedPromptTokens == min(agreement, prompt.count - 1) && truth.cachedPromptTokens == 0)
      computed.append(prompt + output.tokenIDs.dropLast())
    }
    #expect(computed.count == 22)
    // A scored text needs every token's logits: it is computed whole.
    let scores = try await reusing.score(long)
    #expect(scores.map(\.bitPattern) == (try await plain.score(long)).map(\.bitPattern))
  }

  @Test("makes a repeated prompt cost its last token only")
  func repeatedPrompt() async throws {
    let llm = try Tiny.llm(TinyModel(.llama, seed: 42))
    let prompt = Prompt.tokenIDs(Tiny.prompt(200, seed: 8))
    let sampling = SamplingParams(maxTokens: 1)
    _ = try await llm.generate(prompt, sampling: sampling).output()
    let first = try await Tiny.statistics(of: llm) { $0.finishedRequests == 1 }
    #expect(first.promptTokens == 200 && first.cachedPromptTokens == 0)
    let output = try await llm.generate(prompt, sampling: sampling).output()
    let second = try await Tiny.statistics(of: llm) { $0.finishedRequests == 2 }
    #expect(second.promptTokens == 201 && second.cachedPromptTokens == 199 && output.cachedPromptTokens == 199)
    #expect(second.admittedPromptTokens == 400 && second.prefixHitRate == 0.4975)
    #expect(second.pools.allSatisfy { $0.heldPages == 0 && $0.cachedPages == 13 && $0.freePages + 13 == $0.totalPages })
  }

  @Test("takes whole pages where parts of pages are not to be reused")
  func wholePages() async throws {
    let llm = try Tiny.llm(TinyModel(.llama, seed: 42), reusesPartialPages: false)
    let prompt = Prompt.tokenIDs(Tiny.prompt(200, seed: 8))
    for cached in [0, 192] {
      #expect(try await llm.generate(prompt, sampling: SamplingParams(maxTokens: 1)).output().cachedPromptTokens == cached)
    }
  }

  @Test("lets samples of a prompt share its pages, and those that come later copy its last one")
  func samples() async throws {
    let llm = try Tiny.llm(TinyModel(.llama, seed: 44), maxBatchSize: 2, maxNumTokens: 40)
    // Two whole pages of 16 tokens and eight more. A step holds the prompt once, and two samples run at a time.
    let prompt = Prompt.tokenIDs(Tiny.prompt(40, seed: 10))
    let sampling = SamplingParams(temperature: 20, seed: 3, maxTokens: 5, ignoresEndTokens: true)
    var cached: [Int] = []
    for generation in try llm.generate(prompt, sampling: sampling, count: 6) {
      cached.append(try await generation.output().cachedPromptTokens)
    }
    #expect(cached == [0, 32, 39, 39, 39, 39])
  }

  @Test("keeps what is to be kept longest where there is little room", arguments: TinyModel.Architecture.allCases)
  func retention(architecture: TinyModel.Architecture) async throws {
    let model = TinyModel(architecture, seed: 45)
    let bytesPerToken = model.numLayers * model.numKVHeads * model.headDim * 2 * 2
    let llm = try Tiny.llm(model, budget: .bytes(320 * bytesPerToken), context: 160, maxBatchSize: 2)
    func cached(_ prompt: [Int], _ retention: KVRetention?) async throws -> Int {
      let sampling = SamplingParams(maxTokens: 2, cacheRetention: retention, ignoresEndTokens: true)
      return try await llm.generate(.tokenIDs(prompt), sampling: sampling).output().cachedPromptTokens
    }
    let (high, normal) = (Tiny.prompt(80, seed: 11), Tiny.prompt(80, seed: 12))
    #expect(try await cached(high, .high) == 0)
    #expect(try await cached(normal, nil) == 0)
    for seed in 0..<10 { #expect(try await cached(Tiny.prompt(100, seed: UInt64(1000 + seed)), nil) == 0) }
    #expect(try await cached(normal, .low) == 0)
    #expect(try await cached(high, nil) == 79)
  }

  @Test("lets 32 requests hold a prefix of 1000 tokens once")
  func common() async throws {
    // Pages of 16 tokens: 62 whole ones of the prefix, and 4 of its own for each request, the first of them a copy.
    let model = TinyModel(.llama, seed: 43) { $0.contextLength = 1200 }
    let bytesPerPage = 16 * model.numLayers * model.numKVHeads * model.headDim * 2 * 2
    let pages = 62 + 32 * 5
    let llm = try Tiny.llm(
      model, budget: .bytes(pages * bytesPerPage), context: 1200, maxBatchSize: 32, maxNumTokens: 256, capacityPolicy: .maxUtilization)
    let common = Tiny.prompt(1000, seed: 9)
    _ = try await llm.generate(.tokenIDs(common), sampling: SamplingParams(maxTokens: 1)).output()
    let prompts = (0..<32).map { Prompt.tokenIDs(common + Tiny.prompt(8, seed: UInt64(500 + $0))) }
    let generations = try llm.generate(prompts, sampling: SamplingParams(maxTokens: 40, ignoresEndTokens: true))
    for generation in generations { #expect(try await generation.output().cachedPromptTokens == 1000) }
    let statistics = try await Tiny.statistics(of: llm) { $0.finishedRequests == 33 }
    // 32 times 66 pages would be ten times the pages that there are; nobody had to pause.
    #expect(statistics.pauses == 0 && statistics.pools[0].totalPages == pages)
  }
}
