// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletFormats
import MartletTestSupport
import MartletTokenizers
import Testing

@Suite struct SentencePieceBPETests {
  private let pieces: [(String, Float)] = [
    ("▁", -10), ("h", -11), ("e", -12), ("l", -13), ("o", -14), ("he", -2), ("ll", -1), ("hell", -3), ("hello", -4), ("▁hello", -5),
    ("el", -6),
  ]

  private func withoutPrefix(_ writer: inout GGUFWriter) { writer.add("tokenizer.ggml.add_space_prefix", .bool(false)) }

  @Test func `the best score merges first, among equals the leftmost`() throws {
    let tokenizer = try tokenizer(sentencePieceFile(pieces, configure: withoutPrefix))
    #expect(tokenizer.pieces("hello") == ["hello"])
    #expect(tokenizer.pieces("hello hello") == ["hello", " hello"])
    #expect(tokenizer.pieces("helo") == ["he", "l", "o"])
    #expect(tokenizer.pieces("lll") == ["ll", "l"])
    #expect(tokenizer.pieces("el") == ["el"])
    // Scores above and below zero, and both zeros, keep their order: "bc" (0.5) before "ab" (0), which is not before "cd" (−0).
    let signs = try self.tokenizer([("a", -9), ("b", -9), ("c", -9), ("d", -9), ("ab", 0), ("bc", 0.5), ("cd", -0.0)])
    #expect(signs.pieces("abc") == ["a", "bc"])
    #expect(signs.pieces("abcd") == ["a", "bc", "d"])
    #expect(signs.pieces("abd cd") == ["ab", "d", " ", "cd"])
  }

  private func tokenizer(_ pieces: [(String, Float)]) throws -> any Tokenizer {
    try makeTokenizer(from: GGUFFile(bytes: sentencePieceFile(pieces + [("▁", -99)], configure: withoutPrefix)))
  }

  private func tokenizer(_ bytes: [UInt8]) throws -> any Tokenizer { try makeTokenizer(from: GGUFFile(bytes: bytes)) }

  @Test func `the space before a text is put and taken away again`() throws {
    let tokenizer = try tokenizer(sentencePieceFile(pieces))
    #expect(tokenizer.dropsLeadingSpace && tokenizer.addsBOS && tokenizer.bosToken == 1)
    let tokens = tokenizer.encode("hello", parsesSpecialTokens: false)
    #expect(tokens.map { tokenizer.bytes(of: $0) } == [Array(" hello".utf8)])
    #expect(tokenizer.decode(tokens) == "hello")
    #expect(tokenizer.decode([1] + tokens) == "hello")
    #expect(tokenizer.decode(tokens, continuesText: true) == " hello")
    // Only the tokenizer's own space goes.
    #expect(tokenizer.decode(tokenizer.encode("  hello", parsesSpecialTokens: false)) == "  hello")
    // After a token that was cut out a text begins anew, as in llama.cpp.
    #expect(tokenizer.pieces("hello</s>hello", parsesSpecialTokens: true) == [" hello", "</s>", " hello"])
    #expect(tokenizer.encode("", parsesSpecialTokens: false) == [])
  }

  @Test func `a character without a token becomes its bytes, or the unknown token`() throws {
    let bytes = try tokenizer(sentencePieceFile(pieces, configure: withoutPrefix))
    let tokens = bytes.encode("hé😀", parsesSpecialTokens: false)
    #expect(Array(tokens.dropFirst()) == [0xC3, 0xA9, 0xF0, 0x9F, 0x98, 0x80].map { Int32($0) + 3 })
    #expect(bytes.decode(tokens) == "hé😀")
    let unknown = try tokenizer(sentencePieceFile(pieces, hasBytes: false, configure: withoutPrefix))
    #expect(unknown.encode("é", parsesSpecialTokens: false) == [0, 0])
    #expect(unknown.decode([0, 0]) == "")
  }

  @Test func `text never merges to a control, byte or unused token`() throws {
    let parts: [(String, Float)] = [
      ("<", -9), ("s", -9), (">", -9), ("<s", -1), ("0", -9), ("x", -9), ("A", -9), ("<0", -1), ("<0x", -1), ("<0x0", -1), ("<0x0A", -1),
    ]
    let tokenizer = try tokenizer(sentencePieceFile(parts, extra: [("xs", .unused)], configure: withoutPrefix))
    #expect(tokenizer.pieces("<s>") == ["<s", ">"])
    #expect(tokenizer.encode("<s>", parsesSpecialTokens: true) == [1])
    #expect(tokenizer.pieces("<0x0A>") == ["<0x0A", ">"])
    #expect(tokenizer.pieces("xs") == ["x", "s"])
  }

  @Test func `user-defined tokens are cut out of every text as it is written`() throws {
    let extra: [(String, Kind)] = [("\n", .userDefined), ("\n\n", .userDefined), ("  ", .userDefined), ("<b>", .userDefined)]
    let tokenizer = try tokenizer(sentencePieceFile(pieces, extra: extra, configure: withoutPrefix))
    #expect(tokenizer.pieces("hello\n\n\n  hello <b>") == ["hello", "\n\n", "\n", "  ", "hello", " ", "<b>"])
  }

  @Test func `any text comes back from its tokens`() throws {
    for prefix in [false, true] {
      let tokenizer = try tokenizer(
        sentencePieceFile(pieces, extra: [("\n", .userDefined)]) { $0.add("tokenizer.ggml.add_space_prefix", .bool(prefix)) })
      var generator = SeededGenerator(seed: 21)
      for _ in 0..<200 {
        // After a token that was cut out a space is put that decoding cannot know: without prefix any text, with it one without newlines.
        let text = randomText(length: 50, using: &generator).filter { !prefix || $0 != "\n" && $0 != "\r\n" }
        #expect(tokenizer.decode(tokenizer.encode(text, parsesSpecialTokens: false)) == text)
      }
    }
  }

  @Test func `what a file has wrong is named`() throws {
    func error(_ bytes: [UInt8]) -> TokenizerError? { #expect(throws: TokenizerError.self) { try tokenizer(bytes) } }
    #expect(
      error(sentencePieceFile([("a", .nan)]))
        == .malformed(field: "tokenizer.ggml.scores[259]", problem: "is not a number"))
    #expect(
      error(sentencePieceFile([], extra: [("<0xG1>", .byte)]))
        == .malformed(field: "tokenizer.ggml.tokens[259]", problem: "is a byte token named \"<0xG1>\", not \"<0xAB>\""))
    var writer = GGUFWriter()
    writer.add("tokenizer.ggml.model", .string("llama"))
    writer.add("tokenizer.ggml.tokens", strings: ["a", "b"])
    #expect(error(writer.bytes()) == .format(.missingKey("tokenizer.ggml.scores")))
    writer.add("tokenizer.ggml.scores", floats: [1])
    #expect(error(writer.bytes()) == .malformed(field: "tokenizer.ggml.scores", problem: "has 1 entries for 2 tokens"))
    writer.add("tokenizer.ggml.token_type", int32s: [1, 7])
    #expect(error(writer.bytes()) == .malformed(field: "tokenizer.ggml.token_type[1]", problem: "is 7, which is no kind of token"))
  }
}
