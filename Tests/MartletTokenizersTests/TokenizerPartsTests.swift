// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Parts of tokenizer.json that published files use, each in a small file, against what the tokenizers package makes of it.

import Foundation
import MartletTestSupport
import MartletTokenizers
import Testing

/// What `Fixtures/make_parts.py` recorded.
private struct Parts: Decodable {
  struct File: Decodable {
    var file: String
    var texts: [String]
    var ids: [[Int32]]
  }
  struct Words: Decodable {
    var file: String
    var counts: [Int]
  }
  var files: [String: File]
  var digits: [String]
  var words: [String: Words]
  var pre: [String: [[Int]]]

  init() throws {
    let url = try #require(Bundle.module.url(forResource: "parts", withExtension: "json", subdirectory: "Fixtures"))
    self = try JSONDecoder().decode(Parts.self, from: Data(contentsOf: url))
  }
}

@Suite struct TokenizerPartsTests {
  private func tokenizer(_ text: String) throws -> any Tokenizer {
    let bytes = Array(text.utf8)
    return try makeTokenizer(tokenizerJSON: bytes.span.bytes)
  }

  @Test(arguments: [
    "first after strip", "first after prepend", "first after strip and prepend", "first after removal", "first after replacement",
    "taken spaces", "single words", "nmt", "strip accents", "strip accents of NFD", "NFKC", "NFKD",
  ]) func `normalisers and added tokens give the ids of the tokenizers package`(name: String) throws {
    let recorded = try #require(Parts().files[name])
    let tokenizer = try tokenizer(recorded.file)
    for (text, ids) in zip(recorded.texts, recorded.ids) {
      #expect(tokenizer.encode(text, parsesSpecialTokens: true) == ids, "\(text.debugDescription)")
    }
  }

  @Test(arguments: [
    "line ends", "threes", "threes of numbers", "threes or one", "repeated repeat", "repeated repeat of two", "han", "not han", "scripts",
  ]) func `a pattern cuts as many words as in the tokenizers package`(name: String) throws {
    let (parts, truth) = (try Parts(), try TokenizerTruth())
    let recorded = try #require(parts.words[name])
    let tokenizer = try tokenizer(recorded.file)
    #expect(recorded.counts.count == truth.texts.count + parts.digits.count)
    for (text, count) in zip(truth.texts + parts.digits, recorded.counts) {
      #expect(tokenizer.encode(text, parsesSpecialTokens: true).count == count, "\(text.debugDescription)")
    }
  }

  @Test(arguments: [
    "deepseek-llm", "deepseek-coder", "youtu", "tiny_aya", "granite-embed-multi-97m", "ufakzeka", "laguna", "spark2_5", "roberta-bpe",
    "jais-2",
    "exaone-moe", "kimi-k2", "afmoe",
  ]) func `a pre-tokenizer of GGUF files cuts the words of its published pattern`(name: String) throws {
    let (parts, truth) = (try Parts(), try TokenizerTruth())
    let preTokenizer = try #require(PreTokenizer.named[name])
    for (text, lengths) in zip(truth.texts + parts.digits, try #require(parts.pre[name])) {
      var words: [Int] = []
      let bytes = Array(text.utf8)
      preTokenizer.forEachWord(in: bytes, 0..<bytes.count) { words.append($0.count) }
      #expect(words == lengths, "\(text.debugDescription)")
    }
  }

  @Test func `a character that is no piece is left out where a file has no unknown token`() throws {
    let tokenizer = try tokenizer(#"{"model":{"type":"Unigram","vocab":[["a",-1],["b",-2]]}}"#)
    #expect(tokenizer.encode("xaxxb", parsesSpecialTokens: false) == [0, 1])
  }
}
