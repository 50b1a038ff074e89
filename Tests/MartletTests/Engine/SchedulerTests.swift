// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Martlet
import MartletKVCache
import MartletTestSupport
import Testing

/// Many requests, little room: whatever the scheduler does, each gets the tokens that it gets alone.
@Suite("The scheduler", .timeLimit(.minutes(45)))
struct SchedulerTests {
  struct Job: Sendable {
    var prompt: [Int]
    var sampling: SamplingParams
  }

  private static func jobs(_ count: Int, seed: UInt64) -> [Job] {
    var generator = SeededGenerator(seed: seed)
    return (0..<count).map { index in
      let length = Int.random(in: 1...70, using: &generator)
      var sampling = SamplingParams(seed: UInt64(index), logprobs: 2, ignoresEndTokens: true)
      sampling.maxTokens = Int.random(in: 1...30, using: &generator)
      if index % 2 == 1 { sampling.temperature = 0.8 }
      if index % 4 == 1 { sampling.topK = 20 }
      return Job(prompt: Tiny.prompt(length, seed: seed + UInt64(index)), sampling: sampling)
    }
  }

  @Test(
    "serves more requests than fit, each with the bits it gets alone", arguments: TinyModel.Architecture.allCases, ["VANILLA", "TRTLLM"])
  func crowded(architecture: TinyModel.Architecture, backend: String) async throws {
    let model = TinyModel(architecture, seed: 21)
    let jobs = Self.jobs(24, seed: 300)
    let single = try Tiny.llm(model, backend: backend, context: 128, maxBatchSize: 1, maxNumTokens: 128)
    // A third of a whole context's pages for up to five requests, and steps that hold few tokens.
    let bytesPerToken = model.numLayers * model.numKVHeads * model.headDim * 2 * 2
    let crowded = try Tiny.llm(
      model, backend: backend, budget: .bytes(180 * bytesPerToken), context: 128, maxBatchSize: 5, maxNumTokens: 40, chunkSize: 24)
    var generations: [Generation] = []
    for job in jobs { generations.append(try crowded.generate(.tokenIDs(job.prompt), sampling: job.sampling)) }
    for (job, generation) in zip(jobs, generations) {
      let together = try await generation.output()
      let alone = try await single.generate(.tokenIDs(job.prompt), sampling: job.sampling).output()
      #expect(together.bits == alone.bits)
      #expect(together.tokenIDs.count == job.sampling.maxTokens && together.finishReason == .length)
    }
    let statistics = try await Tiny.statistics(of: crowded) { $0.finishedRequests == 24 }
    #expect(statistics.steps < statistics.generatedTokens / 2, "hardly anything ever ran together")
    #expect(statistics.finishedRequests == 24 && statistics.waitingRequests == 0)
    #expect(statistics.pools.allSatisfy { $0.heldPages == 0 && $0.freePages + $0.cachedPages == $0.totalPages })
    #expect(architecture != .gemma3 || statistics.pools.count == 2)
  }

  @Test("lets answers flow while a long prompt comes in chunks")
  func chunkedPrompts() async throws {
    let llm = try Tiny.llm(TinyModel(.llama, seed: 22), maxNumTokens: 16, chunkSize: 8)
    // Submitted at once, so that no scheduling of threads decides when the second arrives.
    let generations = try llm.generate(
      [.tokenIDs(Tiny.prompt(4, seed: 1)), .tokenIDs(Tiny.prompt(160, seed: 2))],
      sampling: SamplingParams(maxTokens: 40, ignoresEndTokens: true))
    for generation in generations { _ = try await generation.output() }
    let statistics = try await Tiny.statistics(of: llm) { $0.finishedRequests == 2 }
    // 160 tokens in chunks of 8 take 20 steps, the last of which gives the first of 40 tokens; the other answer flows beside them.
    // One after the other they would take 99.
    #expect(statistics.steps <= 62, "\(statistics.steps)")
  }

  @Test("runs without pages where the cache is linear")
  func linear() async throws {
    let model = TinyModel(.llama, seed: 23)
    let prompt = Prompt.tokenIDs(Tiny.prompt(30, seed: 3))
    let sampling = SamplingParams(maxTokens: 20, logprobs: 3, ignoresEndTokens: true)
    let paged = try await Tiny.llm(model, backend: "VANILLA", context: 64).generate(prompt, sampling: sampling).output()
    let linear = try await Tiny.llm(model, backend: "VANILLA", pageSize: .linear, context: 64).generate(prompt, sampling: sampling).output()
    #expect(paged.bits == linear.bits)
  }
}
