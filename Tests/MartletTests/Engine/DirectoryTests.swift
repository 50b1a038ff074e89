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

  /// The embedding has 300 rows, the tokenizer 295 tokens: rows that only fill it up are tokens without text.
  @Test("gives tokens that the tokenizer does not know, without text, and takes them in a prompt")
  func padding() async throws {
    let llm = try llm(Self.path, backend: "TRTLLM")
    #expect(llm.model.vocabularySize == 300 && llm.tokenizer.vocabularySize == 295)
    let sampling = SamplingParams(logitBias: [297: 1000], maxTokens: 4, logprobs: 2, ignoresEndTokens: true)
    let neighbour = try llm.generate("abc", sampling: SamplingParams(maxTokens: 6, ignoresEndTokens: true))
    let output = try await llm.generate(.tokenIDs([5, 299, 298]), sampling: sampling).output()
    #expect(output.tokenIDs == [297, 297, 297, 297] && output.text.isEmpty && output.finishReason == .length)
    #expect(try await neighbour.output().tokenIDs.count == 6)
    #expect(llm.tokenizer.decode([297, 5, -1, .max]) == llm.tokenizer.decode([5]))
    #expect(llm.tokenizer.bytes(of: 295, showsControlTokens: true).isEmpty && llm.tokenizer.isControl(295))
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
