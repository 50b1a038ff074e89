// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Martlet
import MartletCPU
import MartletCUDA
import MartletCore
import MartletKVCache
import MartletTestSupport
import Testing

/// Whole models, small enough for the emulator.
@Suite("A model on a GPU", .timeLimit(.minutes(15)))
struct ModelTests {
  private func llm(_ model: TinyModel, on device: any Device, chunk: Int? = nil) throws -> LLM {
    try LLM(
      file: model.file(),
      configuration: EngineConfiguration(
        device: device, kvCache: KVCacheConfig(dataType: .bf16, pageSize: .tokens(16), budget: .bytes(1 << 20)), maxSequenceLength: 64,
        maxBatchSize: 4, maxNumTokens: 64, chunkSize: chunk))
  }

  private func prompt(_ length: Int, seed: UInt64) -> [Int] {
    var random = MartletTestSupport.SeededGenerator(seed: seed)
    return (0..<length).map { _ in Int.random(in: 0..<256, using: &random) }
  }

  /// Both devices keep float32's precision in products and bfloat16's in the cache; what they round differently is some thousandths of a logit.
  @Test("rates a text as it does on the CPU", arguments: TinyModel.Architecture.allCases)
  func score(architecture: TinyModel.Architecture) async throws {
    let model = TinyModel(architecture, seed: 91), tokens = prompt(40, seed: 92)
    let expected = try await llm(model, on: CPUDevice(threads: 1)).score(tokens)
    let found = try await llm(model, on: StandIn.device()).score(tokens)
    #expect(expected.count == found.count)
    for (index, (a, b)) in zip(expected, found).enumerated() { #expect((a - b).magnitude < 0.02, "token \(index): \(a) and \(b)") }
  }

  @Test("gives a request the same tokens and bits alone, beside others, and in chunks")
  func oneArithmetic() async throws {
    let model = TinyModel(.qwen3, seed: 93), device = try StandIn.device()
    let sampling = SamplingParams(maxTokens: 6, logprobs: 3, ignoresEndTokens: true)
    func bits(_ llm: LLM, beside others: [Int]) async throws -> [UInt32] {
      let prompts = [Prompt.tokenIDs(prompt(30, seed: 94))] + others.map { Prompt.tokenIDs(prompt($0, seed: UInt64($0))) }
      var outputs: [GenerationOutput] = []
      for generation in try llm.generate(prompts, sampling: sampling) { outputs.append(try await generation.output()) }
      return outputs[0].tokenIDs.map(UInt32.init)
        + outputs[0].logprobs.flatMap { [$0.logprob.bitPattern] + $0.top.map(\.logprob.bitPattern) }
    }
    let alone = try await bits(llm(model, on: device), beside: [])
    #expect(!alone.isEmpty)
    #expect(try await bits(llm(model, on: device), beside: [5, 11, 20]) == alone)
    #expect(try await bits(llm(model, on: device, chunk: 7), beside: [9]) == alone)
  }

  @Test("that needs a kernel which is not there ends a step with the kernel's name, and gives no answer")
  func missingKernel() throws {
    let source = try ModelRegistry.builtIn.source(HuggingFaceDirectory(path: TinyCheckpoint.file("qwen3-moe")))
    let configuration = EngineConfiguration(
      device: try StandIn.device(), kvCache: KVCacheConfig(budget: .bytes(1 << 20)), maxSequenceLength: 32, maxBatchSize: 1,
      maxNumTokens: 32)
    let runner = try EngineParts(source, configuration: configuration, progress: nil).runner
    let tokens = (0..<8).map(Int32.init)
    let error = #expect(throws: DeviceError.self) {
      try runner.beginStep(isDecode: false)
      #expect(runner.cache.addSequence(0) && runner.cache.extend(0, to: 8))
      runner.add(0, tokens: tokens[...], cachedTokens: 0, promptLength: 8, isContext: true)
      try runner.forward()
      try runner.withLogits(count: 1, row: { _ in 7 }) { _, _ in Issue.record("there is an answer") }
    }
    #expect("\(String(describing: error))".contains("the choice of experts (route) has no CUDA kernel yet"), "\(String(describing: error))")
  }
}
