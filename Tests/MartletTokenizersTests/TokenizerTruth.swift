// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import MartletFormats
import MartletTokenizers
import Testing

/// What `Fixtures/make_tokenizers.py` recorded of the packages `tokenizers` and `sentencepiece`.
struct TokenizerTruth: Decodable {
  struct Broken: Decodable {
    var hex: String
    var ids: [Int32]
  }
  struct SentencePiece: Decodable {
    var pieces: [String]
    var scores: [Float]
    var types: [Int32]
    var addDummyPrefix: Bool
    var removeExtraWhitespaces: Bool
    var charsmap: String
    var ids: [[Int32]?]
  }
  var texts: [String]
  var broken: [Broken]
  var ids: [String: [[Int32]]]
  var idsSpecial: [String: [String: [Int32]]]
  var words: [String: [[Int]?]]
  var sentencePiece: [String: SentencePiece]

  static let files = [
    "gpt2", "gpt2-prefix", "smollm", "llama3", "qwen2", "qwen35", "tekken", "gpt4o", "deepseek3", "llama2", "mistral", "gemma",
    "pieces-unknown",
    "t5", "unigram-bytes", "bert", "bert-cased", "bert-accents",
  ]

  init() throws {
    let url = try #require(Bundle.module.url(forResource: "tokenizer-ids", withExtension: "json", subdirectory: "Fixtures"))
    self = try JSONDecoder().decode(TokenizerTruth.self, from: Data(contentsOf: url))
  }

  /// The bytes of a recorded `tokenizer.json`.
  static func file(_ name: String) throws -> [UInt8] {
    let url = try #require(Bundle.module.url(forResource: name, withExtension: "json", subdirectory: "Fixtures/tokenizers"))
    return try [UInt8](Data(contentsOf: url))
  }

  static func tokenizer(_ name: String) throws -> any Tokenizer {
    let bytes = try file(name)
    return try makeTokenizer(tokenizerJSON: bytes.span.bytes)
  }

  /// The GGUF file with the vocabulary and the merges of a recorded byte-level `tokenizer.json`.
  static func byteLevelGGUF(_ name: String, pre: String) throws -> [UInt8] {
    let json = try JSONValue(parsing: file(name))
    let model = try #require(json["model"])
    var tokens: [(text: String, kind: Int32)] = []
    for (key, value) in try #require(model["vocab"]).members {
      #expect(value.integer == tokens.count)
      tokens.append((try #require(key.string), 1))
    }
    for added in try #require(json["added_tokens"]).elements {
      let (id, text) = (try #require(added["id"]?.integer), try #require(added["content"]?.string))
      if id >= tokens.count { tokens += [(text: "", kind: 5)].repeated(id + 1 - tokens.count) }
      tokens[id] = (text, added["special"]?.bool == true ? 3 : 4)
    }
    var merges: [String] = []
    for pair in try #require(model["merges"]).elements { merges.append(pair.elements.map { $0.string! }.joined(separator: " ")) }
    var writer = GGUFWriter()
    writer.add("tokenizer.ggml.model", .string("gpt2"))
    writer.add("tokenizer.ggml.pre", .string(pre))
    writer.add("tokenizer.ggml.tokens", strings: tokens.map(\.text))
    writer.add("tokenizer.ggml.token_type", int32s: tokens.map(\.kind))
    writer.add("tokenizer.ggml.merges", strings: merges)
    return writer.bytes()
  }

  /// The GGUF file with the vocabulary of a recorded WordPiece `tokenizer.json`, as converters write it: "▁" before what begins a word, no "##".
  static func wordPieceGGUF(_ name: String, lowercase: Bool, more: (inout GGUFWriter) -> Void = { _ in }) throws -> [UInt8] {
    let json = try JSONValue(parsing: file(name))
    var tokens: [(text: String, kind: Int32)] = []
    for (key, value) in try #require(json["model"]?["vocab"]).members {
      #expect(value.integer == tokens.count)
      let text = try #require(key.string)
      tokens.append((text.hasPrefix("##") ? String(text.dropFirst(2)) : "▁" + text, 1))
    }
    for added in try #require(json["added_tokens"]).elements {
      let (id, text) = (try #require(added["id"]?.integer), try #require(added["content"]?.string))
      if id >= tokens.count { tokens += [(text: "", kind: 5)].repeated(id + 1 - tokens.count) }
      tokens[id] = (text, 3)
    }
    var writer = GGUFWriter()
    writer.add("tokenizer.ggml.model", .string("bert"))
    writer.add("tokenizer.ggml.tokens", strings: tokens.map(\.text))
    writer.add("tokenizer.ggml.token_type", int32s: tokens.map(\.kind))
    for (role, id) in [("bos", 2), ("eos", 3), ("unknown", 1), ("seperator", 3), ("padding", 0), ("mask", 4)] as [(String, UInt32)] {
      writer.add("tokenizer.ggml.\(role)_token_id", .uint32(id))
    }
    if !lowercase { writer.add("tokenizer.ggml.normalizer.lowercase", .bool(false)) }
    more(&writer)
    return writer.bytes()
  }

  /// The GGUF file of a recorded SentencePiece model.
  func sentencePieceGGUF(_ name: String, model: String) throws -> [UInt8] {
    let recorded = try #require(sentencePiece[name])
    var writer = GGUFWriter()
    writer.add("tokenizer.ggml.model", .string(model))
    writer.add("tokenizer.ggml.tokens", strings: recorded.pieces)
    writer.add("tokenizer.ggml.scores", floats: recorded.scores)
    writer.add("tokenizer.ggml.token_type", int32s: recorded.types)
    writer.add("tokenizer.ggml.unknown_token_id", .uint32(0))
    writer.add("tokenizer.ggml.bos_token_id", .uint32(1))
    writer.add("tokenizer.ggml.eos_token_id", .uint32(2))
    writer.add("tokenizer.ggml.add_space_prefix", .bool(recorded.addDummyPrefix))
    writer.add("tokenizer.ggml.remove_extra_whitespaces", .bool(recorded.removeExtraWhitespaces))
    if let map = Data(base64Encoded: recorded.charsmap), !map.isEmpty {
      writer.add("tokenizer.ggml.precompiled_charsmap", .array(.uint8, map.map { .uint8($0) }))
    }
    return writer.bytes()
  }
}

extension Array {
  fileprivate func repeated(_ count: Int) -> [Element] { (0..<count).flatMap { _ in self } }
}
