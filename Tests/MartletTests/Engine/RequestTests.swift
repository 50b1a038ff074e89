// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Martlet
import MartletCPU
import MartletCore
import MartletTestSupport
import Metrics
import MetricsTestKit
import Testing

/// How requests end, and what their readers and the engine's watchers see, on tiny models.
@Suite("Requests", .timeLimit(.minutes(45)))
struct RequestTests {
  private static let model = TinyModel(.llama, seed: 51)
  private static let endless = SamplingParams(ignoresEndTokens: true)

  // MARK: Deadlines

  @Test("end with what they have when their time is over, whether they run or wait, and not before")
  func deadlines() async throws {
    let clock = ManualClock()
    let llm = try Tiny.endless(seed: 51, maxBatchSize: 2, clock: clock)
    var timed = Self.endless
    timed.timeout = .seconds(10)
    let neighbour = try llm.generate("no deadline", sampling: Self.endless)
    let running = try llm.generate("ten seconds", sampling: timed)
    let started = try await Tiny.statistics(of: llm) { $0.runningRequests == 2 }
    #expect(started.runningRequests == 2)
    clock.advance(by: .seconds(4))
    let waiting = try llm.generate("ten seconds too", sampling: timed)

    clock.advance(by: .milliseconds(5999))
    let before = llm.statistics.steps
    let still = try await Tiny.statistics(of: llm) { $0.steps > before + 3 }
    #expect(still.steps > before + 3 && still.runningRequests == 2 && still.waitingRequests == 1)

    clock.advance(by: .milliseconds(1))
    let late = try await running.output()
    #expect(late.finishReason == .deadline && late.tokenIDs.count > 3)
    let promoted = try await Tiny.statistics(of: llm) { $0.ended[.deadline] == 1 && $0.runningRequests == 2 }
    #expect(promoted.ended[.deadline] == 1 && promoted.runningRequests == 2 && promoted.waitingRequests == 0)

    // Four seconds younger, so it is late four seconds later. One more waits behind it, and never runs.
    var short = timed
    short.timeout = .seconds(1)
    let never = try llm.generate("one second", sampling: short)
    _ = try await Tiny.statistics(of: llm) { $0.waitingRequests == 1 }
    clock.advance(by: .seconds(1))
    let unlucky = try await never.output()
    #expect(unlucky.finishReason == .deadline && unlucky.tokenIDs.isEmpty && unlucky.text.isEmpty)
    clock.advance(by: .seconds(3))
    #expect(try await waiting.output().finishReason == .deadline)

    neighbour.cancel()
    #expect(try await neighbour.output().finishReason == .cancelled)
    let end = try await Tiny.statistics(of: llm) { $0.runningRequests == 0 }
    #expect(end.ended == [.deadline: 3, .cancelled: 1] && end.hasEveryPage)
  }

  @Test("say what of their prompt was in the cache also where they end before a token")
  func cachedPromptOfLate() async throws {
    let clock = ManualClock()
    let llm = try LLM(
      file: TinyModel(.llama, seed: 51) { $0.contextLength = 65_536 }.file(),
      configuration: EngineConfiguration(
        device: CPUDevice(threads: 1), maxSequenceLength: 65_536, maxBatchSize: 1, maxNumTokens: 8, clock: clock))
    let prompt = Tiny.prompt(60_000, seed: 1)
    let first = try await llm.generate(.tokenIDs(Array(prompt[..<64])), sampling: SamplingParams(maxTokens: 1)).output()
    #expect(first.cachedPromptTokens == 0)
    var timed = Self.endless
    timed.timeout = .seconds(1)
    // Chunks of eight tokens: its prompt is not through when its time is over.
    let late = try llm.generate(.tokenIDs(prompt), sampling: timed)
    _ = try await Tiny.statistics(of: llm) { $0.runningRequests == 1 }
    clock.advance(by: .seconds(1))
    let output = try await late.output()
    #expect(output.finishReason == .deadline && output.tokenIDs.isEmpty)
    #expect(output.cachedPromptTokens >= 60, "\(output.cachedPromptTokens) of 64")
  }

  @Test("refuse a timeout that is no time")
  func timeout() {
    for timeout in [Duration.zero, .seconds(-1)] {
      #expect { try SamplingParams(timeout: timeout).validate() } throws: { "\($0)".contains("timeout") }
    }
  }

  // MARK: Readers

  @Test("are read once: who comes second, at the same time or later, is told so")
  func readTwice() async throws {
    let llm = try Tiny.endless(seed: 51, maxBatchSize: 2)
    let short = try llm.generate("short", sampling: SamplingParams(maxTokens: 2, ignoresEndTokens: true))
    #expect(try await short.output().tokenIDs.count == 2)
    await #expect(throws: LLMError.alreadyRead) { try await short.output() }

    let channel = ChunkChannel(waker: Waker(), abandoned: {})
    let reader = Task { try await channel.next(isolation: nil) }
    // Whichever comes second fails; the other goes on waiting.
    let second = Task { try await channel.next(isolation: nil) }
    var failures = 0
    let first = await withTaskGroup(of: Bool.self) { group in
      group.addTask { await Self.isAlreadyRead(reader) }
      group.addTask { await Self.isAlreadyRead(second) }
      let first = await group.next()!
      failures += first ? 1 : 0
      reader.cancel()
      second.cancel()
      for await other in group where other { failures += 1 }
      return first
    }
    #expect(first && failures == 1)
  }

  private static func isAlreadyRead(_ reader: Task<GenerationChunk?, any Error>) async -> Bool {
    do {
      _ = try await reader.value
      return false
    } catch {
      return error as? LLMError == .alreadyRead
    }
  }

  @Test("keep one chunk for a reader that sleeps, with all that came meanwhile")
  func sleepingReader() async throws {
    let llm = try Tiny.llm(Self.model)
    let sampling = SamplingParams(temperature: 20, maxTokens: 30, logprobs: 1, promptLogprobs: 0, ignoresEndTokens: true)
    let expected = try await llm.generate("sleep well", sampling: sampling).output()
    let generation = try llm.generate("sleep well", sampling: sampling)
    _ = try await Tiny.statistics(of: llm) { $0.finishedRequests == 2 }
    var chunks: [GenerationChunk] = []
    for try await chunk in generation { chunks.append(chunk) }
    var whole = GenerationChunk(
      text: expected.text, tokenIDs: expected.tokenIDs, logprobs: expected.logprobs, promptLogprobs: expected.promptLogprobs,
      finishReason: .length)
    whole.cachedPromptTokens = 0
    #expect(chunks == [whole])
    #expect(expected.tokenIDs.count == 30 && expected.logprobs.count == 30 && expected.promptLogprobs.count == 9)
  }

  /// When the statistics read n steps after the stream was dropped, the step that may run has number n + 1, and the one after it must not be.
  @Test("that nobody reads any more are gone before the next step", arguments: 0..<8)
  func dropped(attempt: Int) async throws {
    let llm = try Tiny.endless(seed: 51, maxBatchSize: 1)
    var generation: Generation? = try llm.generate("drop me", sampling: Self.endless)
    _ = try await Tiny.statistics(of: llm) { $0.generatedTokens > attempt }
    _ = generation
    generation = nil
    let steps = llm.statistics.steps
    let statistics = try await Tiny.statistics(of: llm) { $0.runningRequests == 0 }
    #expect(statistics.runningRequests == 0 && statistics.steps <= steps + 1)
    #expect(statistics.ended == [.cancelled: 1] && statistics.hasEveryPage)
  }

  @Test("are finished by a shutdown though nobody reads them")
  func drain() async throws {
    let llm = try Tiny.llm(Self.model, maxBatchSize: 3)
    let generations = try llm.generate("drain", sampling: SamplingParams(temperature: 1, maxTokens: 25, ignoresEndTokens: true), count: 12)
    await llm.shutdown()
    #expect(llm.statistics.ended == [.length: 12])
    for generation in generations { #expect(try await generation.output().tokenIDs.count == 25) }
  }

  // MARK: Errors

  @Test("with logits that are no numbers fail alone")
  func notFinite() async throws {
    var model = TinyModel(.llama, seed: 52) { $0.hasOutput = true }
    let poison = 77
    let width = model.hiddenSize
    for column in 0..<width { model.matrices["token_embd.weight"]!.values[poison * width + column] = .nan }
    let llm = try Tiny.llm(model)
    let sampling = SamplingParams(temperature: 20, logitBias: [poison: -100], maxTokens: 20, logprobs: 3, ignoresEndTokens: true)
    let prompts = (0..<6).map { seed in Tiny.prompt(15, seed: UInt64(seed)).map { $0 == poison ? 0 : $0 } }
    var alone: [[UInt32]] = []
    for prompt in prompts { alone.append(try await llm.generate(.tokenIDs(prompt), sampling: sampling).output().bits) }

    let generations = try llm.generate(
      prompts.flatMap { [.tokenIDs($0), .tokenIDs($0.dropLast(3) + [poison])] }, sampling: sampling)
    for (place, generation) in generations.enumerated() {
      if place % 2 == 0 {
        #expect(try await generation.output().bits == alone[place / 2])
      } else {
        await #expect(throws: LLMError.notFinite(tokenIndex: 0)) { try await generation.output() }
      }
    }
    let statistics = try await Tiny.statistics(of: llm) { $0.runningRequests == 0 && $0.ended[.failed] == 6 }
    #expect(statistics.ended == [.length: 12, .failed: 6] && statistics.hasEveryPage)
  }

  /// Values of about a million: in float16 they are infinite, and 0 · ∞ is no number.
  @Test("whose values overflow a float16 cache fail with its name and the way out, in generation and in scoring")
  func overflow() async throws {
    var model = TinyModel(.llama, seed: 53)
    for layer in 0..<model.numLayers {
      model.matrices["blk.\(layer).attn_v.weight"]!.values = model.matrices["blk.\(layer).attn_v.weight"]!.values.map { $0 * 1e6 }
    }
    let prompt = Tiny.prompt(20, seed: 1)
    let narrow = try Tiny.llm(model, dataType: .f16)
    let sampling = SamplingParams(maxTokens: 2, ignoresEndTokens: true)
    await #expect(throws: LLMError.cacheOverflow(tokenIndex: 0, dataType: .f16)) {
      try await narrow.generate(.tokenIDs(prompt), sampling: sampling).output()
    }
    let error = await #expect(throws: LLMError.self) { try await narrow.score(prompt) }
    let text = "\(try #require(error))"
    #expect(text.contains("cache is f16") && text.contains("kvCache.dataType"))
    var withPrompt = sampling
    withPrompt.promptLogprobs = 1
    await #expect(throws: LLMError.self) { try await narrow.generate(.tokenIDs(prompt), sampling: withPrompt).output() }
    let statistics = try await Tiny.statistics(of: narrow) { $0.runningRequests == 0 && $0.ended[.failed] == 3 }
    #expect(statistics.ended == [.failed: 3] && statistics.hasEveryPage)

    let wide = try Tiny.llm(model, dataType: .bf16)
    #expect(try await wide.score(prompt).allSatisfy { $0.isFinite })
    #expect(try await wide.generate(.tokenIDs(prompt), sampling: sampling).output().tokenIDs.count == 2)
  }

  // MARK: Numbers

  @Test("are counted and timed, in the statistics and in the application's metrics alike")
  func numbers() async throws {
    let metrics = TestMetrics()
    let llm = try Tiny.endless(seed: 51, maxBatchSize: 3, metricsFactory: metrics)
    let generations = try llm.generate("count", sampling: SamplingParams(temperature: 1, maxTokens: 10, ignoresEndTokens: true), count: 3)
    for generation in generations { _ = try await generation.output() }
    let cancelled = try llm.generate("cancel", sampling: Self.endless)
    for try await chunk in cancelled where !chunk.tokenIDs.isEmpty { cancelled.cancel() }
    _ = try await llm.score([1, 2, 3, 4])
    await llm.shutdown()

    let statistics = llm.statistics
    #expect(statistics.ended == [.length: 3, .cancelled: 1, .scored: 1])
    #expect(statistics.finishedRequests == 4 && statistics.cancelledRequests == 1)
    #expect(statistics.stepTime.count == statistics.steps && statistics.stepTime.total > .zero)
    #expect(statistics.timeToFirstToken.count == 4)
    #expect(statistics.interTokenTime.count == statistics.generatedTokens - 4)
    let mean = try #require(statistics.interTokenTime.mean)
    #expect(
      mean > .zero && mean <= statistics.interTokenTime.longest && statistics.interTokenTime.longest <= statistics.interTokenTime.total)

    #expect(metrics.counterTotal(label: "martlet_steps_total") == Int64(statistics.steps))
    #expect(metrics.counterTotal(label: "martlet_prompt_tokens_total") == Int64(statistics.promptTokens))
    #expect(metrics.counterTotal(label: "martlet_generated_tokens_total") == Int64(statistics.generatedTokens))
    #expect(metrics.counterTotal(label: "martlet_cached_prompt_tokens_total") == Int64(statistics.cachedPromptTokens))
    #expect(metrics.counterTotal(label: "martlet_pauses_total") == 0)
    let pool = try #require(statistics.pools.first)
    for (label, pages) in [
      ("martlet_free_pages", pool.freePages), ("martlet_cached_pages", pool.cachedPages), ("martlet_held_pages", pool.heldPages),
    ] {
      #expect(try metrics.expectGauge(label, [("pool", "0")]).lastValue == Double(pages))
    }
    let held = try metrics.expectGauge("martlet_held_pages", [("pool", "0")]).values
    #expect(held.max() ?? 0 > 0 && Int(held.max() ?? 0) <= pool.mostHeldPages && pool.mostHeldPages <= pool.totalPages)
    // The three parts of a step are all of it, with what is done between steps.
    let parts = statistics.modelTime.total + statistics.samplingTime.total + statistics.overheadTime.total
    #expect(parts >= statistics.stepTime.total && statistics.modelTime.total + statistics.samplingTime.total <= statistics.stepTime.total)
    #expect(statistics.modelTime.total > .zero && statistics.overheadShare > 0 && statistics.overheadShare < 1)
    for end in EngineStatistics.End.allCases {
      #expect(
        metrics.counterTotal(label: "martlet_requests_total", dimensions: [("end", end.rawValue)]) == Int64(statistics.ended[end] ?? 0))
    }
    #expect(try metrics.expectGauge("martlet_running_requests").values.max() == 3)
    #expect(try metrics.expectGauge("martlet_running_requests").lastValue == 0)
    #expect(try metrics.expectGauge("martlet_waiting_requests").lastValue == 0)
    let stepTokens = try metrics.expectRecorder("martlet_step_tokens").values
    #expect(stepTokens.count == statistics.steps)
    // The last token of an answer is never computed, nor is that of a cancelled one whose next step did not come.
    #expect(Int(stepTokens.reduce(0, +)) == statistics.promptTokens + statistics.generatedTokens - 4)
    #expect(try metrics.expectTimer("martlet_step_time").values.count == statistics.steps)
    let first = try metrics.expectTimer("martlet_time_to_first_token").values
    #expect(first.count == 4 && first.allSatisfy { $0 > 0 })
    #expect(try metrics.expectTimer("martlet_inter_token_time").values.count == statistics.interTokenTime.count)
    // The parts of a request's time are all of it; the scored text had no token and has none.
    let shares = try ["queue", "prefill", "decode"].map { try metrics.expectTimer("martlet_\($0)_time").values }
    let whole = try metrics.expectTimer("martlet_request_time").values
    #expect(whole.count == 4 && shares.allSatisfy { $0.count == 4 && $0.allSatisfy { $0 >= 0 } })
    #expect(whole.indices.allSatisfy { index in shares.reduce(0) { $0 + $1[index] } == whole[index] })
    let generated = try metrics.expectRecorder("martlet_request_generated_tokens").values
    #expect(generated.count == 4 && Int(generated.reduce(0, +)) == statistics.generatedTokens)
  }
}
