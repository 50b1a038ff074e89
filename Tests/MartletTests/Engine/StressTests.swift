// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Martlet
import MartletTestSupport
import Testing

/// Many tasks at once, some of which lose interest: the others get the tokens that they get alone, and every page comes back.
@Suite("Many streams", .serialized, .timeLimit(.minutes(45)))
struct StressTests {
  struct Job: Sendable {
    /// How a reader loses interest, and after how many chunks.
    enum Leaving: Sendable {
      case cancels(after: Int)
      case breaks(after: Int)
      case taskCancelled
    }

    var prompt: [Int]
    var sampling: SamplingParams
    var leaving: Leaving?
  }

  /// One in ten leaves.
  private static func jobs(
    _ count: Int, promptLength: ClosedRange<Int>, maxTokens: ClosedRange<Int>, temperature: Float, seed: UInt64
  ) -> [Job] {
    var generator = SeededGenerator(seed: seed)
    return (0..<count).map { index in
      var sampling = SamplingParams(seed: UInt64(index), ignoresEndTokens: true)
      sampling.maxTokens = Int.random(in: maxTokens, using: &generator)
      if index % 2 == 1 { sampling.temperature = temperature }
      if index % 3 == 1 { sampling.frequencyPenalty = 0.5 }
      if index % 5 == 1 { sampling.repetitionPenalty = 1.2 }
      var leaving: Job.Leaving?
      if Int.random(in: 0..<10, using: &generator) == 0 {
        let chunks = Int.random(in: 0...maxTokens.upperBound / 2, using: &generator)
        leaving =
          switch Int.random(in: 0..<3, using: &generator) {
          case 0: .cancels(after: chunks)
          case 1: .breaks(after: chunks)
          default: .taskCancelled
          }
      }
      let length = Int.random(in: promptLength, using: &generator)
      return Job(prompt: Tiny.prompt(length, seed: seed &+ UInt64(index)), sampling: sampling, leaving: leaving)
    }
  }

  /// The tokens of every answer that was read to its end, in a task of its own for each.
  private func run(_ jobs: [Job], on llm: LLM) async throws -> [[Int]?] {
    try await withThrowingTaskGroup(of: (Int, [Int]?).self) { group in
      for (place, job) in jobs.enumerated() {
        group.addTask { (place, try await Self.read(job, from: llm)) }
      }
      return try await group.reduce(into: Array(repeating: nil, count: jobs.count)) { $0[$1.0] = $1.1 }
    }
  }

  private static func read(_ job: Job, from llm: LLM) async throws -> [Int]? {
    if case .taskCancelled = job.leaving {
      let reader = Task { try await llm.generate(.tokenIDs(job.prompt), sampling: job.sampling).output() }
      await Task.yield()
      reader.cancel()
      _ = await reader.result
      return nil
    }
    let generation = try llm.generate(.tokenIDs(job.prompt), sampling: job.sampling)
    var tokens: [Int] = []
    var chunks = 0
    for try await chunk in generation {
      tokens += chunk.tokenIDs
      if case .breaks(let after) = job.leaving, chunks >= after { return nil }
      if case .cancels(let after) = job.leaving, chunks == after { generation.cancel() }
      chunks += 1
    }
    return job.leaving == nil ? tokens : nil
  }

  private func check(_ jobs: [Job], crowded: LLM, single: LLM) async throws {
    let together = try await run(jobs, on: crowded)
    let statistics = try await Tiny.statistics(of: crowded) { $0.runningRequests == 0 && $0.waitingRequests == 0 }
    #expect(statistics.runningRequests == 0 && statistics.waitingRequests == 0)
    #expect(statistics.hasEveryPage)
    #expect(statistics.ended.values.reduce(0, +) == jobs.count)
    #expect(statistics.steps < statistics.generatedTokens / 2, "hardly anything ever ran together")

    // Submitted at once to an engine that runs one request at a time.
    let staying = jobs.indices.filter { jobs[$0].leaving == nil }
    #expect(staying.count < jobs.count && staying.count > jobs.count * 3 / 4)
    var alone: [(Int, Generation)] = []
    for place in staying { alone.append((place, try single.generate(.tokenIDs(jobs[place].prompt), sampling: jobs[place].sampling))) }
    for (place, generation) in alone {
      let expected = try await generation.output().tokenIDs
      #expect(together[place] == expected, "request \(place)")
      #expect(expected.count == jobs[place].sampling.maxTokens)
    }
  }

  @Test("a thousand of them on a tiny model")
  func tiny() async throws {
    let model = TinyModel(.llama, seed: 61)  // random weights are sure of themselves: it takes heat to make their answers vary
    try await check(
      Self.jobs(1000, promptLength: 1...24, maxTokens: 4...24, temperature: 20, seed: 62),
      crowded: Tiny.llm(model, context: 64, maxBatchSize: 32, chunkSize: 16), single: Tiny.llm(model, context: 64, maxBatchSize: 1))
  }

  /// Few enough for the thread sanitizer.
  @Test("a hundred and fifty of them on a tiny model")
  func few() async throws {
    let model = TinyModel(.llama, seed: 63)
    try await check(
      Self.jobs(150, promptLength: 1...24, maxTokens: 4...16, temperature: 20, seed: 64),
      crowded: Tiny.llm(model, context: 64, maxBatchSize: 16, chunkSize: 16), single: Tiny.llm(model, context: 64, maxBatchSize: 1))
  }

  @Test("two dozen of them on a real model")
  func real() async throws {
    try await check(
      Self.jobs(24, promptLength: 2...12, maxTokens: 4...10, temperature: 0.9, seed: 65),
      crowded: await RealModel.llm("smollm2-135m", context: 64, maxBatchSize: 12),
      single: await RealModel.llm("smollm2-135m", context: 64, maxBatchSize: 1))
  }
}
