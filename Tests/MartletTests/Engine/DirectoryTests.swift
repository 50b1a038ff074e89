// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Martlet
import MartletCPU
import MartletCore
import MartletFormats
import MartletModels
import MartletTestSupport
import MartletTokenizers
import Testing

/// A Hugging Face directory through the whole engine, tokenizer included.
@Suite("The engine with a Hugging Face directory", .timeLimit(.minutes(2)))
struct DirectoryTests {
  static let path = TinyCheckpoint.file("qwen3")

  private func llm(_ path: String, backend: String) throws -> LLM {
    try LLM(
      model: path,
      configuration: EngineConfiguration(
        device: CPUDevice(threads: 2), attentionBackend: backend, kvCache: EngineConfiguration.KVCache(dataType: .f32)))
  }

  @Test("answers with the tokens that Transformers gives", arguments: ["TRTLLM", "VANILLA"])
  func greedy(backend: String) async throws {
    let checkpoint = try TinyCheckpoint("qwen3")
    let llm = try llm(Self.path, backend: backend)
    for (prompt, expected) in zip(checkpoint.prompts, checkpoint.greedy) {
      let sampling = SamplingParams(maxTokens: expected.count, ignoresEndTokens: true)
      let output = try await llm.generate(.tokenIDs(prompt.map(Int.init)), sampling: sampling).output()
      #expect(output.tokenIDs == expected.map(Int.init))
    }
  }

  @Test("takes the tokenizer, the end tokens and the chat template from the directory")
  func tokenizer() throws {
    let expected = try TinyCheckpoint("qwen3").expected
    let llm = try llm(Self.path, backend: "TRTLLM")
    #expect(try llm.tokenIDs(of: .text(expected["text"]!.string!)) == expected["text_tokens"]!.elements.map { $0.integer! })
    #expect(llm.tokenizer.endTokens == Set(expected["end_tokens"]!.elements.map { Int32($0.integer!) }))
    #expect(try llm.chatTemplate.get().name == "chatml")
    #expect(llm.model.architecture == "qwen3" && llm.model.name == "qwen3" && llm.model.contextLength == 64)
  }
}
