// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import Martlet
import MartletCPU
import MartletCore
import MartletFormats
import MartletModels
import MartletTestSupport
import MartletTokenizers
import Testing

/// A Hugging Face directory through the whole engine, tokenizer included.
@Suite("The engine with a Hugging Face directory", .timeLimit(.minutes(45)))
struct DirectoryTests {
  static let path = TinyCheckpoint.file("qwen3")

  private func llm(_ path: String, backend: String) throws -> LLM {
    try LLM(
      model: path,
      configuration: EngineConfiguration(
        device: CPUDevice(threads: 2), attentionBackend: backend, kvCache: KVCacheConfig(dataType: .f32)))
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

  @Test("takes places of a prompt's tokens, beside texts, and goes on from the greatest", arguments: ["TRTLLM", "FLASHINFER", "VANILLA"])
  func places(backend: String) async throws {
    let checkpoint = try TinyCheckpoint("qwen2-vl"), tokens = checkpoint.prompts.map { $0.map(Int.init) }
    let llm = try llm(checkpoint.path, backend: backend)
    #expect(llm.takesTokenPositions)
    let positions = TokenPositions(time: checkpoint.places[0], height: checkpoint.places[1], width: checkpoint.places[2])
    #expect(positions.next == 16)
    let sampling = SamplingParams(maxTokens: checkpoint.placedGreedy.count, ignoresEndTokens: true)
    // Twice: what the first leaves in the cache is neither the second's nor the text's.
    for _ in 0..<2 {
      let running = try llm.generate(
        [.placedTokenIDs(tokens[0], positions), .tokenIDs(tokens[0]), .tokenIDs(tokens[1]), .placedTokenIDs(tokens[0], positions)],
        sampling: sampling)
      var outputs: [[Int]] = []
      for generation in running { outputs.append(try await generation.output().tokenIDs) }
      let greedy = checkpoint.greedy.map { $0.map(Int.init) }
      #expect(outputs == [checkpoint.placedGreedy, greedy[0], greedy[1], checkpoint.placedGreedy])
    }
  }

  @Test("refuses places that do not fit the tokens, the context or the model")
  func wrongPlaces() throws {
    let llm = try llm(TinyCheckpoint("qwen2-vl").path, backend: "TRTLLM")
    func refusal(_ llm: LLM, _ positions: TokenPositions, maxTokens: Int? = nil) -> String {
      let error = #expect(throws: LLMError.self) {
        try llm.generate(.placedTokenIDs([1, 2, 3], positions), sampling: SamplingParams(maxTokens: maxTokens))
      }
      #expect(error?.code == .invalidPositions)
      return error?.description ?? ""
    }
    let line = [0, 1, 2]
    #expect(refusal(llm, TokenPositions(time: line, height: [0, 1], width: line)).contains("2 of height for 3 tokens"))
    #expect(refusal(llm, TokenPositions(time: line, height: line, width: [0, 64, 2])).contains("64 of width"))
    #expect(refusal(llm, TokenPositions(time: [0, 1, -1], height: line, width: line)).contains("-1 of time"))
    #expect(refusal(llm, TokenPositions(time: [0, 1, 60], height: line, width: line), maxTokens: 4).contains("begins at 61"))
    #expect(refusal(try self.llm(Self.path, backend: "TRTLLM"), TokenPositions(time: line, height: line, width: line)).contains("alone"))
  }

  @Test("gives an answer whose places are far on as many tokens as the context has positions")
  func farPlaces() async throws {
    let llm = try llm(TinyCheckpoint("qwen2-vl").path, backend: "TRTLLM")
    let positions = TokenPositions(time: [0, 1, 58], height: [0, 1, 58], width: [0, 1, 58])
    let output = try await llm.generate(
      .placedTokenIDs([1, 2, 3], positions), sampling: SamplingParams(ignoresEndTokens: true)
    ).output()
    #expect(output.tokenIDs.count == 5 && output.finishReason == .length)
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

  /// As Gemma 3's directories do, whose embedding has no row for images.
  @Test("may have special tokens beyond the rows of its embedding, which no prompt may hold, but no other tokens")
  func tokensBeyondRows() async throws {
    func copy(addingToken id: Int, isSpecial: Bool) throws -> String {
      let folder = NSTemporaryDirectory() + "martlet-directory-" + UUID().uuidString
      try FileManager.default.copyItem(atPath: Self.path, toPath: folder)
      let file = URL(fileURLWithPath: folder + "/tokenizer.json")
      var json = try #require(try JSONSerialization.jsonObject(with: Data(contentsOf: file)) as? [String: Any])
      var added = json["added_tokens"] as? [[String: Any]] ?? []
      for id in 295...id { added.append(["id": id, "content": "<image \(id)>", "special": isSpecial]) }
      json["added_tokens"] = added
      try JSONSerialization.data(withJSONObject: json).write(to: file)
      return folder
    }
    let special = try copy(addingToken: 301, isSpecial: true)
    defer { try? FileManager.default.removeItem(atPath: special) }
    let llm = try llm(special, backend: "TRTLLM")
    #expect(llm.tokenizer.vocabularySize == 302 && llm.model.vocabularySize == 300)
    #expect(try await llm.generate("abc", sampling: SamplingParams(maxTokens: 2, ignoresEndTokens: true)).output().tokenIDs.count == 2)
    #expect(throws: LLMError.unknownToken(id: 301, vocabularySize: 300)) {
      try llm.generate(.tokenIDs(llm.tokenizer.encode("<image 301>", parsesSpecialTokens: true).map { Int($0) }))
    }
    // A tokenizer ends the process where it runs out of 32-bit places; no text may come so far.
    let long = String(repeating: "a", count: (1 << 28) + 1)
    #expect(throws: LLMError.textTooLong(byteCount: (1 << 28) + 1, most: 1 << 28)) { try llm.tokenIDs(of: .text(long)) }
    let plain = try copy(addingToken: 301, isSpecial: false)
    defer { try? FileManager.default.removeItem(atPath: plain) }
    #expect { try self.llm(plain, backend: "TRTLLM") } throws: { "\($0)".contains("302 tokens and its embedding 300 rows") }
  }

  @Test("takes the tokenizer, the end tokens and the chat template from the directory")
  func tokenizer() throws {
    let expected = try TinyCheckpoint("qwen3").expected
    let llm = try llm(Self.path, backend: "TRTLLM")
    #expect(try llm.tokenIDs(of: .text(expected["text"]!.string!)) == expected["text_tokens"]!.elements.map { $0.integer! })
    #expect(llm.tokenizer.endTokens == Set(expected["end_tokens"]!.elements.map { Int32($0.integer!) }))
    #expect(try llm.chatTemplate.get().render([ChatMessage(role: "user", content: "Hi")]).text.contains("<|im_start|>user\nHi<|im_end|>"))
    #expect(llm.model.architecture == "qwen3" && llm.model.name == "qwen3" && llm.model.contextLength == 64)
  }
}
