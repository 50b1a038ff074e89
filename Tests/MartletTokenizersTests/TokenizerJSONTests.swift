// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// What is wrong with a tokenizer.json is named; nothing in one makes reading or using it trap.

import Foundation
import MartletFormats
import MartletTestSupport
import MartletTokenizers
import Testing

@Suite struct TokenizerJSONTests {
  private func tokenizer(_ text: String) throws -> any Tokenizer {
    let bytes = Array(text.utf8)
    return try makeTokenizer(tokenizerJSON: bytes.span.bytes)
  }

  /// What reading `text` throws.
  private func error(_ text: String) -> TokenizerError? {
    #expect(throws: TokenizerError.self, "\(text.prefix(200))") { try tokenizer(text) }
  }

  /// A file with a model, and further parts.
  private func file(_ model: String, _ rest: String = "") -> String { "{\"model\":{\(model)}\(rest)}" }

  private let bpe = #""type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":[["a","b"]]"#
  private let unigram = #""type":"Unigram","unk_id":0,"vocab":[["<unk>",0],["a",-1],["ab",-1.5]]"#

  @Test func `the smallest files are read`() throws {
    #expect(try tokenizer(file(bpe)).encode("abba", parsesSpecialTokens: false) == [2, 1, 0])
    #expect(try tokenizer(file(#""vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]"#)).encode("ab", parsesSpecialTokens: false) == [2])
    #expect(try tokenizer(file(unigram)).encode("abaxxa", parsesSpecialTokens: false) == [2, 1, 0, 1])
  }

  @Test func `a name with a sign for a digit is the name of no byte`() throws {
    let read = try tokenizer(file(#""type":"BPE","byte_fallback":true,"vocab":{"a":0,"<0x+F>":1,"<0x4A>":2},"merges":[]"#))
    #expect(read.bytes(of: 1, showsControlTokens: true) == Array("<0x+F>".utf8))
    #expect(read.bytes(of: 2, showsControlTokens: true) == [0x4A])
  }

  @Test func `a field that is missing or has a wrong value is named`() {
    let cases: [(String, field: String, problem: String)] = [
      ("[]", "tokenizer.json", "is an array of 0, not an object"),
      ("{}", "tokenizer.json: model.type", "is missing"),
      (#"{"model":null}"#, "tokenizer.json: model.type", "is missing"),
      (#"{"model":7}"#, "tokenizer.json: model.type", "is missing"),
      (file(#""type":7"#), "tokenizer.json: model.type", "is 7, not a string"),
      (file(#""type":"BPE""#), "tokenizer.json: model.vocab", "is missing"),
      (file(#""type":"BPE","vocab":[],"merges":[]"#), "tokenizer.json: model.vocab", "is an array of 0, not an object"),
      (file(#""type":"BPE","vocab":{},"merges":[]"#), "tokenizer.json: model.vocab", "has no tokens"),
      (file(#""type":"BPE","vocab":{"a":0}"#), "tokenizer.json: model.merges", "is missing"),
      (file(#""type":"BPE","vocab":{"a":0},"merges":{}"#), "tokenizer.json: model.merges", "is an object of 0, not an array"),
      (file(#""type":"BPE","vocab":{"a":"0"},"merges":[]"#), "tokenizer.json: model.vocab[\"a\"]", "is \"0\", not an id"),
      (file(#""type":"BPE","vocab":{"a":1.5},"merges":[]"#), "tokenizer.json: model.vocab[\"a\"]", "is 1.5, not an id"),
      (file(#""type":"BPE","vocab":{"a":-1},"merges":[]"#), "tokenizer.json: model.vocab[\"a\"]", "is -1, which is not in 0...65540"),
      (
        file(#""type":"BPE","vocab":{"a":0,"b":1099511627776},"merges":[]"#), "tokenizer.json: model.vocab[\"b\"]",
        "is 1099511627776, which is not in 0...65544"
      ),
      (
        file(#""type":"BPE","vocab":{"a":0,"b":0},"merges":[]"#), "tokenizer.json: model.vocab[\"b\"]", "is 0, which is the id of \"a\" too"
      ),
      (file(#""type":"BPE","vocab":{"a":0,"aa":1},"merges":["a"]"#), "tokenizer.json: model.merges[0]", "is \"a\", not two pieces"),
      (file(#""type":"BPE","vocab":{"a":0,"aa":1},"merges":["a a a"]"#), "tokenizer.json: model.merges[0]", "is \"a a a\", not two pieces"),
      (file(#""type":"BPE","vocab":{"a":0},"merges":[["a"]]"#), "tokenizer.json: model.merges[0]", "is an array of 1, not two pieces"),
      (file(#""type":"BPE","vocab":{"a":0},"merges":[["a",1]]"#), "tokenizer.json: model.merges[0]", "is an array of 2, not two pieces"),
      (
        file(#""type":"BPE","vocab":{"a":0},"merges":[["a","a"]]"#), "tokenizer.json: model.merges[0]",
        "is [\"a\", \"a\"], which does not join two pieces of model.vocab to a third"
      ),
      (
        file(#""type":"BPE","vocab":{"a":0,"":1},"merges":[["a",""]]"#), "tokenizer.json: model.merges[0]",
        "is [\"a\", \"\"], which does not join two pieces of model.vocab to a third"
      ),
      (file(bpe + #","unk_token":"x""#), "tokenizer.json: model.unk_token", "is \"x\", which is no token"),
      (file(bpe, #","added_tokens":{}"#), "tokenizer.json: added_tokens", "is an object of 0, not an array"),
      (file(bpe, #","added_tokens":[{"content":"x"}]"#), "tokenizer.json: added_tokens[0].id", "is missing"),
      (
        file(bpe, #","added_tokens":[{"id":1099511627776,"content":"x"}]"#), "tokenizer.json: added_tokens[0].id",
        "is 1099511627776, which is not in 0...65552"
      ),
      (file(bpe, #","added_tokens":[{"id":3,"content":""}]"#), "tokenizer.json: added_tokens[0].content", "is empty"),
      (
        file(bpe, #","added_tokens":[{"id":3,"content":"x"},{"id":3,"content":"y"}]"#), "tokenizer.json: added_tokens[1].id",
        "is 3, and so is that of added_tokens[0]"
      ),
      (
        file(bpe, #","added_tokens":[{"id":1,"content":"x"}]"#), "tokenizer.json: added_tokens[0].id",
        "is 1, which model.vocab gives to \"b\""
      ),
      (file(#""type":"Unigram","unk_id":0,"vocab":{}"#), "tokenizer.json: model.vocab", "is an object of 0, not an array"),
      (file(#""type":"Unigram","unk_id":0,"vocab":["a"]"#), "tokenizer.json: model.vocab[0]", "is \"a\", not a piece and its score"),
      (
        file(#""type":"Unigram","unk_id":0,"vocab":[["a","b"]]"#), "tokenizer.json: model.vocab[0]",
        "has a score that is not a finite number"
      ),
      (
        file(#""type":"Unigram","unk_id":0,"vocab":[["a",1e999]]"#), "tokenizer.json: model.vocab[0]",
        "has a score that is not a finite number"
      ),
      (file(#""type":"Unigram","unk_id":3,"vocab":[["a",-1]]"#), "tokenizer.json: model.unk_id", "is 3 of 1 pieces"),
      (
        file(bpe, #","normalizer":{"type":"Replace","pattern":{"String":""},"content":"x"}"#),
        "tokenizer.json: normalizer.pattern.String", "has 0 bytes"
      ),
      (
        file(bpe, #","normalizer":{"type":"Precompiled","precompiled_charsmap":"!"}"#),
        "tokenizer.json: normalizer.precompiled_charsmap", "is not base64"
      ),
      (
        file(bpe, #","normalizer":{"type":"Precompiled","precompiled_charsmap":"/////wA="}"#),
        "tokenizer.json: normalizer.precompiled_charsmap", "has a trie of 4294967295 bytes in 5"
      ),
    ]
    for (text, field, problem) in cases { #expect(error(text) == .malformed(field: field, problem: problem), "\(text)") }
  }

  @Test func `what this build does not have is named, with what it has`() {
    let cases: [(String, field: String, found: String)] = [
      (file(#""type":"WordLevel""#), "tokenizer.json: model.type", "WordLevel"),
      (file(bpe + #","dropout":0.1"#), "tokenizer.json: model.dropout", "0.1"),
      (file(bpe + #","end_of_word_suffix":"</w>""#), "tokenizer.json: model.end_of_word_suffix", "</w>"),
      (file(bpe, #","normalizer":{"type":"NFX"}"#), "tokenizer.json: normalizer.type", "NFX"),
      (
        file(bpe, #","normalizer":{"type":"Sequence","normalizers":[{"type":"NFC"},{"type":"ByteLevel"}]}"#),
        "tokenizer.json: normalizer.normalizers[1].type", "ByteLevel"
      ),
      (file(bpe, #","pre_tokenizer":{"type":"Whitespace"}"#), "tokenizer.json: pre_tokenizer.type", "Whitespace"),
      (
        file(bpe, #","pre_tokenizer":{"type":"Split","behavior":"Isolated","pattern":{"Regex":"\\p{L}+|(a|b)*"}}"#),
        "tokenizer.json: pre_tokenizer.pattern.Regex", "(a|b)*"
      ),
      (file(bpe, #","decoder":{"type":"CTC"}"#), "tokenizer.json: decoder.type", "CTC"),
      (file(bpe, #","post_processor":{"type":"Pairs"}"#), "tokenizer.json: post_processor.type", "Pairs"),
    ]
    for (text, expectedField, expectedFound) in cases {
      let error = error(text)
      #expect(error?.code == .unsupportedPart, "\(text)")
      #expect(error?.description.hasPrefix("tokenizer: \(expectedField) is \"\(expectedFound)\", which") == true, "\(text)")
    }
  }

  @Test func `a normaliser cannot make a text without bounds`() {
    let long = String(repeating: "x", count: 40)
    let replace = #"{"type":"Replace","pattern":{"String":"x"},"content":"\#(long)"}"#
    let file = file(bpe, #","normalizer":{"type":"Sequence","normalizers":[\#(replace),\#(replace)]}"#)
    #expect(
      error(file)
        == .malformed(field: "tokenizer.json: normalizer.normalizers[1]", problem: "would make a text more than 1024 times as long"))
  }

  @Test func `what is no JSON is the reader's error, however deep it nests`() {
    for text in ["", "{", "nul", #"{"model":{"type":"BPE","vocab":{"a":0,"a":1}}}"#, String(repeating: "[", count: 1_000_000)] {
      let error = error(text)
      #expect(error?.code == .json && error?.underlying is JSONError, "\(text.prefix(50))")
      #expect(error?.description.hasPrefix("tokenizer: tokenizer.json: JSON: byte ") == true, "\(text.prefix(50))")
    }
    // Deeper than the parts of a file nest, and within what the reader takes.
    let sequence = #"{"type":"Sequence","normalizers":["#
    let nested = String(repeating: sequence, count: 60) + #"{"type":"NFC"}"# + String(repeating: "]}", count: 60)
    #expect(throws: Never.self) { try tokenizer(file(bpe, #","normalizer":"# + nested)) }
  }

  @Test func `no mutation of a tokenizer.json makes reading or using it trap`() throws {
    let files = try TokenizerTruth.files.map { try TokenizerTruth.file($0) }
    let seed: UInt64 = 41
    var generator = SeededGenerator(seed: seed)
    var accepted = 0
    for round in 0..<1500 {
      var bytes = files[round % files.count]
      for _ in 0..<(round % 4 == 0 ? 3 : 1) {
        let place = Int.random(in: 0..<bytes.count, using: &generator)
        switch Int.random(in: 0..<4, using: &generator) {
        case 0: bytes[place] = UInt8.random(in: 0...255, using: &generator)
        case 1: bytes[place] = Array("{}[]:,\"0123456789truefalsenull".utf8).randomElement(using: &generator)!
        case 2: bytes.remove(at: place)
        default: bytes.insert(UInt8.random(in: 0x20...0x7E, using: &generator), at: place)
        }
      }
      // A copy of exactly the text's size, as a fuzzer hands it over.
      let exact = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 1)
      exact.copyBytes(from: bytes)
      let tokenizer = try? parseTokenizerJSON(UnsafeRawBufferPointer(exact))
      exact.deallocate()
      guard let tokenizer else { continue }
      accepted += 1
      let text = "ab abc \n\n naïve <|end|> 😀<s> <mask> 12345 " + randomText(length: 20, using: &generator)
      let tokens = tokenizer.encode(text, parsesSpecialTokens: round % 3 == 0)
      #expect(tokens.allSatisfy { $0 >= 0 && $0 < tokenizer.vocabularySize }, "seed \(seed), round \(round)")
      _ = tokenizer.decode((0..<Int32(tokenizer.vocabularySize)))
    }
    #expect((100..<1490).contains(accepted), "seed \(seed): \(accepted) of 1500 accepted")
  }
}
