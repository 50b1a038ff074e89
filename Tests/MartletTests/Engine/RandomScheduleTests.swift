// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import Martlet
import MartletCore
import MartletKVCache
import MartletTestSupport
import Metrics
import MetricsTestKit
import Testing

/// Whatever is paused, reused, chunked or cancelled around a request, it gets the tokens that it gets alone.
@Suite("Random schedules", .serialized, .timeLimit(.minutes(45)))
struct RandomScheduleTests {
  private struct Job {
    var prompt: [Int]
    var sampling: SamplingParams
  }

  /// Prompts of few beginnings, so that they meet in the cache, and part at any token.
  private static func jobs(_ count: Int, seed: UInt64) -> [Job] {
    var random = SeededGenerator(seed: seed)
    let beginnings = (0..<3).map { Tiny.prompt(90, seed: seed + UInt64($0)) }
    return (0..<count).map { index in
      let beginning = beginnings.randomElement(using: &random)!.prefix(Int.random(in: 0...90, using: &random))
      var sampling = SamplingParams(seed: UInt64(index), logprobs: 1, ignoresEndTokens: true)
      sampling.maxTokens = Int.random(in: 1...40, using: &random)
      if index % 2 == 1 { sampling.temperature = 0.9 }
      if index % 4 == 0 { sampling.cacheRetention = KVRetention.allCases.randomElement(using: &random)! }
      return Job(
        prompt: beginning + Tiny.prompt(Int.random(in: 1...20, using: &random), seed: seed + 100 + UInt64(index)), sampling: sampling)
    }
  }

  /// How many schedules to run in all: `MARTLET_RANDOM_SCHEDULES=10000 swift test …`; nil runs for some seconds.
  private static let wanted = ProcessInfo.processInfo.environment["MARTLET_RANDOM_SCHEDULES"].flatMap(Int.init)

  /// Bytes of this many tokens' keys and values.
  private static func budget(_ model: TinyModel, tokens: Int, _ dataType: DataType) -> KVCacheConfig.Budget {
    .bytes(tokens * model.numLayers * model.numKVHeads * model.headDim * 2 * dataType.byteCount)
  }

  @Test(
    "give every request the tokens that it gets alone", arguments: [TinyModel.Architecture.llama, .gemma3],
    PrefixReuseTests.Variant.all.filter { [.bf16, .f8e4m3].contains($0.dataType) })
  func schedules(architecture: TinyModel.Architecture, variant: PrefixReuseTests.Variant) async throws {
    let model = TinyModel(architecture, seed: 51)
    let jobs = Self.jobs(40, seed: 700)
    let single = try Tiny.llm(
      model, backend: variant.backend, dataType: variant.dataType, context: 160, maxBatchSize: 1, maxNumTokens: 160, reusesPrefixes: false)
    var alone: [GenerationOutput] = []
    for job in jobs { alone.append(try await single.generate(.tokenIDs(job.prompt), sampling: job.sampling).output()) }
    // Five seconds' worth, or this one's share of the number that is wanted: half of the variants in two architectures are all cases.
    let cases = PrefixReuseTests.Variant.all.count
    let wanted = Self.wanted.map { ($0 + cases - 1) / cases }
    let deadline = ContinuousClock.now + .seconds(5)
    var random = SeededGenerator(seed: 52)
    var (schedules, requests, cancelled, pauses, reused, copies) = (0, 0, 0, 0, 0, 0)
    // On a machine that is busy with other things, at least until what is looked for has happened.
    while wanted.map({ schedules < $0 }) ?? (ContinuousClock.now < deadline || copies == 0 && schedules < 200) {
      let llm = try Tiny.llm(
        model, backend: variant.backend, dataType: variant.dataType, pageSize: .tokens([16, 32, 64].randomElement(using: &random)!),
        budget: Self.budget(model, tokens: Int.random(in: 200...500, using: &random), variant.dataType), context: 160,
        maxBatchSize: Int.random(in: 2...10, using: &random), maxNumTokens: Int.random(in: 10...90, using: &random),
        chunkSize: Int.random(in: 1...40, using: &random), reusesPrefixes: Int.random(in: 0..<4, using: &random) > 0,
        capacityPolicy: Int.random(in: 0..<4, using: &random) > 0 ? .maxUtilization : .guaranteedNoEvict)
      var running: [(index: Int, generation: Generation, isCancelled: Bool)] = []
      for _ in 0..<Int.random(in: 5...25, using: &random) {
        let index = Int.random(in: 0..<jobs.count, using: &random)
        let generation = try llm.generate(.tokenIDs(jobs[index].prompt), sampling: jobs[index].sampling)
        running.append((index, generation, false))
        switch Int.random(in: 0..<6, using: &random) {
        case 0:
          let victim = Int.random(in: 0..<running.count, using: &random)
          running[victim].generation.cancel()
          running[victim].isCancelled = true
        case 1: try await Task.sleep(for: .microseconds(Int.random(in: 0...3000, using: &random)))
        default: break
        }
      }
      for (index, generation, isCancelled) in running {
        let output = try await generation.output()
        // A page holds a multiple of 16 tokens.
        if output.cachedPromptTokens % 16 > 0 { copies += 1 }
        if isCancelled && output.finishReason == .cancelled {
          #expect(output.tokenIDs == Array(alone[index].tokenIDs.prefix(output.tokenIDs.count)))
          cancelled += 1
        } else {
          #expect(output.bits == alone[index].bits && output.text == alone[index].text)
        }
      }
      let statistics = try await Tiny.statistics(of: llm) { $0.finishedRequests + $0.cancelledRequests == running.count }
      #expect(statistics.pools.allSatisfy { $0.heldPages == 0 && $0.freePages + $0.cachedPages == $0.totalPages })
      schedules += 1
      requests += running.count
      pauses += statistics.pauses
      reused += statistics.cachedPromptTokens
    }
    print(
      "\(architecture.rawValue), \(variant.testDescription): \(schedules) random schedules of \(requests) requests, "
        + "\(cancelled) cancelled, \(pauses) pauses, \(reused) prompt tokens reused, \(copies) requests that began with a copied page")
    #expect(schedules > 0 && copies > 0)
  }

  @Test("of 200 requests in a quarter of the room end, and hold no more pages than there are", arguments: TinyModel.Architecture.allCases)
  func pressure(architecture: TinyModel.Architecture) async throws {
    let model = TinyModel(architecture, seed: 53)
    let jobs = Self.jobs(200, seed: 800)
    // 16 requests may run; together they would take up to 16 · 150 tokens, and there is room for a quarter of that.
    let metrics = TestMetrics()
    let llm = try Tiny.llm(
      model, budget: Self.budget(model, tokens: 600, .bf16), context: 160, maxBatchSize: 16, maxNumTokens: 64, chunkSize: 32,
      capacityPolicy: .maxUtilization, metricsFactory: metrics)
    var generations: [Generation] = []
    for job in jobs { generations.append(try llm.generate(.tokenIDs(job.prompt), sampling: job.sampling)) }
    let watcher = Task {
      var most = 0.0
      while !Task.isCancelled {
        for pool in llm.statistics.pools {
          most = max(most, Double(pool.heldPages) / Double(pool.totalPages))
          #expect(pool.freePages + pool.cachedPages + pool.heldPages == pool.totalPages)
        }
        try? await Task.sleep(for: .milliseconds(1))
      }
      return most
    }
    let single = try Tiny.llm(model, context: 160, maxBatchSize: 1, maxNumTokens: 160, reusesPrefixes: false)
    var pauses = 0
    for (index, generation) in generations.enumerated() {
      let output = try await generation.output()
      pauses += output.pauses
      #expect(index > 0 || output.pauses == 0)  // the first is the oldest all its life
      #expect(output.finishReason == .length && output.tokenIDs.count == jobs[index].sampling.maxTokens)
      if index % 10 == 0 {
        #expect(output.bits == (try await single.generate(.tokenIDs(jobs[index].prompt), sampling: jobs[index].sampling).output()).bits)
      }
    }
    watcher.cancel()
    let most = await watcher.value
    let statistics = try await Tiny.statistics(of: llm) { $0.finishedRequests == 200 }
    print("\(architecture.rawValue): \(statistics.pauses) pauses, hit rate \(statistics.prefixHitRate), at most \(most) of a pool held")
    #expect(most <= 1 && statistics.finishedRequests == 200)
    #expect(pauses == statistics.pauses)
    // Read after the last step, which may still be counting.
    await llm.shutdown()
    #expect(metrics.counterTotal(label: "martlet_pauses_total") == Int64(pauses))
    #expect(metrics.counterTotal(label: "martlet_cached_prompt_tokens_total") == Int64(llm.statistics.cachedPromptTokens))
    #expect(architecture != .llama || statistics.pauses > 0, "the room was to be so tight that requests pause")
  }

  @Test("score a text once, also where it pauses half-way")
  func scores() async throws {
    let model = TinyModel(.llama, seed: 55) { $0.contextLength = 1100 }
    let texts = (0..<5).map { Tiny.prompt(1000, seed: UInt64(900 + $0)) }
    // A text is admitted while its 63 pages of 16 tokens are free, and takes them eight tokens at a time: two do not fit 94 pages.
    let llm = try Tiny.llm(
      model, budget: Self.budget(model, tokens: 94 * 16, .bf16), context: 1100, chunkSize: 8, capacityPolicy: .maxUtilization)
    let single = try Tiny.llm(model, context: 1100, maxBatchSize: 1)
    let together = try await withThrowingTaskGroup(of: (Int, [Float]).self) { group in
      for (index, text) in texts.enumerated() { group.addTask { (index, try await llm.score(text)) } }
      return try await group.reduce(into: [Int: [Float]]()) { $0[$1.0] = $1.1 }
    }
    for (index, text) in texts.enumerated() {
      let alone = try await single.score(text)
      #expect(together[index]?.map(\.bitPattern) == alone.map(\.bitPattern) && alone.count == 999)
    }
    let statistics = try await Tiny.statistics(of: llm) { $0.finishedRequests == texts.count }
    #expect(statistics.pauses > 0, "the room was to be so tight that texts pause")
  }

  /// In what order readers wake says nothing of the order in which requests end, so that only the end is asked for.
  @Test("let every request end where one alone takes all pages")
  func oldest() async throws {
    let model = TinyModel(.llama, seed: 54)
    // Five pages of 16 tokens: one request of 70 tokens takes them all.
    let llm = try Tiny.llm(model, budget: Self.budget(model, tokens: 80, .bf16), context: 80, capacityPolicy: .maxUtilization)
    let prompts = (0..<6).map { Prompt.tokenIDs(Tiny.prompt(10, seed: UInt64($0))) }
    let generations = try llm.generate(prompts, sampling: SamplingParams(maxTokens: 60, ignoresEndTokens: true))
    for generation in generations { #expect(try await generation.output().tokenIDs.count == 60) }
    let statistics = try await Tiny.statistics(of: llm) { $0.finishedRequests == 6 }
    #expect(statistics.pauses > 0)
  }
}
