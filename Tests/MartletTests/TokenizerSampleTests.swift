// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Difficult texts (scripts, emoji, code, odd white space) against independent tokenizers: `Fixtures/make_tokenizer_samples.py` says which.

import Foundation
import MartletFormats
import MartletTokenizers
import Testing

@Suite struct TokenizerSampleTests {
  private struct Samples: Decodable {
    var texts: [String]
    var tokens: [String: [[Int32]]]
    var words: [String: [[Int]]]

    init() throws {
      let url = try #require(Bundle.module.url(forResource: "tokenizer-samples", withExtension: "json", subdirectory: "Fixtures"))
      self = try JSONDecoder().decode(Samples.self, from: Data(contentsOf: url))
    }
  }

  @Test(arguments: ["smollm2-135m", "gemma3-270m"]) func `tokens equal those of an independent tokenizer`(model: String) async throws {
    let samples = try Samples()
    let expected = try #require(samples.tokens[model])
    let tokenizer = try await makeTokenizer(from: TokenizerModels.open(model))
    #expect(samples.texts.count > 250 && expected.count == samples.texts.count)
    for (text, tokens) in zip(samples.texts, expected) {
      #expect(tokenizer.encode(text, parsesSpecialTokens: false) == tokens, "\(text.debugDescription)")
    }
  }

  @Test(arguments: ["gpt-2", "smollm", "llama-bpe", "qwen2"]) func `words equal those of the published patterns`(name: String) throws {
    let samples = try Samples()
    let expected = try #require(samples.words[name])
    let preTokenizer = try #require(PreTokenizer.named[name])
    for (text, lengths) in zip(samples.texts, expected) {
      var words: [Int] = []
      let bytes = Array(text.utf8)
      preTokenizer.forEachWord(in: bytes, 0..<bytes.count) { words.append($0.count) }
      #expect(words == lengths, "\(text.debugDescription)")
    }
  }
}
