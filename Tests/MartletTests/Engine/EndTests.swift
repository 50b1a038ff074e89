// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import Logging
import Martlet
import MartletAttention
import MartletCPU
import MartletCore
import MartletFormats
import MartletModels
import MartletTestSupport
import Synchronization
import Testing

/// How streams and engines end, and what a service can see and say of its requests.
@Suite("Ends", .timeLimit(.minutes(45)))
struct EndTests {
  private static let model = TinyModel(.llama, seed: 51)
  private static let endless = SamplingParams(ignoresEndTokens: true)

  // MARK: Readers

  @Test("throw a cancelled reader's CancellationError: what it has is no answer", arguments: [false, true])
  func cancelledReader(isOutput: Bool) async throws {
    let llm = try Tiny.endless(seed: 51, maxBatchSize: 1)
    let generation = try llm.generate("read me", sampling: Self.endless)
    let began = Door()
    let reader = Task {
      if isOutput {
        began.open()
        _ = try await generation.output()
      } else {
        for try await _ in generation { began.open() }
      }
    }
    while !began.isOpen { try await Task.sleep(for: .milliseconds(1)) }
    reader.cancel()
    await #expect(throws: CancellationError.self) { try await reader.value }
    await llm.shutdown()
    #expect(llm.statistics.ended == [.cancelled: 1] && llm.statistics.hasEveryPage)
  }

  @Test("come whole to a reader that is cancelled when it has everything")
  func cancelledLate() async throws {
    let llm = try Tiny.llm(Self.model)
    let generation = try llm.generate("read me", sampling: SamplingParams(maxTokens: 3, ignoresEndTokens: true))
    let reader = Task {
      var reason: FinishReason?
      for try await chunk in generation {
        reason = chunk.finishReason
        if reason != nil { withUnsafeCurrentTask { $0?.cancel() } }
      }
      return reason
    }
    #expect(try await reader.value == .length)
  }

  @Test("are counted before they are told", arguments: ["answer", "cancel", "score", "failure"])
  func countedFirst(end: String) async throws {
    let isEndless = end == "cancel"
    let llm =
      isEndless
      ? try Tiny.endless(seed: 51, maxBatchSize: 1)
      : try Tiny.llm(Self.model, dataType: .f16)
    for round in 1...50 {
      switch end {
      case "answer":
        _ = try await llm.generate("a", sampling: SamplingParams(maxTokens: 2, ignoresEndTokens: true)).output()
        #expect(llm.statistics.ended == [.length: round])
      case "score":
        _ = try await llm.score([1, 2, 3])
        #expect(llm.statistics.ended == [.scored: round])
      case "failure":
        let nan = RequestOptions { logits, _ in for index in logits.indices { logits[index] = .nan } }
        await #expect(throws: LLMError.self) { try await llm.generate("a", options: nan).output() }
        #expect(llm.statistics.ended == [.failed: round])
      default:
        let generation = try llm.generate("a", sampling: Self.endless)
        generation.cancel()
        #expect(try await generation.output().finishReason == .cancelled)
        #expect(llm.statistics.ended == [.cancelled: round])
      }
      #expect(llm.statistics.runningRequests == 0 && llm.statistics.hasEveryPage)
    }
  }

  // MARK: Shutdown

  @Test("come after the grace period to what has not finished, and not before")
  func gracePeriod() async throws {
    let clock = ManualClock()
    let llm = try Tiny.endless(seed: 51, maxBatchSize: 2, clock: clock)
    let generations = try llm.generate("never ends", sampling: Self.endless, count: 4)
    let short = try llm.generate("short", sampling: SamplingParams(maxTokens: 2, ignoresEndTokens: true))
    short.cancel()
    #expect(llm.state == .running && llm.isRunning)
    let shutdown = Task { await llm.shutdown(gracePeriod: .seconds(5)) }
    while clock.sleeperCount == 0 { try await Task.sleep(for: .milliseconds(1)) }
    #expect(llm.state == .shuttingDown && !llm.isRunning)
    #expect(throws: LLMError.stopped("it was shut down")) { try llm.generate("late") }
    clock.advance(by: .milliseconds(4999))
    let steps = llm.statistics.steps
    #expect(try await Tiny.statistics(of: llm) { $0.steps > steps + 3 }.runningRequests == 2)
    clock.advance(by: .milliseconds(1))
    await shutdown.value
    #expect(llm.state == .ended(nil))
    for generation in generations {
      let error = await #expect(throws: LLMError.self) { try await generation.output() }
      #expect(error?.code == .stopped)
    }
    #expect(try await short.output().finishReason == .cancelled)
    #expect(llm.statistics.ended == [.failed: 4, .cancelled: 1] && llm.statistics.hasEveryPage)
  }

  @Test("come at once where the shutdown's task is cancelled, with 2000 requests in the queue")
  func cancelledShutdown() async throws {
    let llm = try Tiny.endless(seed: 51, maxBatchSize: 2)
    let generations = try llm.generate("never ends", sampling: Self.endless, count: 2000)
    let shutdown = Task { await llm.shutdown() }
    while llm.state != .shuttingDown { try await Task.sleep(for: .milliseconds(1)) }
    let steps = llm.statistics.steps
    shutdown.cancel()
    await shutdown.value
    #expect(llm.statistics.steps <= steps + 3)
    #expect(llm.statistics.ended == [.failed: 2000])
    withExtendedLifetime(generations) {}
  }

  @Test("need no grace period where everything finishes before")
  func graceUnused() async throws {
    let clock = ManualClock()
    let llm = try Tiny.llm(Self.model, clock: clock)
    let generation = try llm.generate("short", sampling: SamplingParams(maxTokens: 5, ignoresEndTokens: true))
    // As long as a duration can be.
    await llm.shutdown(gracePeriod: .seconds(Int64.max))
    #expect(try await generation.output().tokenIDs.count == 5)
    #expect(clock.sleeperCount == 0)
  }

  @Test("of run() come with the shutdown, with its task's cancellation, and with the failure that ended the engine")
  func service() async throws {
    let first = try Tiny.llm(Self.model)
    let running = Task { try await first.run() }
    await first.shutdown()
    try await running.value

    let second = try Tiny.endless(seed: 51, maxBatchSize: 1)
    let generation = try second.generate("never ends", sampling: Self.endless)
    let cancelled = Task { try await second.run() }
    _ = try await Tiny.statistics(of: second) { $0.runningRequests == 1 }
    cancelled.cancel()
    try await cancelled.value
    await #expect(throws: LLMError.self) { try await generation.output() }
    #expect(second.state == .ended(nil))
  }

  // MARK: Loading

  @Test("of a loading come at any point where its task is cancelled", arguments: [0.0, 0.3, 0.9, 1.0])
  func cancelledLoading(share: Double) async throws {
    let files = try ModelFiles.gguf(GGUFCheckpoint(Self.model.file()))
    let shares = Mutex<[Double]>([])
    let loading = Door()
    let task = Task {
      try await LLM.load(files: files, configuration: EngineConfiguration(device: CPUDevice(threads: 1))) { now in
        shares.withLock { $0.append(now) }
        if now >= share {
          loading.open()
          // Until the test has cancelled the task.
          while !loading.isPassed { usleep(100) }
        }
      }
    }
    while !loading.isOpen { try await Task.sleep(for: .milliseconds(1)) }
    task.cancel()
    loading.pass()
    if share < 1 {
      await #expect(throws: CancellationError.self) { try await task.value }
      #expect(shares.withLock { $0.last! < 1 })
    } else {
      _ = try? await task.value
    }
  }

  @Test("of a loading are the same as of the initialiser")
  func loading() async throws {
    let files = try ModelFiles.gguf(GGUFCheckpoint(Self.model.file()))
    let last = Mutex(0.0)
    let llm = try await LLM.load(files: files) { share in last.withLock { $0 = share } }
    #expect(last.withLock { $0 } == 1)
    let sampling = SamplingParams(maxTokens: 5, logprobs: 2, ignoresEndTokens: true)
    let other = try Tiny.llm(Self.model)
    #expect(try await llm.generate("same", sampling: sampling).output().bits == other.generate("same", sampling: sampling).output().bits)
    await #expect { try await LLM.load(model: "/nowhere/model.gguf") } throws: { "\($0)".contains("/nowhere/model.gguf") }
  }

  // MARK: What a request carries

  @Test("come with a stop token, which counts and is no text, also where end tokens are ignored")
  func stopTokens() async throws {
    let llm = try Tiny.llm(Self.model)
    let free = try await llm.generate("stop", sampling: SamplingParams(maxTokens: 10, ignoresEndTokens: true)).output()
    let stop = free.tokenIDs[4]
    let first = try #require(free.tokenIDs.firstIndex(of: stop))
    var sampling = SamplingParams(maxTokens: 10, ignoresEndTokens: true)
    sampling.stopTokenIDs = [stop, 200]
    let output = try await llm.generate("stop", sampling: sampling).output()
    #expect(output.tokenIDs == Array(free.tokenIDs[...first]) && output.finishReason == .endToken)
    #expect(free.text.hasPrefix(output.text))
    sampling.stopTokenIDs = [100_000]
    #expect { try llm.generate("stop", sampling: sampling) } throws: { ($0 as? LLMError)?.code == .unknownToken }
  }

  @Test("show a logits processor's bans, its place among the tokens, and leave neighbours and log-probabilities alone")
  func logitsProcessor() async throws {
    let llm = try Tiny.llm(Self.model)
    let sampling = SamplingParams(maxTokens: 8, logprobs: 1, ignoresEndTokens: true)
    let free = try await llm.generate("process", sampling: sampling).output()
    let contexts = Mutex<[LogitsContext]>([])
    let banned = free.tokenIDs[0]
    let options = RequestOptions { logits, context in
      contexts.withLock { $0.append(context) }
      logits[banned] = -.infinity
    }
    let processed = try llm.generate("process", sampling: sampling, options: options)
    let neighbour = try llm.generate("process", sampling: sampling)
    let output = try await processed.output()
    #expect(!output.tokenIDs.contains(banned))
    #expect(output.logprobs[0].top[0].tokenID == banned, "the model's own log-probabilities")
    #expect(try await neighbour.output().bits == free.bits)
    let seen = contexts.withLock { $0 }
    let prompt = output.promptTokenIDs.map(Int32.init)
    #expect(seen.map(\.promptTokenCount) == Array(repeating: prompt.count, count: 8))
    #expect(seen.map(\.tokenIDs) == (0..<8).map { prompt + output.tokenIDs.prefix($0).map(Int32.init) })
  }

  @Test("are told in log lines that name the request and hold its metadata")
  func logLines() async throws {
    let lines = Mutex<[(level: Logger.Level, message: String, metadata: Logger.Metadata)]>([])
    var logger = Logger(label: "test") { _ in
      Recorder { level, message, metadata in lines.withLock { $0.append((level, message, metadata)) } }
    }
    logger.logLevel = .debug
    let llm = try Tiny.endless(seed: 51, maxBatchSize: 2, logger: logger)
    let options = RequestOptions(id: "answer-7", metadata: ["user": "ada", "request": "not this"])
    let sampling = SamplingParams(maxTokens: 2, ignoresEndTokens: true)
    let generation = try llm.generate("log me", sampling: sampling, options: options)
    #expect(generation.id == "answer-7" && generation.metadata["user"] == "ada")
    let output = try await generation.output()
    #expect(output.id == "answer-7" && output.metadata == options.metadata)
    let pair = try llm.generate("log me", sampling: sampling, count: 2, options: options)
    #expect(pair.map(\.id) == ["answer-7-0", "answer-7-1"])
    let unnamed = try llm.generate(["a", "b"], sampling: sampling)
    #expect(Set(unnamed.map(\.id)).count == 2)
    let failing = try llm.generate(
      "fail",
      options: RequestOptions(id: "bad") { logits, _ in
        for index in logits.indices { logits[index] = .nan }
      })
    await #expect(throws: LLMError.self) { try await failing.output() }
    await llm.shutdown()
    let all = lines.withLock { $0 }
    let mine = all.filter { $0.metadata["request"] == "answer-7" }
    #expect(mine.map(\.message) == ["a request came", "a request ended"])
    #expect(mine.allSatisfy { $0.metadata["user"] == "ada" })
    #expect(mine.last?.metadata["end"] == "length" && mine.last?.metadata["tokens"] == "2")
    #expect(all.contains { $0.level == .warning && $0.metadata["request"] == "bad" && $0.metadata["error"] != nil })
  }
}

/// A door that one side opens and the other passes.
private final class Door: Sendable {
  private let state = Mutex((isOpen: false, isPassed: false))

  func open() { state.withLock { $0.isOpen = true } }
  func pass() { state.withLock { $0.isPassed = true } }
  var isOpen: Bool { state.withLock { $0.isOpen } }
  var isPassed: Bool { state.withLock { $0.isPassed } }
}
