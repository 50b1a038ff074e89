// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Every kind of tokenizer against ids that other programs recorded, on texts of many scripts and odd white space.

import MartletFormats
import MartletTestSupport
import MartletTokenizers
import Testing

@Suite struct TokenizerTruthTests {
  @Test(arguments: TokenizerTruth.files) func `a tokenizer.json gives the ids of the tokenizers package`(name: String) throws {
    let truth = try TokenizerTruth()
    let tokenizer = try TokenizerTruth.tokenizer(name)
    let expected = try #require(truth.ids[name])
    #expect(truth.texts.count > 45 && expected.count == truth.texts.count)
    for (text, ids) in zip(truth.texts, expected) {
      #expect(tokenizer.encode(text, parsesSpecialTokens: false) == ids, "\(text.debugDescription)")
    }
    let special = try #require(truth.idsSpecial[name])
    #expect(special.count >= 4)
    for (index, ids) in special {
      let text = truth.texts[try #require(Int(index))]
      #expect(tokenizer.encode(text, parsesSpecialTokens: true) == ids, "\(text.debugDescription)")
    }
  }

  /// The files' names for the pre-tokenizers of the recorded tokenizers; those of Qwen have a normaliser that GGUF files do not.
  private static let byteLevel = [
    ("gpt2", "gpt-2"), ("smollm", "smollm"), ("smollm", "starcoder"), ("llama3", "llama-bpe"), ("llama3", "llama3"), ("qwen2", "qwen2"),
    ("qwen2", "deepseek-r1-qwen"), ("qwen35", "qwen35"), ("tekken", "tekken"), ("gpt4o", "gpt-4o"), ("gpt4o", "llama4"),
    ("deepseek3", "deepseek-v3"),
  ]

  @Test(arguments: byteLevel) func `a GGUF file with the same vocabulary gives the same ids`(name: String, pre: String) throws {
    let truth = try TokenizerTruth()
    let tokenizer = try makeTokenizer(from: GGUFFile(bytes: TokenizerTruth.byteLevelGGUF(name, pre: pre)))
    var compared = 0
    for (text, ids) in zip(truth.texts, try #require(truth.ids[name])) {
      // llama.cpp's contractions are ASCII's; it knows of a token no normalisation and no white space that it takes along.
      if text.contains("ſ") || text.contains("<mask>") { continue }
      if name.hasPrefix("qwen"), text.unicodeScalars.contains(where: { $0.value >= 0x300 && $0.value < 0x370 || $0.value >= 0x600 }) {
        continue
      }
      #expect(tokenizer.encode(text, parsesSpecialTokens: false) == ids, "\(text.debugDescription)")
      compared += 1
    }
    #expect(compared > 25)
  }

  @Test(arguments: ["unigram", "unigram-bytes", "unigram-plain", "bpe-bytes"])
  func `a SentencePiece model in a GGUF file gives the ids of the sentencepiece package`(name: String) throws {
    let truth = try TokenizerTruth()
    let tokenizer = try makeTokenizer(from: GGUFFile(bytes: truth.sentencePieceGGUF(name, model: name.hasPrefix("bpe") ? "llama" : "t5")))
    for (text, ids) in zip(truth.texts, try #require(truth.sentencePiece[name]).ids) {
      guard let ids else { continue }
      #expect(tokenizer.encode(text, parsesSpecialTokens: false) == ids, "\(text.debugDescription)")
    }
  }

  @Test func `WordPiece in a GGUF file gives the ids of the tokenizers package`() throws {
    let truth = try TokenizerTruth()
    let tokenizer = try makeTokenizer(from: GGUFFile(bytes: TokenizerTruth.wordPieceGGUF("bert", lowercase: true)))
    var compared = 0
    for (text, ids) in zip(truth.texts, try #require(truth.ids["bert"])) {
      // What the file does not tell: that two added tokens are looked for in any text, and how long a word may be.
      if text.contains("<mask>") || text.contains("<tool>") || text.hasPrefix("aaaaaaaa") { continue }
      #expect(tokenizer.encode(text, parsesSpecialTokens: false) == ids, "\(text.debugDescription)")
      compared += 1
    }
    #expect(compared > 45)
    #expect(tokenizer.textFrame == TextFrame(before: [2], after: [3]))
    #expect(tokenizer.decode(tokenizer.encode("the lazy fox", parsesSpecialTokens: false)) == "the lazy fox")
    let cased = try makeTokenizer(from: GGUFFile(bytes: TokenizerTruth.wordPieceGGUF("bert-cased", lowercase: false)))
    let words = try #require(truth.texts.firstIndex { $0.contains("ABCdef") })
    #expect(try cased.encode(truth.texts[words], parsesSpecialTokens: false) == #require(truth.ids["bert-cased"])[words])
    // Where the file says that nothing is put around a text, nothing is.
    let bare = try makeTokenizer(
      from: GGUFFile(
        bytes: TokenizerTruth.wordPieceGGUF("bert", lowercase: true) {
          $0.add("tokenizer.ggml.add_bos_token", .bool(false))
          $0.add("tokenizer.ggml.add_eos_token", .bool(false))
        }))
    #expect(bare.textFrame == TextFrame())
  }

  @Test func `what is put around a text that is read for itself is what the template says`() throws {
    #expect(try TokenizerTruth.tokenizer("bert").textFrame == TextFrame(before: [2], after: [3]))
    #expect(try TokenizerTruth.tokenizer("llama3").textFrame == TextFrame(before: [0]))
    #expect(try TokenizerTruth.tokenizer("gpt2").textFrame == TextFrame())
    func frame(_ processor: String) throws -> TextFrame {
      let text = try #require(String(decoding: TokenizerTruth.file("bert"), as: UTF8.self).replacingPostProcessor(by: processor))
      return try makeTokenizer(tokenizerJSON: Array(text.utf8).span.bytes).textFrame
    }
    #expect(try frame(#"{"type":"BertProcessing","sep":["[SEP]",3],"cls":["[CLS]",2]}"#) == TextFrame(before: [2], after: [3]))
    // As Qwen3-Embedding has it: nothing before a text, its end behind it.
    #expect(
      try frame(
        #"{"type":"Sequence","processors":[{"type":"ByteLevel"},{"type":"TemplateProcessing","single":[{"Sequence":{"id":"A"}},{"SpecialToken":{"id":"[SEP]"}}],"special_tokens":{"[SEP]":{"ids":[3]}}}]}"#
      ) == TextFrame(after: [3]))
    #expect(throws: TokenizerError.self) { try frame(#"{"type":"BertProcessing","sep":["[SEP]",3000],"cls":["[CLS]",2]}"#) }
    #expect(throws: TokenizerError.self) { try frame(#"{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"[SEP]"}}]}"#) }
  }

  @Test func `a word that is too long, or has a place where no piece fits, is one unknown token`() throws {
    let tokenizer = try TokenizerTruth.tokenizer("bert")
    func count(_ text: String) -> Int { tokenizer.encode(text, parsesSpecialTokens: false).count }
    #expect(tokenizer.encode(String(repeating: "a", count: 31), parsesSpecialTokens: false) == [1])
    #expect(count(String(repeating: "a", count: 30)) > 3)
    #expect(tokenizer.encode("the\u{10348}", parsesSpecialTokens: false) == [1])
  }

  @Test(arguments: ["default", "falcon", "bloom", "seed-coder", "bailingmoe"])
  func `words equal those of the published patterns`(name: String) throws {
    let truth = try TokenizerTruth()
    let preTokenizer = try #require(PreTokenizer.named[name])
    for (text, lengths) in zip(truth.texts, try #require(truth.words[name])) {
      guard let lengths else { continue }
      var words: [Int] = []
      let bytes = Array(text.utf8)
      preTokenizer.forEachWord(in: bytes, 0..<bytes.count) { words.append($0.count) }
      #expect(words == lengths, "\(text.debugDescription)")
    }
  }

  @Test func `each wrong part of invalid UTF-8 is one replacement character, as elsewhere`() throws {
    let truth = try TokenizerTruth()
    let tokenizer = try TokenizerTruth.tokenizer("gpt2")
    #expect(truth.broken.count >= 8)
    for broken in truth.broken {
      let digits = Array(broken.hex)
      let bytes = stride(from: 0, to: digits.count, by: 2).map { UInt8(String(digits[$0..<$0 + 2]), radix: 16)! }
      #expect(tokenizer.encode(String(decoding: bytes, as: UTF8.self), parsesSpecialTokens: false) == broken.ids, "\(broken.hex)")
    }
  }

  @Test(arguments: ["gpt2", "smollm", "llama3", "tekken", "gpt4o", "deepseek3", "llama2", "mistral", "gemma", "unigram-bytes"])
  func `any text comes back from its tokens, at once and token by token`(name: String) throws {
    let truth = try TokenizerTruth()
    let tokenizer = try TokenizerTruth.tokenizer(name)
    var generator = SeededGenerator(seed: 31)
    // Tokens that take white space along cannot give it back; "▁" is a space in a piece.
    let texts = (truth.texts + (0..<100).map { _ in randomText(length: 60, using: &generator) })
      .filter { !$0.contains("<mask>") && (!$0.contains("▁") || tokenizer.decode([0]).isEmpty && name.hasPrefix("gpt")) }
    for text in texts {
      // Where a space is put only before a text that does not begin with one, that one cannot come back.
      if name == "mistral" && text.hasPrefix(" ") { continue }
      // The names of the control tokens are pieces like any other to this model.
      if name == "unigram-bytes" && text.contains("<") { continue }
      // A prefix is put anew after a token that was cut out.
      if name == "llama2" && text.contains("<tool>") { continue }
      let tokens = tokenizer.encode(text, parsesSpecialTokens: false)
      #expect(tokenizer.decode(tokens) == text, "\(text.debugDescription)")
      var decoder = IncrementalDecoder(tokenizer)
      var joined = tokens.map { decoder.append($0) }.joined()
      joined += decoder.finish()
      #expect(joined == text, "\(text.debugDescription)")
    }
  }

  @Test func `the template says which token begins a text, and the names which end an answer`() throws {
    let llama = try TokenizerTruth.tokenizer("llama3")
    #expect(llama.addsBOS && llama.bosToken == 0)
    #expect(llama.endTokens == [1, 500], "</s> and <|end|> are known names")
    let gpt2 = try TokenizerTruth.tokenizer("gpt2")
    #expect(!gpt2.addsBOS && gpt2.bosToken == nil)
    #expect(try TokenizerTruth.tokenizer("llama2").dropsLeadingSpace)
    #expect(try !TokenizerTruth.tokenizer("gemma").dropsLeadingSpace)
  }
}

extension String {
  /// The text of a `tokenizer.json` with another `post_processor`; nil where it has none.
  fileprivate func replacingPostProcessor(by processor: String) -> String? {
    guard let start = firstRange(of: #""post_processor":"#), let end = firstRange(of: #","decoder":"#) else { return nil }
    return String(self[..<start.upperBound]) + processor + String(self[end.lowerBound...])
  }

  private func firstRange(of text: String) -> Range<Index>? { ranges(of: text).first }
}
