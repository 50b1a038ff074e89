// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletTestSupport
import MartletTokenizers
import Testing

@Suite struct IncrementalDecoderTests {
  private func pieces(_ tokens: [Int32], _ tokenizer: any Tokenizer, continuesText: Bool = false) -> [String] {
    var decoder = IncrementalDecoder(tokenizer, continuesText: continuesText)
    var pieces = tokens.map { decoder.append($0) }
    pieces.append(decoder.finish())
    #expect(bytePieces(tokens, tokenizer, continuesText: continuesText) == pieces.map { Array($0.utf8) })
    return pieces
  }

  /// The same as UTF-8, appended.
  private func bytePieces(_ tokens: [Int32], _ tokenizer: any Tokenizer, continuesText: Bool) -> [[UInt8]] {
    var decoder = IncrementalDecoder(tokenizer, continuesText: continuesText)
    var pieces = tokens.map { token in
      var bytes: [UInt8] = []
      decoder.append(token, to: &bytes)
      return bytes
    }
    var rest: [UInt8] = []
    decoder.finish(to: &rest)
    pieces.append(rest)
    return pieces
  }

  @Test func `characters come out whole, with their last byte`() throws {
    let tokenizer = try tokenizer(byteLevelFile(merges: []))
    #expect(pieces("aé€😀".utf8.map(Int32.init), tokenizer) == ["a", "", "é", "", "", "€", "", "", "", "😀", ""])
    var generator = SeededGenerator(seed: 31)
    for _ in 0..<200 {
      let text = randomText(length: 30, using: &generator)
      let pieces = pieces(text.utf8.map(Int32.init), tokenizer)
      #expect(pieces.joined() == text)
      #expect(pieces.allSatisfy { $0.unicodeScalars.count <= 1 })
    }
  }

  @Test func `wrong bytes give the replacement characters that decoding all at once gives`() throws {
    let tokenizer = try tokenizer(byteLevelFile(merges: []))
    // Bytes at the edges of UTF-8's tables, so that truncated, overlong, surrogate and too large sequences are frequent.
    let edges: [UInt8] = [
      0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xEC, 0xED, 0xEE, 0xEF, 0xF0, 0xF1, 0xF3,
      0xF4,
      0xF5, 0xFF,
    ]
    let seed: UInt64 = 32
    var generator = SeededGenerator(seed: seed)
    for _ in 0..<5000 {
      let bytes = (0..<Int.random(in: 0...8, using: &generator)).map { _ in edges.randomElement(using: &generator)! }
      let tokens = bytes.map(Int32.init)
      let joined = pieces(tokens, tokenizer).joined()
      // Compared by scalars: String equality would forgive other normal forms.
      #expect(Array(joined.unicodeScalars) == Array(String(decoding: bytes, as: UTF8.self).unicodeScalars), "seed \(seed): \(bytes)")
      #expect(joined == tokenizer.decode(tokens))
    }
  }

  @Test func `tokens of several bytes cut characters anywhere`() throws {
    // Tokens of two and three bytes that begin and end inside characters.
    let euro = Array("€".utf8)
    let extra = [[euro[2], euro[0]], [euro[1], euro[2], 0x41], [euro[0], euro[1]]].map { bytes in
      (bytes.map { printable($0) }.joined(), Kind.normal)
    }
    let tokenizer = try tokenizer(byteLevelFile(merges: [], extra: extra))
    #expect(pieces([258, 256, 257], tokenizer) == ["", "€", "€A", ""])
    #expect(pieces([258], tokenizer) == ["", "\u{FFFD}"])
    #expect(pieces([258, 258, 65], tokenizer) == ["", "\u{FFFD}", "\u{FFFD}A", ""])
  }

  @Test func `the space that SentencePiece puts is dropped once, unless text goes before`() throws {
    let tokenizer = try tokenizer(sentencePieceFile([("▁", -1), ("a", -2), ("▁a", -3)]))
    let a = tokenizer.encode("a", parsesSpecialTokens: false)
    #expect(pieces([1] + a + a, tokenizer) == ["", "a", " a", ""])
    #expect(pieces(a + a, tokenizer, continuesText: true) == [" a", " a", ""])
    #expect(pieces([1, 2], tokenizer).joined() == "")
    for tokens in [a + a, [1] + a, [3 + 0x20] + a] {
      #expect(pieces(tokens, tokenizer).joined() == tokenizer.decode(tokens))
      #expect(pieces(tokens, tokenizer, continuesText: true).joined() == tokenizer.decode(tokens, continuesText: true))
    }
  }
}
