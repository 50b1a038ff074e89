// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletAllocationCounter
import Foundation
import Martlet
import MartletCPU
import MartletFormats
import MartletKVCache
import MartletModels
import MartletTestSupport
import MartletTokenizers
import Synchronization
import Testing

/// How many tokens readers have read.
private final class ReadCount: Sendable {
  private let count = Atomic(0)

  func add(_ tokens: Int) { count.add(tokens, ordering: .sequentiallyConsistent) }
  var tokens: Int { count.load(ordering: .sequentiallyConsistent) }
}

/// An engine's loop whose turns a test takes, on a thread of its own.
private final class OwnLoop {
  let inbox: Inbox
  let loop: EngineLoop
  let read = ReadCount()
  let waker = Waker()

  init(_ files: ModelFiles, backend: String, maxBatchSize: Int) throws {
    let parts = try EngineParts(
      files.source(for: .builtIn),
      configuration: EngineConfiguration(
        device: CPUDevice(threads: 2), attentionBackend: backend, maxBatchSize: maxBatchSize, maxNumTokens: 128), progress: nil)
    inbox = Inbox(statistics: parts.statistics)
    loop = EngineLoop(
      inbox: inbox, runner: parts.runner, scheduler: parts.scheduler, tokenizer: try files.makeTokenizer(), logger: nil, meters: nil,
      clock: EngineClock(ContinuousClock()))
    try waker.start()
  }

  /// Submits requests, each with a reader that takes its chunks as they come.
  func submit(prompts: [[Int]], sampling: [SamplingParams]) throws -> [Task<(tokens: [Int], text: String), any Error>] {
    try zip(prompts, sampling).map { prompt, sampling in
      let channel = ChunkChannel(waker: waker, abandoned: {})
      try inbox.submit([
        Submission(
          id: inbox.makeID(), prompt: prompt.map(Int32.init), maxLength: prompt.count + (sampling.maxTokens ?? 1), submitted: .zero,
          purpose: .generation(sampling, channel))
      ])
      return Task { [read] in
        var tokens: [Int] = []
        var text = ""
        while let chunk = try await channel.next(isolation: nil) {
          tokens += chunk.tokenIDs
          text += chunk.text
          read.add(chunk.tokenIDs.count)
          if chunk.finishReason != nil { break }
        }
        return (tokens, text)
      }
    }
  }

  /// Sleeps until the readers have read so many tokens.
  func waitForReaders(_ tokens: Int) {
    while read.tokens < tokens { usleep(20) }
  }
}

@Suite(
  "The engine's thread", .serialized, .timeLimit(.minutes(45)),
  .enabled(if: martlet_allocation_counter_is_present(), "a sanitizer or another C library has its own allocator"))
struct SteadyLoopTests {
  /// What requests may differ in without an allocation a token. Log-probabilities are arrays and apart.
  private static func sampling(_ maxTokens: Int) -> [SamplingParams] {
    [
      SamplingParams(maxTokens: maxTokens, ignoresEndTokens: true),
      SamplingParams(temperature: 0.9, seed: 1, maxTokens: maxTokens, ignoresEndTokens: true),
      SamplingParams(temperature: 1, topK: 20, topP: 0.9, seed: 2, maxTokens: maxTokens, timeout: .seconds(1000), ignoresEndTokens: true),
      SamplingParams(seed: 3, maxTokens: maxTokens, stop: ["never this", "\u{1}\u{2}\u{3}\u{4}\u{5}\u{6}"], ignoresEndTokens: true),
    ]
  }

  /// Allocations of this thread in `count` steps of requests that all generate, their readers keeping up.
  private static func count(_ files: ModelFiles, backend: String, steps: Int, warmUp: Int) async throws -> (steady: UInt64, proof: UInt64) {
    let own = try OwnLoop(files, backend: backend, maxBatchSize: 4)
    let prompts = (0..<4).map { Tiny.prompt(10 + $0, seed: UInt64(70 + $0)) }
    let readers = try own.submit(prompts: prompts, sampling: sampling(warmUp + steps + 20))
    let result: (UInt64, UInt64) = try await withCheckedThrowingContinuation { continuation in
      nonisolated(unsafe) let own = own
      do {
        try LoopThread.run {
          do {
            var steady: UInt64 = 0
            var proof: UInt64 = 0
            // The first turn reads the prompts, and every turn gives each request a token.
            for turn in 1...(warmUp + steps) {
              own.waitForReaders(4 * (turn - 1))
              martlet_allocation_counter_begin()
              _ = try own.loop.turn()
              let count = martlet_allocation_counter_end()
              if turn == 1 { proof = count }
              if turn > warmUp { steady += count }
            }
            own.inbox.close()
            while try own.loop.turn() {}
            own.waker.close()
            continuation.resume(returning: (steady, proof))
          } catch { continuation.resume(throwing: error) }
        }
      } catch { continuation.resume(throwing: error) }
    }
    for reader in readers { #expect(try await reader.value.tokens.count == warmUp + steps + 20) }
    return result
  }

  @Test("allocates nothing in 500 steps in which every request generates and is read", arguments: ["TRTLLM", "FLASHINFER"])
  func steady(backend: String) async throws {
    let model = TinyModel(.llama, seed: 71) { $0.contextLength = 800 }
    let found = try await Self.count(.gguf(GGUFCheckpoint(model.file())), backend: backend, steps: 500, warmUp: 100)
    #expect(found.proof > 16, "the first step, which takes in four requests, is seen to allocate")
    #expect(found.steady == 0, "\(found.steady) allocations in 500 steps")
  }

  @Test("allocates nothing on a real model either")
  func real() async throws {
    let files = try ModelFiles(path: await RealModelFile.path("smollm2-135m"))
    let found = try await Self.count(files, backend: "TRTLLM", steps: 40, warmUp: 20)
    #expect(found.steady == 0, "\(found.steady) allocations in 40 steps")
  }
}
