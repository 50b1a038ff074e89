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
  struct Contents: Decodable {
    var file: String
    var texts: [String]
    var ids: [[Int32]]
    var idsAsText: [[Int32]]
  }
  var files: [String: File]
  var contents: Contents
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

  @Test func `added tokens that are not special are found in contents, and special ones are text there`() throws {
    let recorded = try Parts().contents
    let tokenizer = try tokenizer(recorded.file)
    for (index, text) in recorded.texts.enumerated() {
      let (ids, idsAsText) = (recorded.ids[index], recorded.idsAsText[index])
      #expect(tokenizer.encode(text, parsesSpecialTokens: true) == ids, "\(text.debugDescription)")
      #expect(tokenizer.encode(text, parsesSpecialTokens: false) == idsAsText, "\(text.debugDescription)")
      #expect(tokenizer.encode(MarkedText(text)) == ids, "\(text.debugDescription)")
      #expect(tokenizer.encode(MarkedText([(text, true)].map { (text: $0.0, isContent: $0.1) })) == idsAsText, "\(text.debugDescription)")
      // What the template writes before and after does not change it.
      let around = tokenizer.encode(
        MarkedText([("<|im_start|>", false), (text, true), ("<|im_end|>", false)].map { (text: $0.0, isContent: $0.1) }))
      let (start, end) = (
        tokenizer.encode("<|im_start|>", parsesSpecialTokens: true), tokenizer.encode("<|im_end|>", parsesSpecialTokens: true)
      )
      #expect(start.count == 1 && end.count == 1 && around == start + idsAsText + end, "\(text.debugDescription)")
    }
    #expect(recorded.ids != recorded.idsAsText && zip(recorded.ids, recorded.idsAsText).contains { $0 == $1 })
  }

  @Test func `a character that is no piece is left out where a file has no unknown token`() throws {
    let tokenizer = try tokenizer(#"{"model":{"type":"Unigram","vocab":[["a",-1],["b",-2]]}}"#)
    #expect(tokenizer.encode("xaxxb", parsesSpecialTokens: false) == [0, 1])
  }
}
