// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Martlet
import MartletAttention
import MartletCPU
import MartletCore
import MartletFormats
import MartletKVCache
import MartletModels
import MartletTestSupport
import Testing

/// What an engine does that expands prompts of latent attention: whose bits change, and whose do not.
@Suite("An engine that expands latent prompts")
struct LatentPromptsEngineTests {
  private static func runner(_ form: LatentPrompts, backend: String) throws -> ModelRunner {
    let source = try ModelRegistry.builtIn.source(HuggingFaceDirectory(path: TinyCheckpoint.file("deepseek-v3")))
    let configuration = EngineConfiguration(
      device: try CPUDevice(threads: 2), attentionBackend: backend, kvCache: KVCacheConfig(pageSize: .tokens(16)), latentPrompts: form,
      maxSequenceLength: 64, maxBatchSize: 4, maxNumTokens: 128)
    return try EngineParts(source, configuration: configuration, progress: nil).runner
  }

  /// A step of some tokens of some requests, and the bits of all logits of one of them.
  private static func step(
    _ runner: ModelRunner, _ parts: [(id: Int, tokens: [Int32], range: Range<Int>, isContext: Bool)], logitsOf id: Int
  ) throws -> [UInt32] {
    try runner.beginStep(isDecode: false)
    var first = 0, rows = 0..<0
    for part in parts {
      #expect(runner.cache.extend(part.id, to: part.range.upperBound))
      runner.add(
        part.id, tokens: part.tokens[part.range], cachedTokens: part.range.lowerBound, promptLength: part.tokens.count,
        isContext: part.isContext)
      if part.id == id { rows = first..<first + part.range.count }
      first += part.range.count
    }
    try runner.forward()
    var bits: [UInt32] = []
    for start in stride(from: rows.lowerBound, to: rows.upperBound, by: runner.maxLogitRows) {
      try runner.withLogits(count: min(runner.maxLogitRows, rows.upperBound - start), row: { start + $0 }) { _, row in
        for index in row.indices { bits.append(row[index].bitPattern) }
      }
    }
    for part in parts { runner.cache.computed(part.id, upTo: part.range.upperBound, tokens: part.tokens) }
    return bits
  }

  private static func tokens(_ count: Int, seed: UInt64) -> [Int32] { Tiny.prompt(count, seed: seed).map { Int32($0 % 128) } }

  @Test(
    "gives who generates the same bits beside long prompts as one that expands nothing", arguments: ["TRTLLM", "FLASHINFER", "VANILLA"])
  func generation(backend: String) throws {
    let answer = Self.tokens(20, seed: 91), others = (0..<3).map { Self.tokens(40, seed: 92 + UInt64($0)) }
    func bits(_ form: LatentPrompts) throws -> (answer: [UInt32], prompt: [UInt32]) {
      let runner = try Self.runner(form, backend: backend)
      for id in 0..<4 { #expect(runner.cache.addSequence(id)) }
      // The prompt of 9 tokens is too short to be expanded; then a token a step, beside chunks of 17, of 3 and of 20.
      var found = try Self.step(runner, [(0, answer, 0..<9, true)], logitsOf: 0)
      for (index, range) in [0..<17, 17..<20, 20..<40].enumerated() {
        var parts = (1...3).map { (id: $0, tokens: others[$0 - 1], range: range, isContext: true) }
        parts.append((id: 0, tokens: answer, range: 9 + index..<10 + index, isContext: false))
        found += try Self.step(runner, parts, logitsOf: 0)
      }
      // One of the others goes on.
      let prompt = try Self.step(runner, [(2, others[1] + others[0].prefix(20), 40..<58, true), (0, answer, 12..<13, false)], logitsOf: 2)
      return (found, prompt)
    }
    let absorbed = try bits(.absorbed), expanded = try bits(.expanded(leastTokens: 16))
    #expect(expanded.answer == absorbed.answer)
    #expect(expanded.prompt != absorbed.prompt, "nothing was expanded")
  }

  @Test(
    "reads what follows a cached prefix to the bits of the whole prompt, where all of it is expanded", arguments: ["TRTLLM", "FLASHINFER"])
  func prefixes(backend: String) throws {
    let prompt = Self.tokens(60, seed: 95)
    let runner = try Self.runner(.expanded(leastTokens: 1), backend: backend)
    #expect(runner.cache.addSequence(0))
    let whole = try Self.step(runner, [(0, prompt, 0..<60, true)], logitsOf: 0)
    runner.cache.remove(0)
    // Whole pages, and a part of one.
    let again = Array(prompt.prefix(40)) + Self.tokens(20, seed: 96)
    let cached = try #require(runner.cache.addSequence(1, tokens: again))
    #expect(cached == 40)
    let rest = try Self.step(runner, [(1, again, cached..<60, true)], logitsOf: 1)
    let fresh = try Self.runner(.expanded(leastTokens: 1), backend: backend)
    #expect(fresh.cache.addSequence(0))
    let expected = try Self.step(fresh, [(0, again, 0..<60, true)], logitsOf: 0)
    let common = expected.count / 3 * 2
    #expect(rest.count == expected.count - common && rest == Array(expected.suffix(rest.count)))
    #expect(expected.prefix(common) == whole.prefix(common))
  }

  @Test("is refused for a model without latents, for vectors, and for no tokens, by name")
  func refused() throws {
    func problem(_ form: LatentPrompts, _ body: (EngineConfiguration) throws -> Void) throws -> String {
      let configuration = EngineConfiguration(device: try CPUDevice(threads: 1), latentPrompts: form)
      let error = #expect(throws: LLMError.self) { try body(configuration) }
      #expect(error?.code == .invalidConfiguration && error?.property == "latentPrompts")
      return error?.description ?? ""
    }
    let llama = try TinyModel(.llama, seed: 81).file()
    #expect(try problem(.expanded()) { _ = try LLM(file: llama, configuration: $0) }.contains("no latent attention"))
    let bert = TinyCheckpoint.file("bert")
    #expect(try problem(.expanded()) { _ = try LLM(model: bert, configuration: $0) }.contains("leave it absorbed"))
    let source = try ModelRegistry.builtIn.source(HuggingFaceDirectory(path: TinyCheckpoint.file("deepseek-v2")))
    #expect(try problem(.expanded(leastTokens: 0)) { _ = try EngineParts(source, configuration: $0, progress: nil) }.contains("expanded:0"))
    #expect(EngineConfiguration().latentPrompts == .absorbed)
  }
}
